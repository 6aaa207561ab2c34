"""How many rows a call of the denoiser should have on a GPU: tried out, not guessed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from negbench.generators.network import Network

GAIN = 0.97
"""Twice the rows are taken as long as a row then takes at most this part of the time."""


def fastest_rows(attempt: Callable[[int], float], *, start: int, most: int) -> int:
    """Rows of a call at which a row takes the least time, of `start` and its doubles.

    Args:
        attempt: seconds of a call with so many rows; raises ``torch.OutOfMemoryError`` where they
            do not fit.
        start: rows to begin with; halved while they do not fit.
        most: rows that are never exceeded.

    Raises:
        torch.OutOfMemoryError: not even one row fits.
    """
    rows = start
    while True:
        try:
            best = attempt(rows) / rows
            break
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            rows //= 2
    if rows < start:
        return rows
    while 2 * rows <= most:
        try:
            taken = attempt(2 * rows) / (2 * rows)
        except torch.OutOfMemoryError:
            break
        if taken > GAIN * best:
            break
        best, rows = taken, 2 * rows
    return rows


def time_call(network: Network, rows: int) -> float:
    """Seconds of a call of the denoiser with `rows` rows, the second of two.

    Raises:
        torch.OutOfMemoryError: it does not fit.
    """
    with torch.inference_mode():
        try:
            texts = network.encode([""]).take(
                torch.zeros(rows, dtype=torch.long).to(network.device)
            )
            x = torch.zeros((rows, *network.latent_shape), dtype=network.dtype)
            x, t = x.to(network.device), torch.tensor(500.0, device=network.device)
            network.predict(x, t, texts)
            _wait(network)
            start = time.perf_counter()
            network.predict(x, t, texts)
            _wait(network)
            return time.perf_counter() - start
        except torch.OutOfMemoryError:
            if network.device.type == "cuda":
                torch.cuda.empty_cache()
            raise


def _wait(network: Network) -> None:
    if network.device.type == "cuda":
        torch.cuda.synchronize(network.device)
