r"""Removal against damage, and removal at matched damage.

A rule can be made to remove more by making it stronger, and a stronger one changes more of the
picture. So two rules are held against each other at one and the same damage. With the settings of a
rule ordered by their mean damage D_1 <= ... <= D_k and R_i the net removal of each,

    removal_at(D) = R_i + (R_{i+1} - R_i) (D - D_i) / (D_{i+1} - D_i),   D_i <= D <= D_{i+1},

from (D_0, R_0) = (0, 0), which is the twin, on. Beyond D_k there is no value. Intervals draw
prompts with replacement, all triples and settings of a prompt together, and do the whole
computation again, the order of the settings and the damage to be matched included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from negbench.stats.bootstrap import cluster_bootstrap
from negbench.stats.summary import Array, Interval

COLUMNS = 4
"""Sums a setting and prompt: net removal, its triples, damage, its pictures."""


@dataclass(frozen=True)
class Bootstrapped:
    """A number with its interval, or the reason why there is none."""

    value: float | None
    ci95: Interval | None
    note: str | None = None


def pareto(damage: Sequence[float | None], removal: Sequence[float | None]) -> list[bool]:
    """Which points no other beats: none has as little damage and more removal, or the reverse."""
    front = []
    for d, r in zip(damage, removal, strict=True):
        if d is None or r is None:
            front.append(False)
            continue
        front.append(
            not any(
                od is not None and orr is not None and od <= d and orr >= r and (od < d or orr > r)
                for od, orr in zip(damage, removal, strict=True)
            )
        )
    return front


def interpolate(damage: Array, removal: Array, at: Array) -> Array:
    """`removal_at` along the last axis: (..., settings), (..., settings), (...) to (...).

    NaN where `at` lies beyond the largest damage, and where a setting has no value.
    """
    shape = np.shape(at)
    flat_at = np.reshape(np.broadcast_to(at, shape), -1)
    settings = damage.shape[-1]
    x = np.reshape(damage, (-1, settings))
    y = np.reshape(removal, (-1, settings))
    found = np.full(len(x), np.nan)
    for row in range(len(x)):
        order = np.argsort(x[row], kind="stable")
        xs = np.concatenate([[0.0], x[row][order]])
        ys = np.concatenate([[0.0], y[row][order]])
        if np.isfinite(ys).all() and np.isfinite(xs).all() and 0 <= flat_at[row] <= xs[-1]:
            found[row] = np.interp(flat_at[row], xs, ys)
    return np.reshape(found, shape)


def matched(totals: Array, *, settings: int, at: float | None) -> tuple[Bootstrapped, Bootstrapped]:
    """Net removal of the swept rule at a damage, and the same minus the reference's own.

    Args:
        totals: sums by prompt, (prompts, COLUMNS * (settings + 1)): the swept settings one after
            another, then the reference.
        settings: how many are swept.
        at: the damage; None for the reference's own damage, the only one at which the difference
            to the reference says something.
    """

    def points(sums: Array) -> tuple[Array, Array]:
        by = np.reshape(sums, (*np.shape(sums)[:-1], settings + 1, COLUMNS))
        with np.errstate(divide="ignore", invalid="ignore"):
            return by[..., 2] / by[..., 3], by[..., 0] / by[..., 1]

    def removal(sums: Array) -> Array:
        damage, net = points(sums)
        place = damage[..., -1] if at is None else np.full(np.shape(damage)[:-1], at)
        return interpolate(damage[..., :-1], net[..., :-1], place)

    def gain(sums: Array) -> Array:
        return np.asarray(removal(sums) - points(sums)[1][..., -1])

    value = _bootstrapped(totals, removal)
    if at is not None:
        return value, Bootstrapped(None, None, "only at the reference's own damage")
    return value, _bootstrapped(totals, gain)


def _bootstrapped(totals: Array, statistic: object) -> Bootstrapped:
    assert callable(statistic)
    value = float(statistic(totals.sum(axis=0)))
    if not np.isfinite(value):
        return Bootstrapped(None, None, "no setting does as much damage: nothing to interpolate")
    ci95, note = cluster_bootstrap(totals, statistic)
    return Bootstrapped(value, ci95, note)
