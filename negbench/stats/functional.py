"""Numbers that belong to a whole set of images and follow from sums over it.

A set metric such as Inception Score is a function f of the mean of some terms over all images.
With the terms summed by prompt, leaving out a prompt or swapping the labels of two arms within a
prompt costs one subtraction, not another pass over the images.

Intervals are delete-one-prompt jackknife intervals with Student's quantile; where prompts have
different numbers of images, the delete-m_j jackknife of Busing, Meijer & van der Leeden (Stat.
Comput. 9, 1999, eq. 3 and 4), which with equal numbers is the ordinary one. From 30 prompts on
they are corrected for skewness as those of means are. They are centred on the estimate at this
number of images, and that is what they cover: Inception Score grows with n, so only equal n may
be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from negbench.stats.signflip import random_bits
from negbench.stats.summary import Array, Contrast, Summary, finite_interval, t_ends

Statistic = Callable[[Array], Array]
"""Means of the terms, (..., k), to values, (...)."""

EXACT_SWAPS = 12
"""Up to this many prompts all 2^n swaps are enumerated."""

SWAPS = 4_999
"""Random swaps beyond that: the smallest p is 1/5000."""

_CHUNK = 256


def prompt_index(prompts: Sequence[str]) -> tuple[npt.NDArray[np.int64], Array]:
    """Number of each image's prompt in sorted order, (n,), and images a prompt, (prompts,)."""
    number = {prompt: at for at, prompt in enumerate(sorted(set(prompts)))}
    index = np.array([number[prompt] for prompt in prompts], dtype=np.int64)
    return index, np.bincount(index, minlength=len(number)).astype(np.float64)


def totals_by_prompt(
    terms: npt.NDArray[np.floating], index: npt.NDArray[np.int64], prompts: int
) -> Array:
    """Sums of the rows of `terms`, (n, k), by prompt: float64 (prompts, k)."""
    totals = np.zeros((prompts, terms.shape[1]), dtype=np.float64)
    np.add.at(totals, index, terms)
    return totals


def leave_one_out(totals: Array, sizes: Array, statistic: Statistic) -> Array:
    """The statistic with each prompt left out in turn, (prompts,); needs two prompts or more."""
    whole, n = totals.sum(axis=0), sizes.sum()
    kept = [
        statistic((whole - totals[at : at + _CHUNK]) / (n - sizes[at : at + _CHUNK])[:, None])
        for at in range(0, len(totals), _CHUNK)
    ]
    return np.concatenate(kept)


def jackknife(value: float, deleted: Array, sizes: Array) -> tuple[float, Array]:
    """Standard error (Busing et al. 1999, eq. 4), and each prompt's part in it, (prompts,)."""
    h = sizes.sum() / sizes
    pseudo = h * value - (h - 1) * deleted
    centre = len(h) * value - ((1 - 1 / h) * deleted).sum()
    parts = (pseudo - centre) / np.sqrt(h - 1)
    return float(np.sqrt((parts**2).mean())), parts


def set_summary(
    value: float, deleted: Array, sizes: Array, *, n_unscored: int = 0, log: bool = False
) -> Summary:
    """A set's value with its jackknife interval.

    Args:
        value: over all images.
        deleted: the value with each prompt left out, (prompts,).
        sizes: images of each prompt, in the same order.
        n_unscored: images that could not take part.
        log: make the interval on the logarithm and transform it back; values must be positive.
    """
    return _summary(value, deleted, sizes, n_unscored=n_unscored, log=log, scale=float(log))


def _summary(
    value: float, deleted: Array, sizes: Array, *, n_unscored: int, log: bool, scale: float
) -> Summary:
    sizes = np.asarray(sizes, dtype=np.float64)
    n, prompts = int(sizes.sum()), len(sizes)

    def result(ci95: tuple[float, float] | None, note: str | None) -> Summary:
        return Summary(float(value), ci95, n, n_unscored, prompts, note)

    if not math.isfinite(value):
        return Summary(None, None, n, n_unscored, prompts, "the value is not finite")
    if prompts < 2:
        return result(None, "one prompt only: no interval over prompts")
    deleted = np.asarray(deleted, dtype=np.float64)
    if not np.isfinite(deleted).all() or (log and (value <= 0 or (deleted <= 0).any())):
        return result(None, "no value without some of the prompts: no interval")
    centre = math.log(value) if log else float(value)
    error, parts = jackknife(centre, np.log(deleted) if log else deleted, sizes)
    if error <= 1e-12 * max(abs(centre), scale):  # nothing but rounding
        return result(None, "leaving out any prompt changes nothing: no interval")
    below, above = t_ends(np.asarray(prompts - 1.0), parts)
    with np.errstate(over="ignore"):
        low, high = centre - error * float(above), centre - error * float(below)
        if log:
            low, high = float(np.exp(low)), float(np.exp(high))
    interval = finite_interval(low, high)
    return result(interval, None if interval else "too few prompts: the interval has no end")


def set_contrast(
    method: float,
    baseline: float,
    method_deleted: Array,
    baseline_deleted: Array,
    sizes: Array,
    *,
    p: float | None = None,
    n_dropped: int = 0,
) -> Contrast:
    """Difference of two sets' values over the same prompts and seeds, with a jackknife interval.

    Args:
        method: value of the treated images.
        baseline: value of their twins; both sets hold the same number of images of each prompt.
        method_deleted: the method's value with each prompt left out, (prompts,).
        baseline_deleted: the baseline's, in the same order.
        sizes: pairs of each prompt.
        p: of a test made elsewhere, for example `swap_test`.
        n_dropped: pairs left out because a side is unscored.
    """
    deleted = np.asarray(method_deleted, dtype=np.float64) - np.asarray(baseline_deleted)
    scale = max(abs(method), abs(baseline))
    summary = _summary(method - baseline, deleted, sizes, n_unscored=0, log=False, scale=scale)
    note = summary.note
    if summary.value == 0 and summary.ci95 is None and summary.n_prompts > 1:
        note = "method and baseline have the same value: no interval"
    p = None if summary.n_prompts < 2 else p
    return Contrast(
        summary.value, summary.ci95, p, summary.n_scored, n_dropped, summary.n_prompts, note
    )


def swap_test(
    method: Array,
    baseline: Array,
    n: float,
    statistic: Statistic,
    *,
    draws: int = SWAPS,
    seed: int = 0,
) -> float:
    """Two-sided p of the hypothesis that the two arms are exchangeable within each prompt.

    The labels of method and baseline are swapped by prompt, all images of a prompt together, and
    |f(method) - f(baseline)| is computed anew: exact for few prompts, else (k + 1) / (B + 1).

    Args:
        method: sums of the terms by prompt, (prompts, k).
        baseline: the same of the baseline, over equally many images of each prompt.
        n: images of one arm.
        statistic: f, from means of the terms.
        draws: random swaps where enumeration is not possible.
        seed: of the random swaps.
    """
    change = baseline - method
    whole = method.sum(axis=0)
    both = whole + baseline.sum(axis=0)
    moved = (change != 0).any(axis=1)
    change = change[moved]

    def distance(swaps: Array) -> Array:
        first = whole + swaps @ change
        return np.abs(statistic(first / n) - statistic((both - first) / n))

    observed = float(distance(np.zeros((1, len(change))))[0])
    limit = observed - 1e-12 * max(1.0, observed)
    if len(change) == 0:
        return 1.0
    if len(change) <= EXACT_SWAPS:
        # by symmetry the last prompt may stay
        codes = np.arange(2 ** (len(change) - 1))
        flips = ((codes[:, None] >> np.arange(len(change))) & 1).astype(np.float64)
        return float((distance(flips) >= limit).mean())
    rng = np.random.default_rng(seed)
    extreme, done = 0, 0
    while done < draws:
        rows = min(_CHUNK, draws - done)
        extreme += int((distance(random_bits(rng, rows, len(change))) >= limit).sum())
        done += rows
    return (extreme + 1) / (draws + 1)


def swap_test_of_rows(
    method: npt.NDArray[np.floating],
    baseline: npt.NDArray[np.floating],
    prompts: Sequence[str],
    value: Callable[[npt.NDArray[np.floating]], float],
    *,
    draws: int = 499,
    seed: int = 0,
) -> float:
    """`swap_test` for any set metric, by calling `value` on whole sets of rows: slow but general.

    Args:
        method: one row an image of the method, (n, d).
        baseline: one row a twin, same order.
        prompts: the prompt of each pair.
        value: the metric of a set of rows.
        draws: random swaps.
        seed: of the random swaps.
    """
    index, sizes = prompt_index(prompts)

    def distance(flips: npt.NDArray[np.bool_]) -> float:
        chosen = flips[index][:, None]
        first = np.where(chosen, baseline, method)
        return abs(value(first) - value(np.where(chosen, method, baseline)))

    observed = distance(np.zeros(len(sizes), dtype=bool))
    rng = np.random.default_rng(seed)
    limit = observed - 1e-9 * max(1.0, observed)
    extreme = sum(
        distance(rng.integers(0, 2, size=len(sizes)).astype(bool)) >= limit for _ in range(draws)
    )
    return (extreme + 1) / (draws + 1)


def rows_summary(
    rows: npt.NDArray[np.floating],
    prompts: Sequence[str],
    value: Callable[[npt.NDArray[np.floating]], float],
) -> Summary:
    """`set_summary` for any set metric, by calling `value` without each prompt: slow but general.

    Args:
        rows: one row an image, (n, d).
        prompts: the prompt of each image.
        value: the metric of a set of rows.
    """
    index, sizes = prompt_index(prompts)
    return set_summary(value(rows), _without_each(rows, index, len(sizes), value), sizes)


def rows_contrast(
    method: npt.NDArray[np.floating],
    baseline: npt.NDArray[np.floating],
    prompts: Sequence[str],
    value: Callable[[npt.NDArray[np.floating]], float],
) -> Contrast:
    """`set_contrast` for any set metric, with `swap_test_of_rows`.

    Args:
        method: one row an image of the method, (n, d).
        baseline: one row a twin, same order.
        prompts: the prompt of each pair.
        value: the metric of a set of rows.
    """
    index, sizes = prompt_index(prompts)
    count = len(sizes)
    return set_contrast(
        value(method),
        value(baseline),
        _without_each(method, index, count, value),
        _without_each(baseline, index, count, value),
        sizes,
        p=swap_test_of_rows(method, baseline, prompts, value) if count > 1 else None,
    )


def _without_each(
    rows: npt.NDArray[np.floating],
    index: npt.NDArray[np.int64],
    prompts: int,
    value: Callable[[npt.NDArray[np.floating]], float],
) -> Array:
    if prompts < 2:
        return np.empty(0)
    return np.asarray([value(rows[index != i]) for i in range(prompts)], dtype=np.float64)
