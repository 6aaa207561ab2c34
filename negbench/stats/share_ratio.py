"""Ratio of two shares known by their counts alone: Koopman's score interval."""

from __future__ import annotations

import math
from collections.abc import Callable

from negbench.stats.summary import Interval


def share_ratio_interval(hits: int, n: int, base_hits: int, base_n: int) -> Interval | None:
    """95 % score interval of (hits / n) / (base_hits / base_n), two independent binomials.

    The ratios that a score test at level 0.05 does not reject (Koopman, Biometrics 40, 1984,
    p. 513 ff.). Unlike the normal interval of the log ratio (Katz et al., Biometrics 34, 1978) it
    has a finite upper end and positive length where `hits` is 0 or where both shares are 1.

    Args:
        hits: successes of the numerator, 0 to `n`.
        n: trials of the numerator, at least 1.
        base_hits: successes of the denominator, 0 to `base_n`.
        base_n: trials of the denominator, at least 1.

    Returns:
        The two ends, or None where `base_hits` is 0 and the ratio has no value.

    Raises:
        ValueError: a count is out of range.
    """
    from scipy.optimize import brentq
    from scipy.special import chdtri

    if not (0 <= hits <= n and 0 <= base_hits <= base_n and n > 0 and base_n > 0):
        raise ValueError(f"counts out of range: {hits} of {n} over {base_hits} of {base_n}")
    if base_hits == 0:
        return None
    limit = float(chdtri(1, 0.05))
    value = (hits / n) / (base_hits / base_n)

    def excess(log_ratio: float) -> float:
        return _score(math.exp(log_ratio), hits, n, base_hits, base_n) - limit

    # the smallest ratio that could be seen at all: a start for the search where `hits` is 0
    centre = math.log(value if value > 0 else 0.5 / n)
    low = 0.0 if hits == 0 else math.exp(float(brentq(excess, _step(excess, centre, -1), centre)))
    if hits == 0:
        while excess(centre) > 0:
            centre -= 1.0
    high = math.exp(float(brentq(excess, centre, _step(excess, centre, 1))))
    return low, high


def _step(excess: Callable[[float], float], start: float, direction: int) -> float:
    """A point beyond the end of the interval, found by doubling steps."""
    width = 0.1
    while excess(start + direction * width) <= 0:
        width *= 2
    return start + direction * width


def _score(ratio: float, hits: int, n: int, base_hits: int, base_n: int) -> float:
    """Koopman's chi-square statistic of the hypothesis that the two shares have this ratio."""
    u, v = ratio * (n + base_hits), float(hits + base_n)
    # the smaller root of (n + base_n) p^2 - (u + v) p + ratio (hits + base_hits); neither the
    # root nor the discriminant is taken as a difference of large numbers
    root = math.sqrt((u - v) ** 2 + 4.0 * ratio * (n - hits) * (base_n - base_hits))
    p = min(1.0, 2.0 * ratio * (hits + base_hits) / (u + v + root))
    base = min(1.0, p / ratio)
    return _chi(hits, n, p) + _chi(base_hits, base_n, base)


def _chi(hits: int, n: int, share: float) -> float:
    variance = n * share * (1.0 - share)
    distance = hits - n * share
    if variance <= 0:
        return 0.0 if abs(distance) <= 1e-9 * n else math.inf
    return distance * distance / variance
