"""Networks by spec: ``clip:ViT-L-14/openai``, ``inception:miniature``, ``judge:miniature`` ...

Equal specs are one object in a process, so that one pass over an image serves every metric.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from negbench.errors import DataError, UnknownNameError, did_you_mean
from negbench.metrics.base import Features, Network, Pixels

if TYPE_CHECKING:
    import torch

KINDS: dict[str, str] = {
    "clip": "negbench.metrics.clip_network:ClipNetwork",
    "inception": "negbench.metrics.classifiers:build_inception",
    "judge": "negbench.metrics.classifiers:Judge",
}


@functools.cache
def get(spec: str) -> Network:
    """The network of `spec`, ``kind:choice``; the same object for equal specs.

    Args:
        spec: ``clip:`` with ``miniature``, ``<model>/<tag>`` of open_clip,
            ``hf-hub:<repo>[@revision]`` or ``local-dir:<folder>``;
            ``inception:`` with ``miniature`` or ``inception-v3``; ``judge:miniature``.

    Raises:
        UnknownNameError: no such kind or choice.
        ConfigError: the choice is malformed.
    """
    kind, _, choice = spec.partition(":")
    if kind not in KINDS or not choice:
        raise UnknownNameError(
            f"unknown network {spec!r}; write kind:choice, {did_you_mean(kind, KINDS)}"
        )
    module, _, attribute = KINDS[kind].partition(":")
    network: Network = getattr(import_module(module), attribute)(choice)
    return network


def check_pixels(image: Any) -> Pixels:
    """`image` itself, if it is uint8 (height, width, 3) with at least one pixel.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(image, np.ndarray):
        raise DataError(f"an image must be a numpy array of uint8, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(
            f"an image must be uint8 (height, width, 3), got {image.dtype} {image.shape}; "
            "convert it to 8-bit RGB"
        )
    return image


def in_fixed_batches(
    rows: Sequence[npt.NDArray[Any]],
    *,
    size: int,
    run: Callable[[torch.Tensor], torch.Tensor],
    prepare: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None,
    device: str = "cpu",
) -> Features:
    """Put rows through a network in batches of one shape, short ones filled up with their last row.

    Rows of another shape go into batches of their own. On the CPU a row's result then does not
    depend on the rows beside it, bit for bit.

    Args:
        rows: arrays; what `prepare` makes of rows of one shape has one shape.
        size: rows a batch.
        run: maps a tensor (size, ...) on `device` to one of (size, d).
        prepare: applied to each row first, batch by batch.
        device: where `run` computes.

    Returns:
        float32 (n, d), in the order of `rows`; (0, 0) if there are none.
    """
    import torch

    if not rows:
        return np.zeros((0, 0), dtype=np.float32)
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.shape, []).append(index)
    results: list[Features | None] = [None] * len(rows)
    for indices in groups.values():
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            block = [prepare(rows[i]) if prepare else rows[i] for i in chosen]
            block += [block[-1]] * (size - len(block))
            with torch.inference_mode(), _full_precision(device):
                out = run(torch.from_numpy(np.stack(block)).to(device)).float().cpu().numpy()
            for i, row in zip(chosen, out, strict=False):
                results[i] = row
    return np.stack([row for row in results if row is not None]).astype(np.float32, copy=False)


def _full_precision(device: str) -> Any:
    """On a GPU: no TF32 in convolutions and no choice of algorithms by trial."""
    import contextlib

    import torch

    if not device.startswith("cuda"):
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
