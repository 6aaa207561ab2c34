"""Learning rate by step, and seeds by step: what makes a resumed run equal an undisturbed one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from negbench.types import canonical_json, sha256_hex

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def learning_rate(step: int, *, steps: int, peak: float, warmup: float = 0.05) -> float:
    """Linear rise over the first share `warmup` of steps, then half a cosine to a hundredth."""
    rise = max(1, int(steps * warmup))
    if step < rise:
        return peak * (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def seed_for(*parts: str | int) -> int:
    """A 63-bit seed from names and numbers."""
    return int(sha256_hex(canonical_json(["negbench-train", *parts]))[:15], 16)


def visit(step: int, *, size: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Rows of a step that goes through `count` rows in a new random order each time.

    Args:
        step: counts from 0.
        size: rows a step.
        count: rows there are.
        seed: of the orders.

    Returns:
        int64 (size,).
    """
    import numpy as np

    places = np.arange(step * size, (step + 1) * size)
    rows = np.empty(size, np.int64)
    for epoch in np.unique(places // count):
        order = np.random.default_rng([seed, int(epoch)]).permutation(count)
        chosen = places // count == epoch
        rows[chosen] = order[places[chosen] % count]
    return rows


def weighted(
    step: int, *, size: int, cumulative: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.int64]:
    """Rows of a step drawn with replacement by their chances.

    Args:
        step: counts from 0.
        size: rows a step.
        cumulative: cumulated chances, ending in 1, float64 (n,).
        seed: of the draws.

    Returns:
        int64 (size,).
    """
    import numpy as np

    drawn = np.random.default_rng([seed, step]).random(size) * cumulative[-1]
    rows = np.searchsorted(cumulative, drawn, side="right")
    result: npt.NDArray[np.int64] = np.minimum(rows, len(cumulative) - 1).astype(np.int64)
    return result
