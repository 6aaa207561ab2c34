"""Judges held against labels: agreement, corrected rates that cover the truth, rankings."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest

from negbench import cli
from negbench.judges import Verdict
from negbench.judges.agreement import (
    agreement,
    balanced_accuracy,
    calibration_columns,
    calibration_error,
    kappa,
)
from negbench.judges.calibration import run_rates
from negbench.judges.corrected import corrected_ratio
from negbench.judges.label_file import COLUMNS, Labels
from negbench.judges.ranking import kendall_tau, rankings
from negbench.judges.units import Picture, Unit


def test_agreement_against_hand_counts():
    p = [0.9, 0.8, 0.3, 0.6, 0.2, 0.1, None]
    y = [True, True, True, False, False, False, True]
    prompts = list("aabbccd")
    found = agreement(p, y, prompts)
    assert (found.n, found.n_unscored, found.n_prompts, found.n_present) == (6, 1, 3, 3)
    assert found.sensitivity.value == pytest.approx(2 / 3)
    assert found.specificity.value == pytest.approx(2 / 3)
    assert found.balanced_accuracy.value == pytest.approx(2 / 3)
    # 4 of 6 agree; chance is 3/6 * 3/6 + 3/6 * 3/6
    assert found.kappa.value == pytest.approx((4 / 6 - 0.5) / 0.5)
    gaps = [0.1, 0.2, 0.7, 0.6, 0.2, 0.1]
    assert found.ece.value == pytest.approx(sum(gaps) / 6)
    alone = agreement([0.9, 0.8], [True, True], ["a", "b"])
    assert alone.balanced_accuracy.note == "the labels are all alike"
    assert alone.specificity.value is None
    assert agreement([None], [True], ["a"]).kappa.value is None


def test_agreement_statistics_on_random_tables():
    rng = np.random.default_rng(0)
    p, y = rng.random(500), rng.random(500) < 0.3
    seen = p > 0.5
    table = np.array([(y & seen).sum(), (y & ~seen).sum(), (~y & seen).sum(), (~y & ~seen).sum()])
    wanted = (seen[y].mean() + (~seen[~y]).mean()) / 2
    assert float(balanced_accuracy(table.astype(float))) == pytest.approx(wanted)
    agree = (seen == y).mean()
    chance = seen.mean() * y.mean() + (1 - seen.mean()) * (1 - y.mean())
    assert float(kappa(table.astype(float))) == pytest.approx((agree - chance) / (1 - chance))
    wanted = 0.0
    for low in np.arange(10) / 10:
        inside = (p >= low) & (p < low + 0.1)
        wanted += inside.mean() * abs(p[inside].mean() - y[inside].mean())
    assert float(calibration_error(calibration_columns(p, y).sum(axis=0))) == pytest.approx(wanted)


def world(rng, *, prompts=40, each=8, base=0.6, removed=0.5, sees=0.9, sees_after=0.7, spread=4.0):
    """Truth and a judge that misses more in treated pictures: T, A, and the judge's."""
    n = prompts * each
    p = rng.beta(base * spread, (1 - base) * spread, prompts).repeat(each)
    q = rng.beta(removed * spread, (1 - removed) * spread, prompts).repeat(each)
    twin = rng.random(n) < p
    arm = np.where(twin, rng.random(n) >= q, rng.random(n) < 0.08)
    said_twin = np.where(twin, rng.random(n) < sees, rng.random(n) > 0.9)
    said_arm = np.where(arm, rng.random(n) < sees_after, rng.random(n) > 0.9)
    return twin, arm, said_twin, said_arm, [f"p{i}" for i in np.arange(prompts).repeat(each)]


def pair(twin, arm):
    return (twin & ~arm).astype(float), twin.astype(float)


def test_corrected_is_the_judges_mean_plus_its_mean_error():
    rng = np.random.default_rng(3)
    twin, arm, said_twin, said_arm, prompts = world(rng)
    judge, truth = pair(said_twin, said_arm), pair(twin, arm)
    labelled = rng.permutation(len(twin))[:120]
    people = tuple(np.full(len(twin), np.nan) for _ in range(2))
    for column, values in zip(people, truth, strict=True):
        column[labelled] = values[labelled]
    plain = corrected_ratio(judge, people, prompts, power=1.0)
    means = [
        j.mean() + (t[labelled] - j[labelled]).mean() for j, t in zip(judge, truth, strict=True)
    ]
    assert plain.value == pytest.approx(means[0] / means[1])
    assert plain.judge == pytest.approx(judge[0].sum() / judge[1].sum())
    assert plain.people == pytest.approx(truth[0][labelled].sum() / truth[1][labelled].sum())
    alone = corrected_ratio(judge, people, prompts, power=0.0)
    assert alone.value == pytest.approx(plain.people)
    tuned = corrected_ratio(judge, people, prompts)
    assert 0 < tuned.power < 1
    widths = [c.ci95[1] - c.ci95[0] for c in (tuned, plain, alone)]
    assert widths[0] <= min(widths[1:]) * 1.01
    assert (plain.n, plain.n_labelled, plain.n_prompts) == (320, 120, 40)


def test_with_every_unit_labelled_the_judge_does_not_matter():
    rng = np.random.default_rng(4)
    twin, arm, said_twin, said_arm, prompts = world(rng)
    truth = pair(twin, arm)
    found = corrected_ratio(pair(said_twin, said_arm), truth, prompts)
    assert found.value == pytest.approx(truth[0].sum() / truth[1].sum())


def test_what_cannot_be_corrected_says_why():
    ones, none = np.ones(4), np.full(4, np.nan)
    names = ["a", "b", "c", "d"]
    assert "fewer than two" in str(corrected_ratio((ones, ones), (none, none), names).note)
    nowhere = corrected_ratio((ones, ones), (0 * ones, 0 * ones), names)
    assert "denominator is 0" in str(nowhere.note)
    few = np.array([1.0, 0, 0, 0])
    shaky = corrected_ratio((few, few), (few, few), names)
    assert shaky.ci95 is None
    assert "no end" in str(shaky.note)
    one = corrected_ratio((ones, ones), (ones, ones), ["a"] * 4)
    assert one.value is None


def test_a_judge_without_a_mistake_still_has_an_interval():
    ones = np.ones(400)
    labelled = np.where(np.arange(400) < 200, 1.0, np.nan)
    prompts = [f"p{i % 50}" for i in range(400)]
    found = corrected_ratio((ones, ones), (labelled, labelled), prompts)
    assert found.value == 1.0
    assert 0.97 < found.ci95[0] < 0.995


def coverage(runs, *, seed, labels, **given):
    """Share of intervals that cover the true rate, and the same for the judge alone's bias."""
    rng = np.random.default_rng(seed)
    truth = given.get("removed", 0.5)
    hits, off = 0, []
    for _ in range(runs):
        twin, arm, said_twin, said_arm, prompts = world(rng, **given)
        people = tuple(np.full(len(twin), np.nan) for _ in range(2))
        chosen = rng.permutation(len(twin))[:labels]
        for column, values in zip(people, pair(twin, arm), strict=True):
            column[chosen] = values[chosen]
        found = corrected_ratio(pair(said_twin, said_arm), people, prompts)
        hits += found.ci95 is not None and found.ci95[0] <= truth <= found.ci95[1]
        off.append(found.judge - truth)
    return hits / runs, float(np.mean(off))


def test_corrected_rates_cover_the_truth():
    covered, off = coverage(200, seed=1, labels=200)
    assert 0.91 <= covered <= 0.995
    assert off > 0.08


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"sees": 0.99, "sees_after": 0.99},
        {"sees": 0.6, "sees_after": 0.5},
        {"removed": 0.95},
        {"removed": 0.05},
        {"base": 0.25, "prompts": 80},
        {"spread": 1.0, "prompts": 60},
        {"prompts": 20, "each": 20},
    ],
)
def test_corrected_rates_cover_the_truth_everywhere(given):
    covered, _ = coverage(2000, seed=7, labels=200, **given)
    assert 0.925 <= covered <= 0.992


def unit(run, number, category="noun"):
    pictures = {
        arm: Picture(f"{run}{number}{arm}", f"{run}-{number}-{arm}")
        for arm in ("twin", "treated", "placebo")
    }
    tags = (f"category:{category}",)
    return Unit(run, run, f"c{number}", 0, number, f"p{number // 4}", "hat", tags, pictures)


def verdicts(units, truth):
    return {
        (u.pictures[arm].image, u.concept): Verdict.of(float(truth[arm][i]))
        for i, u in enumerate(units)
        for arm in u.pictures
    }


def labels_of(said, units):
    chosen = {p.image for u in units for p in u.pictures.values()}
    return Labels("l.csv", {
        pair: {"me": bool(v.present)} for pair, v in said.items() if pair[0] in chosen
    })  # fmt: skip


def test_rates_of_a_run_by_arm():
    rng = np.random.default_rng(0)
    units = [unit("a", i) for i in range(120)]
    truth = {arm: rng.random(120) < share for arm, share in
             (("twin", 0.7), ("treated", 0.3), ("placebo", 0.6))}  # fmt: skip
    said = verdicts(units, truth)
    found = run_rates(units, said, labels_of(said, units[:60]))
    assert (found.n_units, found.n_labelled) == (120, 60)
    twin, treated, placebo = (truth[arm] for arm in ("twin", "treated", "placebo"))
    rates = {name: rate.judge for name, rate in found.rates.items()}
    assert rates == pytest.approx({
        "base_rate": twin.mean(),
        "rsr/treated": (~treated)[twin].mean(),
        "rsr/placebo": (~placebo)[twin].mean(),
        "absent_rate/treated": (~treated).mean(),
        "absent_rate/placebo": (~placebo).mean(),
        "reverse_activation/treated": treated[~twin].mean(),
        "reverse_activation/placebo": placebo[~twin].mean(),
        "rsr/treated-placebo": (~treated)[twin].mean() - (~placebo)[twin].mean(),
    })  # fmt: skip
    for rate in found.rates.values():
        assert rate.ci95[0] <= rate.value <= rate.ci95[1]


def test_tau_is_scipys():
    from scipy.stats import kendalltau

    rng = np.random.default_rng(5)
    for ties in (3, 100):
        one, other = rng.integers(0, ties, (2, 20, 6)).astype(float)
        found = kendall_tau(one, other)
        wanted = [kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)]
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_rankings_by_judge():
    rng = np.random.default_rng(1)
    runs = [[unit(run, i) for i in range(80)] for run in "abc"]
    good, bad = {}, {}
    for units, share in zip(runs, (0.9, 0.5, 0.1), strict=True):
        truth = {"twin": np.ones(80), "placebo": np.ones(80), "treated": rng.random(80) >= share}
        good |= verdicts(units, truth)
        bad |= verdicts(units, {**truth, "treated": rng.random(80) >= 1 - share})
    found = rankings(runs, {"good": good, "bad": bad, "same": good})
    assert found.order == {"good": list("abc"), "bad": list("cba"), "same": list("abc")}
    by_pair = {agreed.judges: agreed for agreed in found.agreed}
    assert by_pair["good", "same"].tau == 1
    assert by_pair["good", "same"].same_order == 1
    assert by_pair["good", "bad"].tau == -1
    assert by_pair["good", "bad"].ci95 == (-1, -1)
    assert by_pair["good", "bad"].same_order == 0
    assert rankings(runs[:1], {"good": good}) is None
    flat = {pair: Verdict.of(1) for pair in good}
    (tied,) = rankings(runs, {"good": good, "flat": flat}).agreed
    assert tied.tau is None
    assert "no tau" in tied.note


PLUGIN = """
from negbench.judges import Judge, Verdict, judges


@judges.register("bright")
class Bright(Judge):
    '''Sees everything in bright pictures.'''

    def judge(self, questions):
        return [Verdict.of(float(q.pixels.mean() > 127.5)) for q in questions]
"""


def run(capfd, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["negbench", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capfd.readouterr()
    return code, out, err


def test_the_command_on_runs(tmp_path, capfd, monkeypatch):
    from negbench.judges.units import load_pixels, load_runs, units_of
    from negbench.store import ImageStore

    cache = tmp_path / "cache"
    monkeypatch.setenv("NEGBENCH_CACHE", str(cache))
    prompts = tmp_path / "p.csv"
    lines = "".join(f"c{i},a scene {i},blurry,hat\n" for i in range(12))
    prompts.write_text(f"id,prompt,negative,concept\n{lines}")
    plugin = tmp_path / "bright.py"
    plugin.write_text(PLUGIN)
    runs = tmp_path / "runs"
    base = ["evaluate", "--prompts", prompts, "-m", "human", "-m", "none", "--generator", "fake",
            "-o", "size=16", "-o", "steps=3", "--metric", "evaluations", "--out", runs]  # fmt: skip
    code, _, err = run(capfd, monkeypatch, *base)
    assert code == 0, err
    units = [u for record in load_runs([runs]) for u in units_of(record)]
    store = ImageStore(cache)
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for u in units:
            for arm, picture in u.pictures.items():
                seen = int(load_pixels(store, picture).mean() > 126)
                writer.writerow([picture.image, "hat", seen, "me", u.run, u.case, 0, u.seed, arm])
    judged = ["calibrate-judge", runs, "--labels", labels, "--judge", "bright", "--judge",
              "people=labels", "-p", f"people.path={labels}", "--plugin", plugin]  # fmt: skip
    code, out, err = run(capfd, monkeypatch, *judged, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [j["label"] for j in found["judges"]] == ["bright", "people"]
    assert found["judges"][1]["agreement"]["kappa"]["value"] in (1.0, None)
    assert len(found["judges"][0]["runs"]) == 2
    assert found["ranking"]["runs"]
    assert any("200 or more are wanted" in note for note in found["notes"])
    code, out, err = run(capfd, monkeypatch, *judged)
    assert code == 0
    assert "balanced accuracy" in out
    assert "rsr/treated" in out
    for arguments, message in (
        (["calibrate-judge", runs, "--labels", labels, "--concept", "dog", "--judge", "labels",
          "-p", f"path={labels}"], "has no label of a picture"),
        (["calibrate-judge", runs, "--labels", tmp_path / "no.csv"], "no file"),
        (["calibrate-judge", runs, "--labels", labels, "--judge", "a", "--judge", "a"], "twice"),
        (["calibrate-judge", tmp_path / "cache", "--labels", labels], "holds no run"),
        (["label", runs, "--arm", "placebo", "--out", tmp_path / "o.csv"], "no arm 'placebo'"),
        (["label", runs, "--cache", tmp_path / "other"], "is not in"),
    ):  # fmt: skip
        code, out, err = run(capfd, monkeypatch, *arguments)
        assert (code, out) == (2, ""), err
        assert message in err
        assert err.strip().count("\n") == 0
