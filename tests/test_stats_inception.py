"""Inception Score: value, jackknife, differences, against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from negbench import stats
from negbench.stats.functional import prompt_index, totals_by_prompt


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def images(seed, prompts, replicates, classes=12, sharp=3.0):
    rng = np.random.default_rng(seed)
    logits = 0.7 * rng.normal(size=(prompts, replicates, classes))
    logits[np.arange(prompts), :, rng.integers(0, classes, prompts)] += sharp
    names = [f"p{i:04d}" for i in range(prompts) for _ in range(replicates)]
    return softmax(logits).reshape(prompts * replicates, classes), names


def by_definition(p):
    """exp of the mean KL divergence from the marginal: Salimans et al.'s own form."""
    marginal = p.mean(axis=0)
    return math.exp(np.mean([np.sum(row * (np.log(row) - np.log(marginal))) for row in p]))


def test_value_and_jackknife_equal_the_long_way():
    p, names = images(0, 9, 3)
    summary = stats.inception_summary(p, names)
    assert summary.value == pytest.approx(by_definition(p), rel=1e-12)
    kept = np.array([math.log(by_definition(p[np.array(names) != n])) for n in sorted(set(names))])
    error = math.sqrt(8 / 9 * np.square(kept - kept.mean()).sum())
    from scipy.stats import t

    half = t.ppf(0.975, 8) * error
    centre = math.log(summary.value)
    assert summary.ci95 == pytest.approx((math.exp(centre - half), math.exp(centre + half)))
    assert (summary.n_scored, summary.n_prompts) == (27, 9)


def test_known_values():
    sharp = np.eye(10)[np.arange(100) % 10]
    names = [f"p{i}" for i in range(100)]
    assert stats.inception_summary(sharp, names).value == pytest.approx(10.0)
    flat = np.full((100, 10), 0.1)
    summary = stats.inception_summary(flat, names)
    assert summary.value == pytest.approx(1.0)
    assert summary.ci95 is None
    assert "changes nothing" in summary.note


def test_the_interval_holds_its_estimate_where_a_bootstrap_does_not():
    rng = np.random.default_rng(1)
    classes = 300
    p = softmax(
        9.0 * np.eye(classes)[rng.integers(0, classes, 300)] + rng.normal(size=(300, classes))
    )
    names = [str(i) for i in range(300)]
    summary = stats.inception_summary(p, names)
    low, high = summary.ci95
    assert low < summary.value < high
    terms = stats.inception_terms(p)
    resampled = [
        float(np.exp(stats.log_inception(terms[rng.integers(0, 300, 300)].mean(axis=0))))
        for _ in range(200)
    ]
    assert np.percentile(resampled, 97.5) < summary.value


def test_delete_m_jackknife_for_unequal_prompts():
    """Busing et al. 1999, eq. 3 and 4, written out."""
    p, names = images(2, 6, 4)
    keep = [i for i in range(24) if i not in {1, 2, 3, 9, 22, 23}]
    p, names = p[keep], [names[i] for i in keep]
    summary = stats.inception_summary(p, names)
    theta, n, groups = math.log(by_definition(p)), len(p), sorted(set(names))
    member = np.array(names)
    taus, hs, bias = [], [], 0.0
    for g in groups:
        h = n / (member == g).sum()
        left = math.log(by_definition(p[member != g]))
        taus.append(h * theta - (h - 1) * left)
        hs.append(h)
        bias += (1 - 1 / h) * left
    centre = len(groups) * theta - bias
    variance = np.mean([(t - centre) ** 2 / (h - 1) for t, h in zip(taus, hs, strict=True)])
    from scipy.stats import t as student

    half = student.ppf(0.975, 5) * math.sqrt(variance)
    assert np.log(summary.ci95) == pytest.approx((theta - half, theta + half))


def test_difference_interval_and_exact_swap_test():
    a, names = images(3, 5, 2, sharp=3.5)
    b, _ = images(4, 5, 2, sharp=2.5)
    contrast = stats.inception_contrast(a, b, names)
    assert contrast.delta == pytest.approx(by_definition(a) - by_definition(b))
    group = np.repeat(np.arange(5), 2)
    observed = abs(math.log(by_definition(a)) - math.log(by_definition(b)))
    found = []
    for swap in itertools.product([False, True], repeat=5):
        chosen = np.array(swap)[group][:, None]
        first, second = np.where(chosen, b, a), np.where(chosen, a, b)
        found.append(abs(math.log(by_definition(first)) - math.log(by_definition(second))))
    assert contrast.p == pytest.approx(np.mean(np.array(found) >= observed - 1e-12))
    kept = np.array([by_definition(a[group != g]) - by_definition(b[group != g]) for g in range(5)])
    from scipy.stats import t

    half = t.ppf(0.975, 4) * math.sqrt(4 / 5 * np.square(kept - kept.mean()).sum())
    assert contrast.ci95 == pytest.approx((contrast.delta - half, contrast.delta + half))


def test_random_swaps_from_sums_and_from_rows_agree_with_each_other():
    a, names = images(5, 16, 2, sharp=3.2)
    b, _ = images(6, 16, 2, sharp=2.8)
    fast = stats.inception_contrast(a, b, names).p
    slow = stats.swap_test_of_rows(
        a, b, names, lambda rows: math.log(by_definition(rows)), draws=999
    )
    assert fast == pytest.approx(slow, abs=0.06)
    assert fast > 0


def test_degenerate_sets():
    p, names = images(7, 4, 2)
    assert stats.inception_summary(p[:0], []).value is None
    one = stats.inception_summary(p[:2], names[:2])
    assert one.value == pytest.approx(by_definition(p[:2]))
    assert (one.ci95, one.n_prompts) == (None, 1)
    same = stats.inception_contrast(p, p, names)
    assert (same.delta, same.ci95, same.p) == (0.0, None, 1.0)
    assert "same value" in same.note
    lone = stats.inception_contrast(p[:2], p[2:4], names[:2])
    assert lone.p is None
    assert lone.ci95 is None
    assert stats.inception_contrast(p[:0], p[:0], []).delta is None
    with pytest.raises(ValueError, match="equal n"):
        stats.inception_contrast(p, p[:2], names)
    with pytest.raises(ValueError, match="add up to 1"):
        stats.inception_terms(np.full((2, 3), 0.9))
    with pytest.raises(ValueError, match="not negative"):
        stats.inception_terms(np.array([[1.5, -0.5]]))
    bad = stats.set_summary(float("inf"), np.ones(3), np.ones(3))
    assert bad.value is None
    hollow = stats.set_summary(2.0, np.array([1.0, np.nan]), np.ones(2), log=True)
    assert hollow.ci95 is None


TORCH_FIDELITY = (2.1987146240625774, 0.2043503349088207)
"""torch-fidelity 0.3's mean and deviation for the logits below."""


@pytest.mark.slow  # imports torch
def test_ten_splits_are_torch_fidelitys():
    metric = pytest.importorskip("torch_fidelity.metric_isc")
    import torch

    rng = np.random.default_rng(8)
    logits = rng.normal(size=(103, 7)) * 2
    theirs = metric.isc_features_to_metric(
        torch.from_numpy(logits), splits=10, shuffle=True, rng_seed=2020
    )
    mean, deviation = stats.inception_splits(softmax(logits))
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert deviation == pytest.approx(theirs["inception_score_std"], rel=1e-9)
    assert (mean, deviation) == pytest.approx(TORCH_FIDELITY, rel=1e-9)


def test_ten_splits_by_number():
    logits = np.random.default_rng(8).normal(size=(103, 7)) * 2
    assert stats.inception_splits(softmax(logits)) == pytest.approx(TORCH_FIDELITY, rel=1e-9)
    assert stats.inception_splits(softmax(logits)[:9]) is None


def test_leave_one_out_in_chunks():
    p, names = images(9, 300, 1)
    index, sizes = prompt_index(names)
    totals = totals_by_prompt(stats.inception_terms(p), index, len(sizes))
    deleted = stats.leave_one_out(totals, sizes, stats.log_inception)
    assert deleted.shape == (300,)
    at = 277
    assert math.exp(deleted[at]) == pytest.approx(by_definition(np.delete(p, at, axis=0)))
