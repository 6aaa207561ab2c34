"""Statistics against scipy, textbook formulas, brute force and hand computation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from negbench import stats
from negbench.stats.means import clustered_variance, mean_interval
from negbench.stats.signflip import EXACT_PROMPTS


def spread(values_by_prompt):
    """{prompt: values} as the two aligned lists that the functions take."""
    prompts = [p for p, values in values_by_prompt.items() for _ in values]
    return [v for values in values_by_prompt.values() for v in values], prompts


def test_few_prompts_are_the_t_interval_on_prompt_means():
    rng = np.random.default_rng(0)
    data = {f"p{i}": list(rng.normal(i % 3, 1, size=4)) for i in range(11)}
    values, prompts = spread(data)
    ours = stats.mean_summary(values, prompts)
    theirs = scipy_stats.ttest_1samp([np.mean(v) for v in data.values()], 0).confidence_interval()
    assert ours.value == pytest.approx(np.mean(values))
    assert ours.ci95 == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert (ours.n_scored, ours.n_unscored, ours.n_prompts) == (44, 0, 11)


def test_many_symmetric_prompts_are_close_to_the_t_interval():
    rng = np.random.default_rng(1)
    means = rng.normal(size=200)
    means = np.concatenate([means, -means])  # no skewness at all
    ours = stats.mean_summary(list(means), [str(i) for i in range(400)])
    theirs = scipy_stats.ttest_1samp(means, 0).confidence_interval()
    assert ours.ci95 == pytest.approx((theirs.low, theirs.high), rel=1e-4)


def test_skewed_scores_get_a_longer_upper_arm():
    rng = np.random.default_rng(2)
    values = rng.exponential(size=60)
    summary = stats.mean_summary(list(values), [str(i) for i in range(60)])
    low, high = summary.ci95
    assert high - summary.value > 1.2 * (summary.value - low)


def test_hall_interval_inverts_his_cubic():
    values = np.random.default_rng(3).exponential(size=(1, 45))
    mean, low, high = mean_interval(values, np.ones(45))
    error = values.std(ddof=1) / math.sqrt(45)
    centred = values - values.mean()
    g = float((centred**3).mean() / (centred**2).mean() ** 1.5 / math.sqrt(45))
    for end, expected in ((low, 1), (high, -1)):
        t = float((mean[0] - end[0]) / error)
        cubic = t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6
        assert cubic == pytest.approx(expected * scipy_stats.t.ppf(0.975, 44), rel=1e-9)


def test_cr2_variance_and_degrees_of_freedom_from_matrices():
    """Bell & McCaffrey's CR2 and Satterthwaite df, computed the long way."""
    rng = np.random.default_rng(4)
    sizes = np.array([1, 3, 2, 5, 4, 1], dtype=float)
    y = rng.normal(size=int(sizes.sum()))
    group = np.repeat(np.arange(6), sizes.astype(int))
    n = len(y)
    x = np.ones((n, 1))
    hat = x @ x.T / n
    residual = (np.eye(n) - hat) @ y
    columns, score = [], []
    for g in range(6):
        mine = group == g
        block = np.eye(mine.sum()) - hat[np.ix_(mine, mine)]
        values, vectors = np.linalg.eigh(block)
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        score.append((x[mine].T @ root @ residual[mine]).item() / n)
        columns.append((np.eye(n) - hat)[:, mine] @ root @ x[mine] / n)
    variance = np.sum(np.square(score))
    matrix = np.hstack(columns)
    dfs = []
    for covariance in (np.eye(n), (group[:, None] == group[None, :]).astype(float)):
        inner = matrix.T @ covariance @ matrix
        dfs.append(np.trace(inner) ** 2 / np.square(inner).sum())
    totals = np.array([y[group == g].sum() for g in range(6)])
    mean, ours, df = clustered_variance(totals, sizes)
    assert mean == pytest.approx(y.mean())
    assert ours == pytest.approx(variance, rel=1e-10)
    assert df == pytest.approx(min(dfs), rel=1e-10)


def test_order_of_images_changes_no_bit():
    rng = np.random.default_rng(5)
    values = list(rng.normal(size=60) * 10.0 ** rng.integers(-8, 8, size=60))
    prompts = [f"p{i % 12}" for i in range(60)]
    order = rng.permutation(60)
    assert stats.mean_summary(values, prompts) == stats.mean_summary(
        [values[i] for i in order], [prompts[i] for i in order]
    )


def test_unscored_images_are_counted_and_pairs_with_one_side_missing_dropped():
    summary = stats.mean_summary([1.0, None, 3.0, None], ["a", "a", "b", "c"])
    assert (summary.value, summary.n_scored, summary.n_unscored, summary.n_prompts) == (2, 2, 2, 2)
    contrast = stats.paired_contrast(
        [1.0, None, 3.0, 5.0], [0.5, 1.0, None, 4.0], ["a", "a", "b", "c"]
    )
    assert contrast.delta == pytest.approx(0.75)
    assert (contrast.n, contrast.n_dropped, contrast.n_prompts) == (2, 2, 2)


@pytest.mark.parametrize(
    ("values", "prompts", "value", "said"),
    [
        ([], [], None, "no image"),
        ([None, None], ["a", "b"], None, "no image"),
        ([1.0, 2.0], ["a", "a"], 1.5, "one prompt"),
        ([0.1] * 6, ["a", "a", "b", "b", "c", "c"], 0.1, "equal"),
        ([1.0, 3.0, 3.0, 1.0], ["a", "a", "b", "b"], 2.0, "same mean"),
        ([1.7e308, 1.7e308], ["a", "b"], None, "too large"),
        ([1.7e308, -1.7e308, 1.0], ["a", "b", "c"], 1 / 3, "too large"),
    ],
)
def test_degenerate_means_give_a_reason(values, prompts, value, said):
    summary = stats.mean_summary(values, prompts)
    assert summary.value == (None if value is None else pytest.approx(value))
    assert summary.ci95 is None
    assert said in summary.note


def test_scores_that_are_not_finite_are_a_bug_of_the_caller():
    with pytest.raises(ValueError, match="finite"):
        stats.mean_summary([float("nan")], ["a"])
    with pytest.raises(ValueError, match="prompts"):
        stats.mean_summary([1.0], ["a", "b"])


# --- the sign-flip test


@pytest.mark.parametrize("n", [2, 5, 9])
def test_exact_sign_flip_equals_scipy(n):
    totals = np.random.default_rng(n).normal(0.5, 1, size=n)
    p, floor = stats.sign_flip(totals)
    theirs = scipy_stats.permutation_test(
        (totals,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert p == pytest.approx(theirs.pvalue, rel=1e-12)
    assert floor == 2.0 / 2**n


def test_exact_sign_flip_by_hand_with_ties_and_zeros():
    # +1 +1 +2: sums 4 2 2 0 and their mirror images; |4| is reached by 2 of 8
    assert stats.sign_flip(np.array([1.0, 1.0, 2.0, 0.0, 0.0]))[0] == 0.25
    # +1 +1 -2: sum 0, everything is at least as extreme
    assert stats.sign_flip(np.array([1.0, 1.0, -2.0]))[0] == 1.0
    # rounding must not break ties: each of 0.1 x 3 against 0.3
    p, _ = stats.sign_flip(np.array([0.1, 0.1, 0.1, 0.3]))
    assert p == 2 / 16
    assert stats.sign_flip(np.zeros(7)) == (1.0, 1.0)


def test_random_flips_agree_with_enumeration_and_never_give_zero():
    totals = np.random.default_rng(8).normal(0.25, 1, size=EXACT_PROMPTS)
    exact, _ = stats.sign_flip(totals)
    # tiny totals force the random branch and hardly move the sum
    drawn, floor = stats.sign_flip(np.concatenate([totals, [1e-9, -1e-9]]))
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 19_999))
    assert floor == 1 / 20_000
    assert stats.sign_flip(np.ones(100))[0] == 1 / 20_000
    assert stats.sign_flip(totals) == stats.sign_flip(totals[::-1])


def test_paired_contrast_is_the_mean_of_differences():
    rng = np.random.default_rng(9)
    prompts = [f"p{i // 3}" for i in range(24)]
    a, b = rng.normal(1, 1, 24), rng.normal(0, 1, 24)
    contrast = stats.paired_contrast(list(a), list(b), prompts)
    means = (a - b).reshape(8, 3).mean(axis=1)
    theirs = scipy_stats.ttest_1samp(means, 0).confidence_interval()
    assert contrast.delta == pytest.approx((a - b).mean())
    assert contrast.ci95 == pytest.approx((theirs.low, theirs.high))
    flips = [abs(np.dot(s, means)) for s in itertools.product([1, -1], repeat=8)]
    assert contrast.p == pytest.approx(np.mean(np.array(flips) >= abs(means.sum()) - 1e-12))


def test_equal_arms_differ_by_nothing_with_p_one():
    contrast = stats.paired_contrast([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], ["a", "b", "c"])
    assert (contrast.delta, contrast.ci95, contrast.p) == (0.0, None, 1.0)
    assert "same on every image" in contrast.note


def test_few_prompts_say_how_small_p_can_get():
    contrast = stats.paired_contrast([1.0, 2.0, 4.0], [0.0, 0.0, 0.0], ["a", "b", "c"])
    assert contrast.p == 0.25
    assert "0.25" in contrast.note
    lone = stats.paired_contrast([1.0, 2.0], [0.0, 0.0], ["a", "a"])
    assert (lone.delta, lone.ci95, lone.p) == (1.5, None, None)


# --- shares


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (3, 10), (57, 120)])
def test_one_image_a_prompt_is_wilsons_interval(hits, n):
    values = [1.0] * hits + [0.0] * (n - hits)
    ours = stats.share_summary(values, [str(i) for i in range(n)])
    theirs = scipy_stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert ours.ci95 == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_clustered_share_is_wider_than_if_images_were_independent():
    prompts = [f"p{i // 4}" for i in range(160)]
    values = [float(i // 4 % 3 == 0) for i in range(160)]  # all images of a prompt agree
    clustered = stats.share_summary(values, prompts)
    alone = stats.share_summary(values[::4], [str(i) for i in range(40)])
    width = clustered.ci95[1] - clustered.ci95[0]
    assert width == pytest.approx(alone.ci95[1] - alone.ci95[0], rel=0.1)


def test_share_at_the_ends_counts_each_prompt_once():
    summary = stats.share_summary([1] * 40, [f"p{i // 4}" for i in range(40)])
    t = scipy_stats.t.ppf(0.975, 9)
    assert summary.ci95 == pytest.approx((10 / (10 + t**2), 1.0))
    assert "each prompt counts once" in summary.note
    half = stats.share_summary([0.5, 1.0, None, 0.0], ["a", "b", "b", "c"])
    assert half.value == 0.5
    assert (half.n_scored, half.n_unscored) == (3, 1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.share_summary([2.0], ["a"])
    assert stats.share_summary([1.0, 0.0], ["a", "a"]).ci95 is None
    assert stats.share_summary([], []).value is None


# --- ratios


def test_ratio_of_means_and_its_interval():
    rng = np.random.default_rng(11)
    prompts = [f"p{i // 5}" for i in range(300)]
    below = rng.random(300) < 0.8
    above = below & (rng.random(300) < 0.85)
    summary = stats.ratio_summary(list(above * 1.0), list(below * 1.0), prompts)
    assert summary.value == pytest.approx(above.sum() / below.sum())
    # delta method on the log ratio, by prompt, as an independent check
    a, b = above.reshape(60, 5).sum(1) / above.sum(), below.reshape(60, 5).sum(1) / below.sum()
    error = math.sqrt(np.square(a - b).sum())
    expected = [summary.value * math.exp(z * error) for z in (-1.96, 1.96)]
    assert summary.ci95 == pytest.approx(expected, rel=0.02)
    again = stats.ratio_summary(list(above * 1.0), list(below * 1.0), prompts)
    assert summary == again


def test_ratio_without_denominator_has_no_value():
    summary = stats.ratio_summary([1.0, 0.0], [0.0, 0.0], ["a", "b"])
    assert summary.value is None
    assert "denominator" in summary.note
    assert stats.ratio_summary([None], [1.0], ["a"]).n_scored == 0
    one = stats.ratio_summary([1.0], [2.0], ["a"])
    assert (one.value, one.ci95) == (0.5, None)
    none = stats.ratio_summary([0.0] * 20, [1.0] * 20, [str(i) for i in range(20)])
    assert (none.value, none.ci95) == (0.0, None)
    frail = stats.ratio_summary(
        [1.0] * 8, [1.0] + [0.0] * 7, [str(i) for i in range(8)]
    )  # a third of the resamples lack the only prompt with a denominator
    assert frail.value == 8.0
    assert frail.ci95 is None
    with pytest.raises(ValueError, match="negative"):
        stats.ratio_summary([-1.0], [1.0], ["a"])


# --- many comparisons, power


def test_holm_by_hand():
    assert stats.holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.holm([1.5])


def test_detectable_difference_has_the_stated_power():
    for prompts in (2, 4, 20, 300):
        found = stats.minimum_detectable_difference(2.0, prompts=prompts)
        shift = found / 2.0 * math.sqrt(prompts)
        critical = scipy_stats.t.ppf(0.975, prompts - 1)
        power = scipy_stats.nct.sf(critical, prompts - 1, shift)
        assert power == pytest.approx(0.8, abs=1e-6)
    assert stats.minimum_detectable_difference(1.0, prompts=1) is None
    # textbook: d = 0.5 needs 34 pairs
    assert stats.prompts_needed(0.5, 1.0) == 34
    assert stats.prompts_needed(-0.5, 1.0) == 34
    assert stats.prompts_needed(0.0, 1.0) is None
    assert stats.prompts_needed(1e-9, 1.0) is None
    assert stats.prompts_needed(100.0, 1.0) == 2
    with pytest.raises(ValueError, match="alpha"):
        stats.minimum_detectable_difference(1.0, prompts=9, power=0.01)


def test_variance_components_part_prompts_from_images():
    rng = np.random.default_rng(12)
    values = (rng.normal(0, 2, size=(4000, 1)) + rng.normal(0, 1, size=(4000, 4))).ravel()
    found = stats.variance_components(list(values), [str(i // 4) for i in range(16000)])
    assert found.prompt_sd == pytest.approx(2, rel=0.05)
    assert found.image_sd == pytest.approx(1, rel=0.05)
    assert found.mean_sd(4) == pytest.approx(math.sqrt(4 + 0.25), rel=0.05)
    more = stats.minimum_detectable_difference(found, prompts=50, replicates=1)
    assert more > stats.minimum_detectable_difference(found, prompts=50, replicates=8)
    assert stats.variance_components([1.0, 2.0], ["a", "a"]) is None
    single = stats.variance_components([1.0, 3.0], ["a", "b"])
    assert (single.prompt_sd, single.image_sd) == (pytest.approx(math.sqrt(2)), 0.0)


# --- whatever comes in, numbers are finite and intervals hold their estimate

rows = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(-1e12, 1e12), st.sampled_from([0.0, 1.0, 0.1])),
        st.one_of(st.none(), st.floats(-1e12, 1e12), st.sampled_from([0.0, 1.0, 0.1])),
        st.sampled_from("abcdefgh"),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(rows)
def test_never_nan(data):
    a, b, prompts = [r[0] for r in data], [r[1] for r in data], [r[2] for r in data]
    for summary in (stats.mean_summary(a, prompts), stats.mean_summary(b, prompts)):
        assert (summary.ci95 is None) == (summary.note is not None)
        assert summary.n_scored + summary.n_unscored == len(data)
        if summary.ci95 is not None:
            low, high = summary.ci95
            assert math.isfinite(low)
            assert math.isfinite(high)
            assert low <= summary.value <= high
    contrast = stats.paired_contrast(a, b, prompts)
    assert contrast.n + contrast.n_dropped == len(data)
    assert contrast.p is None or 0 < contrast.p <= 1
    shares = [None if v is None else float(v > 0) for v in a]
    share = stats.share_summary(shares, prompts)
    if share.ci95 is not None:
        assert 0 <= share.ci95[0] <= share.value <= share.ci95[1] <= 1


def test_differences_that_all_agree_have_wilsons_upper_end():
    z2 = scipy_stats.norm.ppf(0.975) ** 2
    end = z2 / (20 + z2)  # Wilson's for 0 of 20
    assert stats.agreeing_interval(0.0, n=20, prompts=20) == pytest.approx((-end, end))
    assert stats.agreeing_interval(1.0, n=20, prompts=20) == pytest.approx((1 - 2 * end, 1.0))
    assert stats.agreeing_interval(-1.0, n=20, prompts=20) == pytest.approx((-1.0, 2 * end - 1))
    low, _ = stats.agreeing_interval(1.0, n=80, prompts=20)
    assert low <= 1 - 2 * end  # more images of the same prompts say no more
    assert stats.agreeing_interval(0.5, n=20, prompts=20) is None
