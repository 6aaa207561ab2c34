"""Sweeps: interpolation and its interval against plain loops, the command on the fake generator."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from small_runs import StubPresence, removal_options, use_metrics, write_castles

from negbench.errors import ConfigError
from negbench.forecast import forecast
from negbench.record import find_runs
from negbench.sweep.curve import interpolate, matched, pareto
from negbench.sweep.sweep import parse_over, plan_sweep, run_sweep
from negbench.sweep.table import as_csv, as_text

# Interpolation ----------------------------------------------------------------------------------


def by_hand(damage, removal, at):
    points = sorted([(0.0, 0.0), *zip(damage, removal, strict=True)])
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 <= at <= x1 and x1 > x0:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return None


def test_removal_is_read_off_between_settings_in_order_of_damage():
    rng = np.random.default_rng(1)
    damage, removal = rng.random((50, 4)), rng.random((50, 4))
    at = rng.random(50)
    found = interpolate(damage, removal, at)
    for row in range(50):
        expected = by_hand(damage[row], removal[row], at[row])
        if expected is None:
            assert np.isnan(found[row])
        else:
            assert found[row] == pytest.approx(expected)
    assert interpolate(damage[0], removal[0], at[0]).shape == ()


def test_the_front_holds_what_nothing_beats():
    rng = np.random.default_rng(2)
    damage, removal = rng.integers(0, 6, 40) / 5, rng.integers(0, 6, 40) / 5
    front = pareto(list(damage), list(removal))
    for i in range(40):
        beaten = any(
            damage[j] <= damage[i]
            and removal[j] >= removal[i]
            and (damage[j], removal[j]) != (damage[i], removal[i])
            for j in range(40)
        )
        assert front[i] is not beaten
    assert pareto([0.1, None], [0.2, 0.3]) == [True, False]


def sums(rng, prompts, shares, costs, each=20):
    """Sums by prompt of runs with these mean removals and damages."""
    lift = rng.uniform(0.6, 1.4, prompts)
    rows = []
    for prompt in range(prompts):
        row = []
        for share, cost in zip(shares, costs, strict=True):
            chance = min(1.0, share * lift[prompt])
            row += [rng.binomial(each, chance), each, cost * each * lift[prompt], each]
        rows.append(row)
    return np.array(rows, dtype=float)


def test_matched_damage_and_the_gain_on_the_reference():
    totals = sums(np.random.default_rng(3), 30, [0.3, 0.5, 0.7, 0.4], [0.1, 0.2, 0.4, 0.25])
    value, gain = matched(totals, settings=3, at=None)
    means = totals.sum(axis=0)
    damage, net = means[2::4] / means[3::4], means[0::4] / means[1::4]
    expected = by_hand(damage[:3], net[:3], damage[3])
    assert value.value == pytest.approx(expected)
    assert gain.value == pytest.approx(expected - net[3])
    assert value.ci95[0] < expected < value.ci95[1]
    beyond, _ = matched(totals, settings=3, at=0.9)
    assert beyond.value is None
    assert "as much damage" in beyond.note
    given, none = matched(totals, settings=3, at=0.15)
    assert given.value == pytest.approx(by_hand(damage[:3], net[:3], 0.15))
    assert none.value is None


@pytest.mark.slow
def test_the_gain_at_matched_damage_is_covered():
    rng = np.random.default_rng(4)
    hits, runs = 0, 200
    big = sums(rng, 20_000, [0.3, 0.5, 0.4], [0.1, 0.3, 0.2]).sum(axis=0)
    damage, net = big[2::4] / big[3::4], big[0::4] / big[1::4]
    truth = by_hand(damage[:2], net[:2], damage[2]) - net[2]
    for _ in range(runs):
        totals = sums(rng, 40, [0.3, 0.5, 0.4], [0.1, 0.3, 0.2])
        _, gain = matched(totals, settings=2, at=None)
        hits += gain.ci95[0] <= truth <= gain.ci95[1]
    assert hits / runs >= 0.91


# The command ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    use_metrics(monkeypatch, presence=StubPresence)


@pytest.fixture
def options(tmp_path):
    bench = write_castles(tmp_path, wanted=("presence", "ssim"))
    names = ["moat", "flag", "tower", "knight", "drawbridge", "banner", "stable", "well"]
    (tmp_path / "cases.csv").write_text(
        "id,prompt,concept\n"
        + "".join(f"c{n},a castle {n},{name}\n" for n, name in enumerate(names))
    )
    return removal_options(bench, steps=6)


def test_a_sweep_writes_a_curve_a_picture_and_runs(options, tmp_path):
    planned = plan_sweep(
        over="stop=2,4,6", guidance="window", guidance_params={"start": 1}, **options
    )
    assert len(planned.resolved.jobs) == 4
    # the reference's negatives at every step are an arm of every setting, drawn once
    assert forecast(planned.resolved).images == 8 * 2 * (1 + 1 + 1 + 3 * 2)
    sweep = run_sweep(planned)
    assert [point.value for point in sweep.points] == ["2", "4", "6"]
    assert sweep.reference.rule == "cfg"
    assert sweep.matched.damage == pytest.approx(sweep.reference.damage)
    folder = next((tmp_path / "runs").rglob("sweep.json")).parent
    assert str(folder) == sweep.folder
    rows = list(csv.DictReader((folder / "curve.csv").read_text().splitlines()))
    assert [row["value"] for row in rows] == ["2", "4", "6", "cfg at every step"]
    assert float(rows[0]["net_removal"]) == pytest.approx(sweep.points[0].removal.value)
    with Image.open(folder / "curve.png") as picture:
        assert min(picture.size) > 300
    assert json.loads((folder / "sweep.json").read_text())["key"] == "stop"
    assert len(find_runs([tmp_path / "runs"])) == 4
    text = as_text(sweep)
    assert "net removal" in text
    assert "at damage" in text
    assert as_csv(sweep) == (folder / "curve.csv").read_text()


def test_the_same_sweep_again_draws_nothing(options):
    asked = {"over": "weight=1,2", "guidance": "perp_neg", **options}
    first = run_sweep(plan_sweep(**asked))
    again = plan_sweep(**asked)
    again.resolved.generator.draw = None
    assert run_sweep(again) == first


def test_a_setting_that_equals_the_reference_is_run_once(options):
    planned = plan_sweep(over="scale=2,4,6", **options)
    assert len(planned.resolved.jobs) == 3
    sweep = run_sweep(planned)
    assert sweep.reference.plan_digest == sweep.points[1].plan_digest
    weights = plan_sweep(over="p.weight=0.5,2", **options)
    assert len(weights.resolved.jobs) == 3


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"over": "stop"}, "key=value"),
        ({"over": "stop=1,1", "guidance": "window"}, "twice"),
        ({"over": "stop=3,5"}, "needs --guidance"),
        ({"over": "stop=x", "guidance": "window"}, "window: stop"),
        ({"over": "stop=0,3", "guidance": "window"}, "no effect"),
        ({"over": "scale=3", "metrics": ["ssim"]}, "needs the metric presence"),
        ({"over": "scale=3", "benchmark": "miniature-quality", "prompts": None}, "no question of"),
    ],
)
def test_what_cannot_be_swept_is_said_before_the_first_pixel(options, asked, said):
    if asked.get("benchmark"):
        asked = {**asked, "generator": "fake", "generator_params": {"size": 16}, "limit": 2}
    with pytest.raises(ConfigError, match=said):
        plan_sweep(**{**options, **asked})


def test_values_are_split_at_commas():
    assert parse_over("stop= 8, 12,16") == ("stop", ("8", "12", "16"))
