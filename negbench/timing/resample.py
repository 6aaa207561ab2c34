"""Bootstrap by prompt for places in a curve: where it peaks, where it has risen, where it falls.

Such a place is a whole number, so the interval is the plain percentile interval of the resamples
(Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3); it cannot be finer than
the grid that the curve was measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Place = Callable[[Array], Array]
"""Curves (..., points) to a value each, (...); NaN where a curve has no such place."""

DRAWS = 4_000


@dataclass(frozen=True)
class Located:
    """A place in a mean curve.

    Attributes:
        value: of the mean over all units, or None where the curve has no such place.
        ci95: percentile interval over resampled prompts, or None.
        n: units.
        n_prompts: prompts.
        note: why there is no value or no interval.
    """

    value: float | None
    ci95: tuple[float, float] | None
    n: int
    n_prompts: int
    note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For ``timing.json``."""
        return {
            "value": self.value,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "n": self.n,
            "n_prompts": self.n_prompts,
            "note": self.note,
        }


def locate(
    values: Sequence[Sequence[float | None]],
    prompts: Sequence[str],
    place: Place,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Located:
    """A place in the mean curve of all units, with an interval over prompts.

    Args:
        values: one curve a unit, all of one length; None where a point is not known.
        prompts: the prompt of each unit; units of a prompt are drawn together.
        place: where in a curve.
        draws: resamples.
        seed: of the resamples.
    """
    curves = np.array([[np.nan if v is None else v for v in row] for row in values], dtype=float)
    n = len(curves)
    if n == 0:
        return Located(None, None, 0, 0, "no unit")
    names = sorted(set(prompts))
    member = np.array([[name == prompt for prompt in prompts] for name in names], dtype=float)
    known = ~np.isnan(curves)
    totals, counts = member @ np.where(known, curves, 0.0), member @ known.astype(float)

    def at(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return place((weights @ totals) / (weights @ counts))

    value = float(at(np.ones((1, len(names))))[0])
    if np.isnan(value):
        return Located(None, None, n, len(names), "the curve has no such place")
    if len(names) < 2:
        return Located(value, None, n, len(names), "one prompt only: no interval over prompts")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    found = at(weights.astype(float))
    found = found[~np.isnan(found)]
    if len(found) < 0.95 * draws:
        note = f"{1 - len(found) / draws:.0%} of the resamples have no such place: no interval"
        return Located(value, None, n, len(names), note)
    low, high = np.quantile(found, [0.025, 0.975], method="inverted_cdf")
    return Located(value, (float(low), float(high)), n, len(names))


def peak(curves: Array) -> Array:
    """Index of the largest value; NaN where a point is not known."""
    filled = np.where(np.isnan(curves), -np.inf, curves)
    return np.where(np.isnan(curves).any(axis=-1), np.nan, filled.argmax(axis=-1).astype(float))


def risen(curves: Array, *, share: float = 0.9) -> Array:
    """First index at which a curve has made `share` of its way from its first value to its top."""
    top = curves.max(axis=-1, keepdims=True)
    first = curves[..., :1]
    reached = curves >= first + share * (top - first)
    place = reached.argmax(axis=-1).astype(float)
    return np.where(np.isnan(curves).any(axis=-1), np.nan, place)


def last_at_least(curves: Array, *, share: float, of: Array) -> Array:
    """Last index at which a curve is at least `share` of `of`, every index before included.

    Args:
        curves: (..., points).
        share: of `of`.
        of: (...), what the curve is held against; where it is 0 there is no such place.
    """
    enough = curves >= share * of[..., None] - 1e-12
    run = np.logical_and.accumulate(enough, axis=-1).sum(axis=-1).astype(float) - 1
    return np.where((of > 0) & (run >= 0), run, np.nan)
