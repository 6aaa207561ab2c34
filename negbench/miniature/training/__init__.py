"""Trainers of the miniature's models, one module a part."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

_TRAINERS: dict[str, str] = {
    "vae": "negbench.miniature.training.vae:train_vae",
    "unet": "negbench.miniature.training.unet:train_unet",
    "clip": "negbench.miniature.training.clip:train_clip",
    "inception": "negbench.miniature.training.classifiers:train_inception",
    "judge": "negbench.miniature.training.classifiers:train_judge",
    "aesthetic": "negbench.miniature.training.classifiers:train_aesthetic",
    "negopt": "negbench.miniature.training.negopt:train_negopt",
}
#: Trainable parts, in the order in which they need one another.
PARTS: tuple[str, ...] = tuple(_TRAINERS)


def train(
    part: str, *, out: Path, steps: int | None = None, resume: bool = True, seed: int = 0
) -> None:
    """Train one part of the miniature.

    Args:
        part: One of `PARTS`. `unet` needs `vae`; `judge` and `clip` need `unet`; `aesthetic`
            needs `clip`.
        out: Weights folder; rendered sets and checkpoints go to its subfolder `work`.
        steps: Training steps, or None for the part's own number.
        resume: Go on from the last checkpoint.
        seed: Seed of initial weights and batches.

    Raises:
        NegbenchError: The part is unknown or needs another one that is missing.
    """
    from negbench.errors import NegbenchError

    if part not in _TRAINERS:
        raise NegbenchError(f"unknown part {part!r}: choose one of {', '.join(PARTS)}")
    import torch

    torch.manual_seed(seed)
    module, function = _TRAINERS[part].split(":")
    getattr(import_module(module), function)(out=out, steps=steps, resume=resume, seed=seed)
