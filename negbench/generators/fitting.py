"""How many rows a network's calls have: on a GPU tried out, and halved once memory runs out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from negbench.errors import NegbenchError
from negbench.generators.families import Pipeline
from negbench.generators.network import Network, Rows

CPU_POSITIONS = 8192
"""Latent positions in one call of the denoiser on the CPU: 32 rows of a 16 x 16 latent."""

GPU_POSITIONS = 131_072
"""The same on a GPU: 32 rows of a 64 x 64 latent, 8 of a 128 x 128."""

NOTHING_FITS = (
    "not even one picture fits into the GPU's memory; choose a smaller height and width, or "
    "dtype=float16"
)

GAIN = 0.97
"""Twice the rows are taken as long as a row then takes at most this part of the time."""


def on_gpu(device: torch.device) -> bool:
    """Whether memory that runs out there can be got back by smaller batches."""
    return device.type == "cuda"


def first_rows(
    pipeline: Pipeline, *, size: tuple[int, int], device: torch.device, batch_size: int | None
) -> Rows:
    """Rows of every network's calls to begin with.

    Args:
        pipeline: whose latents they are.
        size: height and width in pixels.
        device: on the CPU rows depend on the size alone, so that pictures do too.
        batch_size: pictures drawn together on a GPU; None for a guess that `fit` betters.
    """
    height, width = size
    positions = (height // pipeline.factor) * (width // pipeline.factor)
    if device.type == "cpu":
        rows = _power_of_two(CPU_POSITIONS // positions, at_least=2, at_most=32)
        return Rows(text=8, denoiser=rows, decoder=max(1, rows // 4))
    if batch_size is not None:
        rows = 2 * batch_size
    else:
        rows = _power_of_two(GPU_POSITIONS // positions, at_least=2, at_most=256)
    return Rows(text=32, denoiser=rows, decoder=max(1, rows // 8))


def _power_of_two(value: int, *, at_least: int, at_most: int) -> int:
    return max(at_least, min(at_most, 1 << max(0, value.bit_length() - 1)))


def fit(network: Network) -> None:
    """Give the network's calls the rows at which this GPU draws fastest.

    Raises:
        NegbenchError: not even one row fits.
    """
    start = network.rows.denoiser or 2
    try:
        with network.uncompiled():
            rows = fastest_rows(
                lambda count: time_call(network, count), start=max(2, start // 4), most=4 * start
            )
    except torch.OutOfMemoryError as error:
        raise NegbenchError(NOTHING_FITS) from error
    network.rows = replace(network.rows, denoiser=rows, decoder=max(1, rows // 8))


def halve(network: Network, size: int) -> int:
    """Half the rows of every call and half the batch of `size`, after memory ran out.

    Raises:
        NegbenchError: there is nothing left to halve.
    """
    torch.cuda.empty_cache()
    rows = network.rows
    if size == 1 and (rows.denoiser or 1) == 1:
        raise NegbenchError(NOTHING_FITS)
    smaller = {
        name: max(1, value // 2)
        for name in ("text", "denoiser", "decoder")
        if (value := getattr(rows, name)) is not None
    }
    network.rows = replace(rows, **smaller)
    return max(1, size // 2)


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
