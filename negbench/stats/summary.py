"""What statistics return, and how scores are gathered by prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]

SKEW_FROM = 30
"""Clusters from which on intervals are corrected for skewness."""


@dataclass(frozen=True)
class Summary:
    """One number over a set of images.

    Attributes:
        value: the estimate, or None if nothing was scored.
        ci95: 95 % interval clustered by prompt, or None where there is none (`note` says why).
        n_scored: images with a score.
        n_unscored: images without one.
        n_prompts: prompts with at least one scored image.
        note: what a reader should know about this number, or None.
    """

    value: float | None
    ci95: Interval | None
    n_scored: int
    n_unscored: int
    n_prompts: int
    note: str | None = None


@dataclass(frozen=True)
class Contrast:
    """Method minus baseline on the same prompts and seeds.

    Attributes:
        delta: the difference, or None if no pair was scored on both sides.
        ci95: 95 % interval clustered by prompt, or None (`note` says why).
        p: two-sided p of a randomisation test by prompt, never 0, or None.
        n: pairs scored on both sides.
        n_dropped: pairs left out because a side is unscored.
        n_prompts: prompts with at least one pair.
        note: what a reader should know about this number, or None.
    """

    delta: float | None
    ci95: Interval | None
    p: float | None
    n: int
    n_dropped: int
    n_prompts: int
    note: str | None = None


@dataclass(frozen=True)
class Clusters:
    """Scores gathered by prompt, prompts in sorted order.

    Attributes:
        prompts: the clusters' names.
        totals: sum of the scores of each cluster, float64 (prompts,).
        sizes: scored images of each cluster, float64 (prompts,), all at least 1.
        values: the scores of each cluster, sorted.
        n_unscored: images without a score.
    """

    prompts: tuple[str, ...]
    totals: Array
    sizes: Array
    values: tuple[tuple[float, ...], ...]
    n_unscored: int

    @property
    def n(self) -> int:
        """Scored images."""
        return int(self.sizes.sum())

    def spread(self) -> float:
        """Largest minus smallest score."""
        return max(v[-1] for v in self.values) - min(v[0] for v in self.values)


def gather(values: Sequence[float | None], prompts: Sequence[str]) -> Clusters:
    """Group scores by prompt; sums are exact (fsum), so the order of images changes no bit.

    Raises:
        ValueError: the lists differ in length, or a score is NaN or infinite.
    """
    if len(values) != len(prompts):
        raise ValueError(f"{len(values)} scores but {len(prompts)} prompts")
    groups: dict[str, list[float]] = {}
    for value, prompt in zip(values, prompts, strict=True):
        if value is None:
            continue
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"a score must be finite or None, got {number}")
        groups.setdefault(prompt, []).append(number)
    names = tuple(sorted(groups))
    ordered = tuple(tuple(sorted(groups[name])) for name in names)
    return Clusters(
        prompts=names,
        totals=np.array([math.fsum(v) for v in ordered], dtype=np.float64),
        sizes=np.array([len(v) for v in ordered], dtype=np.float64),
        values=ordered,
        n_unscored=sum(value is None for value in values),
    )


def t_quantile(df: float | Array, level: float = 0.95) -> Array:
    """Two-sided quantile of Student's t, for example 2.262 at df 9 and level 0.95."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(df, 0.5 + level / 2), dtype=np.float64)


def t_ends(df: Array, influence: Array, *, level: float = 0.95) -> tuple[Array, Array]:
    """Lower and upper quantile of the t statistic of an estimate, corrected for skewness.

    Below 30 clusters these are Student's; from 30 on Hall's monotone cubic
    T + g T^2/3 + g^2 T^3/27 + g/6, with g = skewness / sqrt(clusters), is inverted at them
    (Hall, J. R. Statist. Soc. B 54, 1992, eq. 2.6). The interval is estimate - error * (high, low).

    Args:
        df: degrees of freedom, (...).
        influence: what each cluster adds to the estimate, up to a factor, (..., clusters).
        level: confidence level.
    """
    quantile = t_quantile(df, level)
    clusters = influence.shape[-1]
    if clusters < SKEW_FROM:
        return -quantile, quantile
    centred = influence - influence.mean(axis=-1, keepdims=True)
    second, third = (centred**2).mean(axis=-1), (centred**3).mean(axis=-1)
    skew = np.divide(third, second**1.5, out=np.zeros_like(second), where=second > 0)
    skew = skew / np.sqrt(clusters)
    return _invert_hall(-quantile, skew), _invert_hall(quantile, skew)


def _invert_hall(z: Array, g: Array) -> Array:
    straight = np.abs(g) < 1e-6
    safe = np.where(straight, 1.0, g)
    cubic = 3.0 / safe * (np.cbrt(1.0 + safe * (z - safe / 6.0)) - 1.0)
    return np.where(straight, z, cubic)


def finite_interval(low: float, high: float) -> Interval | None:
    """The interval, or None if an end is not finite."""
    low, high = float(low), float(high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def join_notes(*notes: str | None) -> str | None:
    """All notes in one line, or None."""
    said = [note for note in notes if note]
    return "; ".join(said) if said else None
