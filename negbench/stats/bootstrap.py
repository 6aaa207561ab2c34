"""Bootstrap by prompt, for ratios and other functions of sums.

Prompts are drawn with replacement, all images of a prompt together. The interval is BCa (Efron,
J. Am. Statist. Ass. 82, 1987, eq. 2.3 and 6.6), its level widened for few prompts as Hesterberg's
expanded percentile interval does (Am. Statist. 69, 2015, section 3.3). It must not be used for
Inception Score: resampled sets hold duplicates, which lowers the score itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from negbench.stats.functional import Statistic
from negbench.stats.summary import Array, Interval, Summary, gather, t_quantile

DRAWS = 9_999
_CHUNK = 1024


def cluster_bootstrap(
    totals: Array, statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> tuple[Interval | None, str | None]:
    """95 % BCa interval of a function of sums over prompts.

    Args:
        totals: sums by prompt, (prompts, k).
        statistic: sums over a sample of prompts, (..., k), to values, (...). It may return
            infinity (a ratio with denominator 0) and NaN (0/0).
        draws: resamples.
        seed: of the resamples.

    Returns:
        The interval, or None and the reason.
    """
    from scipy.special import ndtr, ndtri

    totals = np.asarray(totals, dtype=np.float64)
    prompts = len(totals)
    if prompts < 2:
        return None, "one prompt only: no interval over prompts"
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(totals.sum(axis=0)))
        deleted = np.asarray(statistic(totals.sum(axis=0) - totals), dtype=np.float64)
        rng = np.random.default_rng(seed)
        drawn = []
        for at in range(0, draws, _CHUNK):
            rows = min(_CHUNK, draws - at)
            weights = rng.multinomial(prompts, np.full(prompts, 1.0 / prompts), size=rows)
            drawn.append(np.asarray(statistic(weights @ totals), dtype=np.float64))
    samples = np.concatenate(drawn)
    samples = np.sort(samples[~np.isnan(samples)])
    if math.isnan(value):
        return None, "no value"
    if len(samples) < 0.95 * draws:
        return None, "more than 5 % of the resamples have no value: no interval"
    if samples[0] == samples[-1]:
        return None, "all resamples agree: no interval"
    below = (samples < value).sum() + 0.5 * (samples == value).sum()
    z0 = float(ndtri(np.clip(below / len(samples), 1 / draws, 1 - 1 / draws)))
    push = 0.0
    if np.isfinite(deleted).all():
        distance = deleted.mean() - deleted
        spread = float((distance**2).sum())
        if spread > 0:
            push = float((distance**3).sum()) / (6.0 * spread**1.5)
    wide = math.sqrt(prompts / (prompts - 1)) * float(t_quantile(prompts - 1))
    ends = []
    for z in (-wide, wide):
        bent = (z0 + z) / (1 - push * (z0 + z)) if abs(push * (z0 + z)) < 1 else math.inf * z
        share = float(ndtr(z0 + bent))
        place = min(max(share * (len(samples) + 1) - 1, 0.0), len(samples) - 1.0)
        ends.append(_between(samples, place))
    if not all(math.isfinite(end) for end in ends):
        return None, "the denominator vanishes in too many resamples: no interval"
    return (ends[0], ends[1]), None


def _between(samples: Array, place: float) -> float:
    lower = math.floor(place)
    upper = min(lower + 1, len(samples) - 1)
    low, high = float(samples[lower]), float(samples[upper])
    if lower == place or low == high or not math.isfinite(low):
        return low
    if not math.isfinite(high):
        return high
    return low + (place - lower) * (high - low)


def ratio_summary(
    numerator: Sequence[float | None],
    denominator: Sequence[float | None],
    prompts: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Summary:
    """Ratio of two means over the same units, with a bootstrap interval by prompt.

    The ends are quantiles, so those of the ratio and of the log ratio are the same interval.

    Args:
        numerator: one number a unit, not negative, for example removed (1) or not (0) by a method.
        denominator: the same of the method it is held against; a unit with a None is left out.
        prompts: the prompt of each unit.
        draws: resamples.
        seed: of the resamples.

    Returns:
        A summary without value, and the reason, where the denominator is 0.
    """
    kept = [a is not None and b is not None for a, b in zip(numerator, denominator, strict=True)]
    above = gather([a if k else None for a, k in zip(numerator, kept, strict=True)], prompts)
    below = gather([b if k else None for b, k in zip(denominator, kept, strict=True)], prompts)
    if above.n and min(min(v[0] for v in c.values) for c in (above, below)) < 0:
        raise ValueError("a ratio of means needs numbers that are not negative")
    n, unscored, groups = above.n, above.n_unscored, len(above.prompts)
    if n == 0:
        return Summary(None, None, 0, unscored, 0, "no unit was scored on both sides")
    if below.totals.sum() == 0:
        return Summary(None, None, n, unscored, groups, "the denominator is 0: no ratio")
    value = float(above.totals.sum() / below.totals.sum())
    totals = np.stack([above.totals, below.totals], axis=1)

    def ratio(sums: Array) -> Array:
        return np.asarray(np.divide(sums[..., 0], sums[..., 1]))

    interval, note = cluster_bootstrap(totals, ratio, draws=draws, seed=seed)
    if not math.isfinite(value):
        return Summary(None, None, n, unscored, groups, "the ratio is too large")
    return Summary(value, interval, n, unscored, groups, note)
