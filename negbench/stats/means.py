"""Means over images, and paired differences of means, clustered by prompt.

The estimate is the mean over images. Its variance is the cluster-robust one of an intercept-only
regression with the CR2 correction of Bell & McCaffrey (Survey Methodology 28, 2002, eq. 5 ff.):

    ybar = sum_g t_g / M,    z_g = t_g - ybar m_g,    V = sum_g z_g^2 / (1 - m_g / M) / M^2

with t_g the total and m_g the number of images of prompt g, M = sum_g m_g. With equal m_g this is
exactly the squared standard error of the mean of the prompt means. Degrees of freedom are
Satterthwaite's, the smaller of those for independent images and for images that are one within a
prompt; with equal m_g both are G - 1, so that below 30 prompts the interval is the t-interval on
the prompt means. From 30 prompts on the t statistic is corrected for skewness by Hall's monotone
cubic (Hall, J. R. Statist. Soc. B 54, 1992, eq. 2.6): scores such as damage to the twin are
skewed, and a symmetric interval then misses far more often on one side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from negbench.stats.signflip import sign_flip
from negbench.stats.summary import (
    Array,
    Clusters,
    Contrast,
    Interval,
    Summary,
    finite_interval,
    gather,
    join_notes,
    t_ends,
)


def clustered_variance(totals: Array, sizes: Array) -> tuple[Array, Array, Array]:
    """Mean, CR2 variance and degrees of freedom along the last axis.

    Args:
        totals: sum of the scores of each cluster, (..., clusters), at least 2 clusters.
        sizes: number of scores of each cluster, same shape.

    Returns:
        Three arrays of shape (...): the mean, its variance, its degrees of freedom.
    """
    m = np.broadcast_to(np.asarray(sizes, dtype=np.float64), np.shape(totals))
    whole = m.sum(axis=-1, keepdims=True)
    mean = totals.sum(axis=-1, keepdims=True) / whole
    a2 = 1.0 / (1.0 - m / whole)
    z = totals - mean * m
    variance = (a2 * z**2).sum(axis=-1) / whole[..., 0] ** 2
    df = np.minimum(_satterthwaite(m, m, a2), _satterthwaite(m, m**2, a2))
    return mean[..., 0], variance, df


def _satterthwaite(m: Array, v: Array, a2: Array) -> Array:
    """Degrees of freedom 2 E(V)^2 / var(V) if the cluster totals have variances `v`.

    The adjusted residuals have covariance K = diag(a2 v) + [x y] S [x y]' with x = a m, y = a v,
    S = [[c, -1/M], [-1/M, 0]], c = sum(v)/M^2, and df = tr(K)^2 / tr(K K), here in O(clusters).
    """
    whole = m.sum(axis=-1)
    a = np.sqrt(a2)
    x, y, diagonal = a * m, a * v, a2 * v
    c = v.sum(axis=-1) / whole**2
    low_rank = c[..., None] * x**2 - 2.0 * x * y / whole[..., None]
    trace = (diagonal + low_rank).sum(axis=-1)
    xx, xy, yy = (x * x).sum(-1), (x * y).sum(-1), (y * y).sum(-1)
    # S Q with Q = [[xx, xy], [xy, yy]]; tr(S Q S Q) is the squared norm of the low-rank part
    b = -1.0 / whole
    s11, s12 = c * xx + b * xy, c * xy + b * yy
    s21, s22 = b * xx, b * xy
    norm = s11**2 + 2.0 * s12 * s21 + s22**2
    square = (diagonal**2 + 2.0 * diagonal * low_rank).sum(axis=-1) + norm
    return np.asarray(trace**2 / square, dtype=np.float64)


def mean_interval(
    totals: Array, sizes: Array, *, level: float = 0.95
) -> tuple[Array, Array, Array]:
    """Mean and interval along the last axis: (mean, low, high), each of shape (...).

    Args:
        totals: sum of the scores of each cluster, (..., clusters), at least 2 clusters.
        sizes: number of scores of each cluster, same shape.
        level: confidence level.
    """
    mean, variance, df = clustered_variance(totals, sizes)
    error = np.sqrt(variance)
    low, high = t_ends(df, totals - mean[..., None] * sizes, level=level)
    return mean, mean - error * high, mean - error * low


def mean_summary(values: Sequence[float | None], prompts: Sequence[str]) -> Summary:
    """Mean over images with a 95 % interval clustered by prompt.

    Args:
        values: one score an image, None where it is unscored.
        prompts: the prompt (cluster) of each image.
    """
    clusters = gather(values, prompts)
    if clusters.n == 0:
        return Summary(None, None, 0, clusters.n_unscored, 0, "no image was scored")
    mean, interval, note = _estimate(clusters)
    return Summary(mean, interval, clusters.n, clusters.n_unscored, len(clusters.prompts), note)


def paired_contrast(
    method: Sequence[float | None], baseline: Sequence[float | None], prompts: Sequence[str]
) -> Contrast:
    """Mean of (method - baseline) over images, clustered by prompt, with a sign-flip test.

    Args:
        method: scores of the method, one a pair, None where unscored.
        baseline: scores of the same prompts and seeds without the treatment.
        prompts: the prompt (cluster) of each pair.
    """
    if len(method) != len(baseline):
        raise ValueError(f"{len(method)} scores of the method but {len(baseline)} of the baseline")
    differences = [
        None if a is None or b is None else float(a) - float(b)
        for a, b in zip(method, baseline, strict=True)
    ]
    clusters = gather(differences, prompts)
    dropped = clusters.n_unscored
    if clusters.n == 0:
        return Contrast(None, None, None, 0, dropped, 0, "no pair was scored on both sides")
    mean, interval, note = _estimate(clusters)
    if clusters.spread() == 0 and clusters.totals[0] == 0:
        note = "method and baseline score the same on every image"
    p = None
    if len(clusters.prompts) > 1 and mean is not None:
        p, floor = sign_flip(clusters.totals)
        if floor > 0.05:
            note = join_notes(note, f"with so few prompts p cannot fall below {floor:.3g}")
    return Contrast(mean, interval, p, clusters.n, dropped, len(clusters.prompts), note)


def _estimate(clusters: Clusters) -> tuple[float | None, Interval | None, str | None]:
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(clusters.totals.sum() / clusters.n)
    if not np.isfinite(mean):
        return None, None, "the scores are too large for a mean"
    if len(clusters.prompts) == 1:
        return mean, None, "one prompt only: no interval over prompts"
    scale = max(abs(v) for group in clusters.values for v in group)
    if clusters.spread() <= 1e-12 * scale:
        return clusters.values[0][0], None, "all scores are equal: no interval"
    with np.errstate(over="ignore", invalid="ignore"):
        value, low, high = mean_interval(clusters.totals, clusters.sizes)
    interval = finite_interval(float(low), float(high))
    if interval is None:
        return mean, None, "the scores are too large for an interval"
    if interval[1] - interval[0] <= 1e-12 * scale:
        return mean, None, "all prompts have the same mean: no interval"
    return float(value), interval, None
