"""The sign-flip (randomisation) test of a paired difference, by prompt.

Under the null hypothesis the method and its baseline are exchangeable within a prompt, so the sign
of each prompt's total difference is as good as random. The statistic is |sum of the totals|; the
sum of their squares is the same under every flip, so studentising would change no order. With few
prompts all flips are enumerated and p is exact; with more, flips are drawn with a fixed seed and
p = (k + 1) / (B + 1) (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010, eq. 2), which is
never 0. Prompts whose difference is exactly 0 change no flip and are left out of the enumeration.
"""

from __future__ import annotations

import numpy as np

from negbench.stats.summary import Array

EXACT_PROMPTS = 16
"""Up to this many prompts with a difference all 2^n flips are enumerated."""

DRAWS = 19_999
"""Random flips beyond that: the smallest p is 1/20000."""

_CHUNK = 2048
_CELLS = 1 << 23
"""Most coins tossed at once, so that memory does not grow with the prompts."""


def sign_flip(totals: Array, *, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Two-sided p of the hypothesis that the totals are symmetric around 0.

    Args:
        totals: sum of the paired differences of each prompt, finite, (prompts,).
        draws: random flips where enumeration is not possible.
        seed: of the random flips.

    Returns:
        p in (0, 1], and the smallest p that this number of prompts could have given.
    """
    t = np.asarray(totals, dtype=np.float64)
    if not np.isfinite(t).all():
        raise ValueError("totals must be finite")
    t = np.sort(t[t != 0])
    if t.size == 0:
        return 1.0, 1.0
    t = t / np.abs(t).max()
    observed = abs(t.sum())
    limit = observed - 1e-12 * np.abs(t).sum()
    if t.size <= EXACT_PROMPTS:
        sums = np.array([t[0]])  # by symmetry the first sign may stay
        for value in t[1:]:
            sums = np.concatenate([sums + value, sums - value])
        count = int((np.abs(sums) >= limit).sum())
        return count / sums.size, 1.0 / sums.size
    rng = np.random.default_rng(seed)
    extreme, done = 0, 0
    whole = t.sum()
    # whole words of random bits a chunk, so that the coins are the same whatever its size
    chunk = min(_CHUNK, max(32, _CELLS // t.size // 32 * 32))
    while done < draws:
        rows = min(chunk, draws - done)
        flips = random_bits(rng, rows, t.size)
        extreme += int((np.abs(whole - 2.0 * (flips @ t)) >= limit).sum())
        done += rows
    return (extreme + 1) / (draws + 1), 1.0 / (draws + 1)


def random_bits(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Fair coins as float64 0 or 1, (rows, columns)."""
    width = -(-columns // 8)
    packed = np.frombuffer(rng.bytes(rows * width), dtype=np.uint8).reshape(rows, width)
    return np.unpackbits(packed, axis=1, count=columns).astype(np.float64)
