"""The timing protocol: formulas against other computations, the grid on a tiny pipeline."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from tiny_pipelines import make_sd

from negbench.errors import ConfigError, UnknownNameError
from negbench.generators.resolve import resolve
from negbench.generators.tracing import Trace
from negbench.judges import Judge, Verdict, judges
from negbench.metrics.damage import Ssim
from negbench.store import ImageStore
from negbench.timing import grid as grid_module
from negbench.timing.activation import first_calls
from negbench.timing.curves import strength_ratio
from negbench.timing.grid import Grid, claims, grid_windows, needed_rows, works
from negbench.timing.inducing import alignment_curves, inducing_curves, momentum
from negbench.timing.maps import correlation, spans
from negbench.timing.plan import Unit, balanced, coarse_edges, make_timing_plan
from negbench.timing.resample import last_at_least, locate, peak, risen
from negbench.timing.run import compare_schedulers, run_timing
from negbench.timing.shots import Outcome, Shot, similarity
from negbench.timing.traces import UnitTraces
from negbench.types import Case

BENCH = """
name = "tiny-timing"
version = 1
protocol = "timing"
summary = "tiny"
replicates = 2
generator = "{folder}"

[data]
source = "miniature"

[generator_options]
steps = 3
scheduler = "pndm"
dtype = "float32"

[guidance]
kind = "cfg"
scale = 5.0

[metrics.presence]
judge = "odd"
"""

CASES = """prompt,concept,category
a house,tree,noun_object
a house,fog,noun_object
professor,glasses,noun_object
a car,rusty,attribute
the cup,old,attribute
"""


def odd_judge():
    """A judge that sees a concept where a digest of picture and concept is odd."""

    @judges.register("odd")
    class Odd(Judge):
        """Odd."""

        def judge(self, questions):
            return [Verdict.of(self.chance(q.image, q.concept)) for q in questions]

        @staticmethod
        def chance(image, concept):
            return float((int(image[:8], 16) + len(concept)) % 2)

    return Odd


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return make_sd(tmp_path_factory.mktemp("pipeline") / "sd")


@pytest.fixture
def plan(pipeline, tmp_path):
    odd_judge()
    bench = tmp_path / "tiny.toml"
    bench.write_text(BENCH.format(folder=pipeline))
    prompts = tmp_path / "cases.csv"
    prompts.write_text(CASES)

    def make(**more):
        return make_timing_plan(
            **{
                "benchmark": str(bench),
                "prompts": prompts,
                "cases": 3,
                "out": tmp_path / "runs",
                "cache": tmp_path / "cache",
                **more,
            }
        )

    return make


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_gives_every_part_and_draws_nothing_twice(plan, tmp_path):
    resolved = plan()
    assert resolved.calls == 4
    assert resolved.edges == (0, 1, 2, 3, 4)
    assert [unit.category for unit in resolved.units].count("attribute") == 2
    assert all(unit.placebo not in (unit.concept, *unit.case.prompt.split())
               for unit in resolved.units)  # fmt: skip
    result = run_timing(resolved)
    assert list(result["parts"]) == [
        "curves", "maps", "grid", "activation", "inducing", "momentum",
    ]  # fmt: skip
    assert result["plan_digest"] == resolved.plan.digest()
    for part in result["parts"].values():
        for name in part["files"]:
            assert (resolved.folder / name).stat().st_size > 0
    kept = json.loads((resolved.folder / "timing.json").read_text())
    assert kept["parts"] == json.loads(json.dumps(result["parts"]))
    session = result["provenance"]["sessions"][0]
    # 10 windows and the twin of 6 units; activation adds more noises and placebos
    assert session["images_drawn"] >= 6 * 11
    assert session["evaluations_drawn"] <= session["evaluations_without_sharing"]

    units = read(resolved.folder / "grid-units.csv")
    assert len(units) == 6 * 10
    for row in read(resolved.folder / "grid.csv"):
        own = [
            u for u in units
            if (u["start"], u["stop"]) == (row["start"], row["stop"])
            and row["group"] in ("all", u["category"])
        ]  # fmt: skip
        shows = [u for u in own if u["twin_present"] == "1"]
        lacks = [u for u in own if u["twin_present"] == "0"]
        assert int(row["removal_n"]) == len(shows)
        assert int(row["reverse_n"]) == len(lacks)
        if shows:
            share = sum(u["present"] == "0" for u in shows) / len(shows)
            assert float(row["removal_value"]) == pytest.approx(share, rel=1e-4, abs=1e-9)
        if lacks:
            share = sum(u["present"] == "1" for u in lacks) / len(lacks)
            assert float(row["reverse_value"]) == pytest.approx(share, rel=1e-4, abs=1e-9)
        damage = sum(float(u["damage"]) for u in own) / len(own)
        assert float(row["damage_value"]) == pytest.approx(damage, rel=1e-3, abs=1e-6)

    # a window's picture is the one that the generator draws, and its verdict the judge's
    unit = resolved.units[0]
    request = resolved.request(unit, negative=unit.concept, window=(1, 3))
    drawn = next(iter(resolve_again(resolved).draw([request])))
    store = ImageStore(tmp_path / "cache")
    stored = store.get(request.key())
    assert np.array_equal(store.load(stored), drawn.pixels)
    row = next(u for u in units if u["case"] == unit.case.id and u["replicate"] == "0"
               and (u["start"], u["stop"]) == ("1", "3"))  # fmt: skip
    seen = resolved.judge.chance(stored.image, unit.concept)
    assert float(row["present"]) == seen

    again = run_timing(plan(parts=["grid", "curves"]))
    assert again["provenance"]["sessions"][-1]["images_drawn"] == 0
    assert again["parts"] == kept["parts"]


def resolve_again(resolved):
    return resolve(
        str(resolved.generator.pipeline.source.folder),
        params={"steps": 3, "scheduler": "pndm", "dtype": "float32"},
    )


def test_a_killed_run_goes_on(plan, monkeypatch):
    resolved = plan(parts=["grid"], cases=1, replicates=1)
    whole = resolved.generator.draw
    stopped = []

    def until(requests):
        for number, drawn in enumerate(whole(requests)):
            if number == 5:
                raise KeyboardInterrupt
            stopped.append(drawn.key)
            yield drawn

    monkeypatch.setattr(resolved.generator, "draw", until)
    with pytest.raises(KeyboardInterrupt):
        run_timing(resolved)
    monkeypatch.undo()
    odd_judge()
    result = run_timing(plan(parts=["grid"], cases=1, replicates=1))
    assert len(stopped) == 5
    assert result["provenance"]["sessions"][-1]["images_drawn"] == 11 - 5


def test_schedulers_side_by_side(plan, tmp_path):
    runs = [
        run_timing(plan(parts=["grid"], cases=1, scheduler=name)) for name in ("ddim", "dpm++2m")
    ]
    assert runs[0]["folder"] != runs[1]["folder"]
    assert compare_schedulers(runs, tmp_path) == ["schedulers.csv", "schedulers.png"]
    rows = read(tmp_path / "schedulers.csv")
    assert {row["scheduler"] for row in rows} == {"DDIM", "DPMSolverMultistep"}
    assert [float(row["fraction"]) for row in rows[:2]] == pytest.approx([0, 1 / 3], abs=1e-5)


def test_plans_refuse_what_would_fail_later(plan):
    with pytest.raises(UnknownNameError, match="curves"):
        plan(parts=["curve"])
    with pytest.raises(ConfigError, match="--cases"):
        plan(cases=0)
    with pytest.raises(ConfigError, match="no effect"):
        plan(scale=1.0)
    with pytest.raises(ConfigError, match="another question"):
        plan(benchmark="miniature-quality")
    with pytest.raises(ConfigError, match="schedule"):
        plan(generator="fake", generator_params={})
    full = plan(full=True, generator_params={"steps": 6})
    assert full.edges == tuple(range(8))
    assert first_calls(full) == [1, 2, 3, 4]
    assert plan(replicates=1).plan.digest() != plan().plan.digest()


def test_edges_hold_the_window_of_the_paper():
    assert coarse_edges(31) == (0, 3, 5, 8, 10, 13, 16, 21, 26, 31)
    assert len(grid_windows(coarse_edges(25))) == 45
    cases = [Case(id=str(i), prompt="p", concept="c", tags=(f"category:{kind}",))
             for i, kind in enumerate(["style", "style", "attribute", "style"])]  # fmt: skip
    assert [case.id for case in balanced(cases, 3)] == ["0", "2", "1"]
    assert len(balanced(cases, 9)) == 4


# Formulas ------------------------------------------------------------------------------------


def make_trace(noise, strength=None, words=None):
    """A trace from predicted noise (calls, 4, values)."""
    lag = np.einsum("tnv,tnv->tn", noise[:-1], noise[1:])
    names = ("positive", "empty", "negative", "placebo")
    return Trace(
        key="k",
        pixels=np.zeros((2, 2, 3), np.uint8),
        names=names,
        words=words or {},
        strength=strength if strength is not None else np.zeros((len(noise), 4, 0)),
        gram=np.einsum("tnv,tmv->tnm", noise, noise),
        lag=lag,
        maps=None,
    )


def unit(prompt="a house", concept="tree", category="noun_object", replicate=0):
    case = Case(id=f"{concept}/{prompt}", prompt=prompt, concept=concept)
    return Unit(case, replicate, replicate, "fog", category)


def test_measures_on_noise_are_those_of_plain_vectors():
    rng = np.random.default_rng(3)
    noises = {way: rng.normal(size=(6, 4, 50)) for way in ("twin", "concept", "placebo")}
    one = UnitTraces(unit(), {way: make_trace(noise) for way, noise in noises.items()})

    def projected(way, onto, t):
        a, b = noises[way][t, 0], noises[way][t, onto]
        return np.linalg.norm((a @ b) / (b @ b) * b)

    def cos(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    found = inducing_curves(one)
    aligned = alignment_curves(one)
    steady = momentum(one.by_way["concept"])
    for t in range(6):
        d = projected("concept", 2, t) - projected("twin", 2, t)
        assert found["concept"][t] == pytest.approx(d)
        d = projected("placebo", 3, t) - projected("twin", 3, t)
        assert found["placebo"][t] == pytest.approx(d)
        d = projected("concept", 1, t) - projected("twin", 1, t)
        assert found["empty"][t] == pytest.approx(d)
        own = noises["concept"][t]
        assert aligned["concept"][t] == pytest.approx(cos(own[0], own[2]))
        assert aligned["empty"][t] == pytest.approx(cos(own[0], own[1]))
    for t in range(5):
        expected = cos(noises["concept"][t, 0], noises["concept"][t + 1, 0])
        assert steady[t] == pytest.approx(expected)


def test_strength_ratio_takes_all_positions_or_the_words():
    strength = np.arange(1.0, 1 + 2 * 4 * 5).reshape(2, 4, 5)
    words = {"positive": (1, 2), "empty": (), "negative": (3,), "placebo": (1,)}
    found = make_trace(np.ones((2, 4, 3)), strength, words)
    np.testing.assert_allclose(
        strength_ratio(found), strength[:, 2].mean(1) / strength[:, 0].mean(1)
    )
    expected = strength[:, 2, 3] / strength[:, 0, 1:3].mean(1)
    np.testing.assert_allclose(strength_ratio(found, words=True), expected)


def test_places_in_a_curve():
    curve = np.array([[0.0, 1.0, 5.0, 9.5, 10.0, 9.0]])
    assert peak(curve)[0] == 4
    assert risen(curve)[0] == 3
    assert risen(-curve)[0] == 0
    assert math.isnan(peak(np.array([[1.0, np.nan]]))[0])
    falling = np.array([[0.8, 0.9, 0.5, 0.41, 0.39, 0.6]])
    assert last_at_least(falling, share=0.5, of=np.array([0.8]))[0] == 3
    assert math.isnan(last_at_least(falling, share=0.5, of=np.array([0.0]))[0])
    rng = np.random.default_rng(0)
    top = np.exp(-((np.arange(12) - 6) ** 2) / 8)
    curves = [top + rng.normal(scale=0.02, size=12) for _ in range(20)]
    found = locate([c.tolist() for c in curves], [f"p{i // 2}" for i in range(20)], peak)
    assert found.value == 6
    assert found.ci95[0] <= 6 <= found.ci95[1] <= 8
    assert (found.n, found.n_prompts) == (20, 10)
    alone = locate([curves[0].tolist()], ["p"], peak)
    assert alone.ci95 is None
    assert "one prompt" in alone.note
    assert locate([], [], peak).value is None


def test_peaks_of_noise_have_honest_intervals():
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(60):
        truth = 0.05 * -np.abs(np.arange(9) - 4)
        curves = truth + rng.normal(scale=0.06, size=(25, 9))
        found = locate(curves.tolist(), [str(i) for i in range(25)], peak, draws=400, seed=trial)
        hits += found.ci95[0] <= 4 <= found.ci95[1]
    assert hits >= 55


class Asked:
    """What `Grid` needs of a resolved plan."""

    def __init__(self, units, edges):
        self.units, self.edges, self.calls = tuple(units), tuple(edges), edges[-1]
        self.categories = tuple(sorted({u.category for u in units}, reverse=True))


def synthetic(rule, *, edges=(0, 2, 4, 6, 8, 12), prompts=8):
    """A grid whose windows remove where `rule(start, stop, number)` says so."""
    units = [unit(f"p{i}", replicate=k) for i in range(prompts) for k in range(2)]
    outcomes = []
    for number, one in enumerate(units):
        for start, stop in grid_windows(edges):
            gone = rule(start, stop, number)
            shot = Shot(one, one.concept, start, stop)
            outcomes.append(Outcome(shot, not gone, True, (stop - start) / 100, 0.0))
    return Grid(Asked(units, edges), outcomes)


def test_answers_of_a_grid_whose_truth_is_known():
    # a negative has to act in calls 3 and 4; every fourth unit is never removed
    grid = synthetic(lambda start, stop, i: start <= 3 and stop >= 5 and i % 4 != 0)
    found = works(grid, "all")
    assert found["latest_start"]["value"] == 2
    assert found["earliest_stop"]["value"] == 6
    assert found["latest_start"]["ci95"] == [2, 2]
    rows = {row["start"]: row for row in needed_rows(grid) if row["group"] == "all"}
    assert rows[0]["removed_value"] == pytest.approx(0.75)
    assert rows[0]["median_calls"] == 6
    assert rows[2]["median_calls"] == 4
    assert rows[4]["median_calls"] is None
    assert rows[4]["removed_value"] == 0
    answers = claims(grid, "all")
    sixth = answers["late_from_a_sixth"]
    assert sixth["window"] == [2, 12]
    assert sixth["removal_difference"]["delta"] == 0
    assert sixth["damage_difference"]["delta"] == pytest.approx(-0.02)
    third = answers["late_from_a_third"]
    assert third["removal"]["value"] == 0
    assert third["removal_difference"]["delta"] == pytest.approx(-0.75)
    quarter = answers["first_quarter"]
    assert (quarter["window"], quarter["removal_ratio"]["value"]) == ([0, 2], 0)
    assert answers["window_of_the_paper"]["window"] == [2, 6]
    early = answers["early_third_against_middle_third"]
    assert (early["window"], early["against"]) == ([0, 4], [4, 8])


def test_half_of_the_work_by_start_follows_the_shares():
    # unit i is removed by starts up to i calls
    grid = synthetic(lambda start, stop, i: stop == 12 and start <= i % 8)
    shares = [sum(start <= i % 8 for i in range(16)) / 16 for start in grid.edges[:-1]]
    whole = max(start for start, share in zip(grid.edges, shares, strict=False) if share >= 0.5)
    assert works(grid, "all")["latest_start"]["value"] == whole
    assert grid_module.works(grid, "all")["earliest_stop"]["value"] == 12


def test_unscored_verdicts_are_left_out_not_guessed():
    grid = synthetic(lambda start, stop, i: True, prompts=2)
    place = (grid.resolved.units[0], (0, 12))
    outcome = grid.by_place[place]
    grid.by_place[place] = Outcome(outcome.shot, None, True, 0.1, 0.0)
    assert grid.removed((0, 12), grid.units("all")) == [None, 1.0, 1.0, 1.0]


def test_similarity_is_the_metric():
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(3)]
    twins = [np.clip(i.astype(int) + rng.integers(-30, 30, i.shape), 0, 255).astype(np.uint8)
             for i in images]  # fmt: skip
    for own, image, twin in zip(similarity(images, twins), images, twins, strict=True):
        assert own == pytest.approx(Ssim()._compare(image, twin).value, abs=1e-5)
    assert similarity([images[0][:4]], [twins[0][:4]]) == [None]


def test_maps_are_put_together():
    assert spans(31) == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 19), (19, 23), (23, 27), (27, 31)]
    assert spans(3) == [(0, 1), (1, 2), (2, 3)]
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 5, 5)).astype(np.float32)
    assert correlation(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], rel=1e-5)
    assert correlation(a, np.ones_like(a)) is None
