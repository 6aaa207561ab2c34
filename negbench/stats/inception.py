"""Inception Score (Salimans et al., arXiv 1606.03498, section 4) with honest uncertainty.

    log IS = H(mean_i p_i) - mean_i H(p_i)        (entropies in nats)

over all images in one split: the mutual information of class and image. Its interval is a
delete-one-prompt jackknife on log IS, transformed back; a percentile bootstrap does not even
contain its own estimate, because resampled sets hold duplicates and so score lower. IS grows with
the number of images, so the interval speaks of IS *at this n*, and differences are taken between
sets of the same prompts and seeds only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from negbench.stats.functional import (
    SWAPS,
    leave_one_out,
    prompt_index,
    set_contrast,
    set_summary,
    swap_test,
    totals_by_prompt,
)
from negbench.stats.summary import Array, Contrast, Summary

Probabilities = npt.NDArray[np.floating]


def _p_log_p(p: Array) -> Array:
    return p * np.log(np.where(p > 0, p, 1.0))


def inception_terms(probabilities: Probabilities) -> Array:
    """What each image adds: its class probabilities and its entropy, float64 (n, classes + 1).

    Raises:
        ValueError: rows are not probabilities (negative, not finite, or not adding up to 1).
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not np.isfinite(p).all() or (p < 0).any():
        raise ValueError("probabilities must be finite, not negative, of shape (images, classes)")
    sums = p.sum(axis=1, keepdims=True)
    if len(p) and np.abs(sums - 1).max() > 1e-3:
        raise ValueError("the probabilities of an image must add up to 1")
    p = p / sums
    return np.concatenate([p, -_p_log_p(p).sum(axis=1, keepdims=True)], axis=1)


def log_inception(means: Array) -> Array:
    """Log IS from the means of the terms, (..., classes + 1) -> (...)."""
    return np.asarray(-_p_log_p(means[..., :-1]).sum(axis=-1) - means[..., -1])


def inception_splits(
    probabilities: Probabilities, *, splits: int = 10, seed: int = 2020
) -> tuple[float, float] | None:
    """The customary mean and (population) deviation of IS over `splits` parts of the images.

    Shuffled and cut as torch-fidelity does (its default seed), so that published numbers compare.
    It is no interval: parts are smaller sets, and IS grows with n. None with fewer images than
    splits.
    """
    n = len(probabilities)
    if n < splits or splits < 1:
        return None
    # torch-fidelity's generator, so that the parts are the same
    order = np.random.RandomState(seed).permutation(n)
    terms = inception_terms(probabilities)[order]
    scores = [
        float(np.exp(log_inception(terms[i * n // splits : (i + 1) * n // splits].mean(axis=0))))
        for i in range(splits)
    ]
    return float(np.mean(scores)), float(np.std(scores))


def inception_summary(
    probabilities: Probabilities, prompts: Sequence[str], *, n_unscored: int = 0
) -> Summary:
    """Inception Score over all images, with a jackknife interval by prompt.

    Args:
        probabilities: softmax output, one row an image, (n, classes).
        prompts: the prompt of each image.
        n_unscored: images that could not take part.
    """
    if len(probabilities) == 0:
        return Summary(None, None, 0, n_unscored, 0, "no image was scored")
    index, sizes = prompt_index(prompts)
    totals = totals_by_prompt(inception_terms(probabilities), index, len(sizes))
    value = _score(totals, float(sizes.sum()))
    deleted = np.exp(leave_one_out(totals, sizes, log_inception)) if len(sizes) > 1 else np.empty(0)
    return set_summary(value, deleted, sizes, n_unscored=n_unscored, log=True)


def inception_contrast(
    method: Probabilities,
    baseline: Probabilities,
    prompts: Sequence[str],
    *,
    n_dropped: int = 0,
    draws: int = SWAPS,
    seed: int = 0,
) -> Contrast:
    """IS of the method minus IS of its twins, over the same prompts and seeds.

    The difference is one of scores (not of logarithms), with a jackknife interval of that
    difference; p is of the swap test on the difference of log IS.

    Args:
        method: softmax output of the treated images, (n, classes).
        baseline: softmax output of their twins, row by row.
        prompts: the prompt of each pair.
        n_dropped: pairs left out because a side is unscored.
        draws: random swaps of the test.
        seed: of the random swaps.

    Raises:
        ValueError: the two sets differ in size or classes.
    """
    if np.shape(method) != np.shape(baseline):
        raise ValueError(
            f"Inception Scores compare at equal n only, got {np.shape(method)} and "
            f"{np.shape(baseline)}"
        )
    if len(method) == 0:
        return Contrast(None, None, None, 0, n_dropped, 0, "no pair was scored on both sides")
    index, sizes = prompt_index(prompts)
    first = totals_by_prompt(inception_terms(method), index, len(sizes))
    second = totals_by_prompt(inception_terms(baseline), index, len(sizes))
    n = float(sizes.sum())
    if len(sizes) == 1:
        return set_contrast(
            _score(first, n),
            _score(second, n),
            np.empty(0),
            np.empty(0),
            sizes,
            n_dropped=n_dropped,
        )
    return set_contrast(
        _score(first, n),
        _score(second, n),
        np.exp(leave_one_out(first, sizes, log_inception)),
        np.exp(leave_one_out(second, sizes, log_inception)),
        sizes,
        p=swap_test(first, second, n, log_inception, draws=draws, seed=seed),
        n_dropped=n_dropped,
    )


def _score(totals: Array, n: float) -> float:
    return float(np.exp(log_inception(totals.sum(axis=0) / n)))
