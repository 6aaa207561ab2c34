"""Rendered training sets, cached as arrays.

`load` renders what is missing with a few processes and returns memory-mapped arrays; the same
(count, seed) always gives the same bytes.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from negbench.miniature.captions import CONTEXT, caption
from negbench.miniature.draw import draw
from negbench.miniature.text import BOS, EOS, UNK, vocabulary
from negbench.miniature.world import BACKGROUNDS, DEFECTS, PARTS, STYLES, SUBJECTS, scene

CAPTIONS_EACH = 8
#: The judge's labels, in the order of the columns of `RenderedSet.labels`.
LABELS: tuple[str, ...] = (*PARTS, *DEFECTS, *BACKGROUNDS, *STYLES, *SUBJECTS)
_CHUNK = 500


@dataclass(frozen=True)
class RenderedSet:
    """A rendered set.

    Attributes:
        images: uint8 (n, 64, 64, 3).
        labels: float32 (n, len(LABELS)); 1 where true of the picture.
        strengths: float32 (n, len(DEFECTS)); strength of each defect, 0 where absent.
        subjects: int64 (n,); index into `SUBJECTS`.
        tokens: int16 (n, CAPTIONS_EACH, CONTEXT); captions as token ids, padded with 0.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.float32]
    strengths: npt.NDArray[np.float32]
    subjects: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int16]


def encode(text: str, vocab: dict[str, int]) -> list[int]:
    """Token ids of a caption in our own lower-case words (equals the tokenizer's answer)."""
    ids = [vocab.get(word.strip(","), vocab[UNK]) for word in text.split()]
    return [vocab[BOS], *ids[: CONTEXT - 2], vocab[EOS]]


def _render(job: tuple[int, int, int]) -> tuple[Any, ...]:
    start, stop, seed = job
    vocab = vocabulary()
    count = stop - start
    images = np.zeros((count, 64, 64, 3), np.uint8)
    labels = np.zeros((count, len(LABELS)), np.float32)
    strengths = np.zeros((count, len(DEFECTS)), np.float32)
    subjects = np.zeros(count, np.int64)
    tokens = np.zeros((count, CAPTIONS_EACH, CONTEXT), np.int16)
    column = {label: i for i, label in enumerate(LABELS)}
    defects = list(DEFECTS)
    for i in range(count):
        one = scene(start + i, seed=seed)
        drawn = draw(one)
        images[i] = np.asarray(drawn.image)
        true = (*drawn.visible, *one.strength, one.background, one.style, one.subject)
        labels[i, [column[label] for label in true]] = 1
        for defect, strength in one.defects:
            strengths[i, defects.index(defect)] = strength
        subjects[i] = SUBJECTS.index(one.subject)
        rng = np.random.default_rng([seed, start + i, 1])
        for k in range(CAPTIONS_EACH):
            ids = encode(caption(one, drawn.visible, rng=rng), vocab)
            tokens[i, k, : len(ids)] = ids
    return images, labels, strengths, subjects, tokens


_NAMES = ("images", "labels", "strengths", "subjects", "tokens")


def load(folder: Path, *, count: int, seed: int, workers: int = 2) -> RenderedSet:
    """Load a rendered set, rendering it first where the folder does not hold it.

    Args:
        folder: Where sets are cached.
        count: Number of pictures.
        seed: Seed of the scenes (training and held-out sets use different ones).
        workers: Processes that render.

    Returns:
        The set, memory-mapped.
    """
    place = folder / f"rendered-{seed}-{count}"
    if not (place / "done").exists():
        place.mkdir(parents=True, exist_ok=True)
        jobs = [(i, min(i + _CHUNK, count), seed) for i in range(0, count, _CHUNK)]
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            chunks = pool.map(_render, jobs)
        for name, arrays in zip(_NAMES, zip(*chunks, strict=True), strict=True):
            np.save(place / f"{name}.npy", np.concatenate(arrays))
        (place / "done").touch()
    return RenderedSet(**{n: np.load(place / f"{n}.npy", mmap_mode="r") for n in _NAMES})


__all__ = ["CAPTIONS_EACH", "LABELS", "RenderedSet", "encode", "load"]
