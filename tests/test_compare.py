"""Runs against each other: pairing, tests, correction, sentences, and what is refused."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math

import numpy as np
import pytest
from small_runs import (
    Brightness,
    MeanRow,
    Sameness,
    StubPresence,
    castles,
    plan_options,
    removal_options,
    use_metrics,
    write_castles,
)
from typer.testing import CliRunner

from negbench.cli import app
from negbench.compare.compare import compare_runs
from negbench.compare.tables import as_csv, as_latex, as_text
from negbench.errors import ConfigError, MissingError
from negbench.evaluate import evaluate
from negbench.metrics.base import ImageMetric
from negbench.plan import make_plan
from negbench.types import Score

WANTED = ("brightness", "mean_row", "sameness", "evaluations")


class Length(ImageMetric):
    """Reads the negative: how far the picture is from its length."""

    higher_is_better = False

    def score(self, items):
        return [Score.of(item.pixels.mean() / 100 + len(item.negative)) for item in items]


@pytest.fixture(autouse=True)
def _own_metrics(monkeypatch):
    use_metrics(
        monkeypatch, brightness=Brightness, sameness=Sameness, length=Length, mean_row=MeanRow
    )


@pytest.fixture
def run(tmp_path):
    """Make runs of the fake generator."""
    path = tmp_path / "prompts.csv"
    path.write_text(castles(7))

    def make(
        *methods, params=None, wanted=("brightness", "mean_row", "sameness", "evaluations"), **more
    ):
        options = {
            "methods": methods,
            "method_params": params or {},
            "metrics": wanted,
            "prompts": path,
            **plan_options(tmp_path),
        }
        return evaluate(make_plan(**{**options, **more}))

    return make


def by_metric(found):
    return {(c.first, c.second, c.metric): c for c in found.comparisons}


def test_differences_are_paired_and_equal_a_computation_by_hand(run):
    a, b = run("human", "s=static", params={"s.text": "ugly"})
    found = by_metric(compare_runs([a, b]))["human", "s", "brightness"]
    one, two = a.to_pandas(), b.to_pandas()
    gaps = (one["brightness"] - two["brightness"]).to_numpy()
    assert found.delta == pytest.approx(gaps.mean())
    assert found.first_value == pytest.approx(one["brightness"].mean())
    assert (found.n, found.n_prompts, found.of) == (14, 7, "score")
    means = gaps.reshape(7, 2).mean(axis=1)
    half = 2.4469118487916806 * means.std(ddof=1) / math.sqrt(7)  # t, 6 degrees of freedom
    assert found.ci95 == pytest.approx((gaps.mean() - half, gaps.mean() + half))
    flips = np.array(list(itertools.product((-1, 1), repeat=7)))
    extreme = np.abs(flips @ means) >= abs(means.sum()) - 1e-9
    assert found.p == pytest.approx(extreme.mean())


def test_a_set_metric_is_paired_through_the_rows_of_both_runs(run):
    a, b = run("human", "s=static", params={"s.text": "ugly"})
    found = by_metric(compare_runs([a, b]))["human", "s", "mean_row"]
    assert found.delta == pytest.approx(found.first_value - found.second_value)
    assert found.p is not None
    assert found.n == 14
    assert found.detectable is not None


def test_order_turns_the_sign_and_nothing_else(run):
    a, b = run("human", "s=static", params={"s.text": "ugly"})
    forth = by_metric(compare_runs([a, b]))["human", "s", "brightness"]
    back = by_metric(compare_runs([b, a]))["s", "human", "brightness"]
    assert back.delta == pytest.approx(-forth.delta)
    assert back.p == pytest.approx(forth.p)
    assert back.prompts_needed == forth.prompts_needed


def test_holm_counts_all_tests_and_no_certain_difference(run):
    records = run("human", "a=static", "b=static", params={"a.text": "ugly", "b.text": "bad"})
    found = compare_runs(records)
    tested = [c for c in found.comparisons if c.p is not None]
    assert found.family == len(tested) == 9  # three pairs, three metrics; evaluations is certain
    assert {c.verdict for c in found.comparisons if c.metric == "evaluations"} == {"same"}
    worst, expected = 0.0, {}
    for rank, c in enumerate(sorted(tested, key=lambda c: c.p)):
        worst = max(worst, min(1.0, (9 - rank) * c.p))
        expected[c.first, c.second, c.metric] = worst
    for c in tested:
        assert c.p_holm == pytest.approx(expected[c.first, c.second, c.metric])


def test_a_baseline_makes_the_family_smaller(run):
    records = run("none", "human", "a=static", params={"a.text": "ugly"})
    found = compare_runs(records, baseline="none", metrics=["brightness"])
    assert [(c.first, c.second) for c in found.comparisons] == [("human", "none"), ("a", "none")]
    assert found.comparisons[0].delta == pytest.approx(records[1].paired[0].delta)
    with pytest.raises(ConfigError, match="no run is called"):
        compare_runs(records, baseline="nobody")


def test_distance_to_the_twin_is_not_held_against_a_run_of_twins(run):
    found = compare_runs(run("none", "human"))
    assert "sameness" not in {c.metric for c in found.comparisons}


def test_a_metric_that_reads_each_runs_own_negative_compares_gains_over_the_twin(run):
    a, b = run("human", "s=static", params={"s.text": "a rather long text"}, wanted=("length",))
    [found] = compare_runs([a, b]).comparisons
    assert found.of == "gain"
    frames = [r.to_pandas() for r in (a, b)]
    gains = [(f["length"] - f["twin_length"]).mean() for f in frames]
    assert found.delta == pytest.approx(gains[0] - gains[1])
    assert "gain over the twin" in found.sentence


def test_equal_runs_are_the_same_and_have_no_test(run):
    [a] = run("a=static", params={"text": "ugly"}, metrics=["brightness"])
    [b] = run("a=static", params={"text": "ugly"}, metrics=["brightness"], limit=5)
    found = compare_runs([a, b], metrics=["brightness"])
    [only] = found.comparisons
    assert only.verdict == "same"
    assert only.p is None
    assert only.n == 10
    assert "share 10 samples; 4 only in" in " ".join(found.notes)
    assert only.first != only.second  # labels are told apart by digest


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"generator_params": {"size": 16, "steps": 5}}, "generator: steps 4 and 5"),
        ({"scale": 3.0}, r"guidance of the twins: scale \S+ and 3.0"),
        ({"benchmark": "npdb-quality"}, r"benchmark miniature-quality\S+ and npdb-quality"),
    ],
)
def test_what_may_not_be_compared_is_refused_with_the_difference(run, changes, match):
    [a] = run("human", wanted=("brightness",))
    [b] = run("human", wanted=("brightness",), **changes)
    with pytest.raises(ConfigError, match=match) as caught:
        compare_runs([a, b])
    assert "\n" not in str(caught.value)


def test_another_version_of_a_metric_is_refused_unless_left_out(run, monkeypatch):
    [a] = run("human", wanted=("brightness", "evaluations"))
    monkeypatch.setattr(Brightness, "version", 2)
    [b] = run("static", params={"text": "x"}, wanted=("brightness", "evaluations"))
    with pytest.raises(ConfigError, match="metric brightness brightness version 1 and 2"):
        compare_runs([a, b])
    assert compare_runs([a, b], metrics=["evaluations"]).comparisons


def test_runs_of_other_cases_or_other_prompts_are_refused(run, tmp_path):
    [a] = run("human", wanted=("brightness",))
    other = tmp_path / "other.csv"
    other.write_text("id,prompt\nz1,another\nz2,yet another\n")
    [b] = run("human", wanted=("brightness",), prompts=other)
    with pytest.raises(ConfigError, match="share no case"):
        compare_runs([a, b])
    other.write_text(castles(7).replace("a castle number 3", "a house"))
    [c] = run("human", wanted=("brightness",), prompts=other)
    with pytest.raises(ConfigError, match=r"case c3 has prompt a castle number 3 and a house"):
        compare_runs([a, c])


def test_unknown_metrics_and_single_runs_are_told(run):
    [a] = run("human")
    with pytest.raises(ConfigError, match="at least two"):
        compare_runs([a])
    [b] = run("static", params={"text": "x"}, wanted=("brightness",))
    with pytest.raises(MissingError, match="no metric 'sameness'"):
        compare_runs([a, b], metrics=["sameness"])


def test_sentences_say_what_can_be_concluded_and_what_it_would_take(run):
    a, b = run("human", "s=static", params={"s.text": "ugly"})
    found = by_metric(compare_runs([a, b]))["human", "s", "brightness"]
    assert found.verdict == "cannot tell"
    assert "cannot be told apart on brightness" in found.sentence
    assert f"about {found.prompts_needed:,} prompts" in found.sentence
    assert found.prompts_needed > found.n_prompts


def test_text_csv_latex_and_json_hold_the_same_numbers(run, tmp_path):
    records = run("human", "s=static", params={"s.text": "ugly"})
    found = compare_runs(records)
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(rows) == len(found.comparisons)
    assert float(rows[0]["delta"]) == found.comparisons[0].delta
    assert "brightness" in as_text(found)
    assert as_latex(found).count(r"\\") == len(found.comparisons) + 1
    outcome = CliRunner().invoke(app, ["compare", str(tmp_path / "runs"), "--json"])
    assert outcome.exit_code == 0, outcome.output
    printed = json.loads(outcome.stdout)
    assert printed["family"] == found.family
    assert len(printed["comparisons"]) == len(found.comparisons)


def test_removal_is_paired_on_the_triples_whose_twin_shows_the_concept(tmp_path, monkeypatch):
    use_metrics(monkeypatch, presence=StubPresence)
    bench = write_castles(tmp_path, wanted=("presence", "no_op"), replicates=3)
    records = [
        evaluate(
            make_plan(
                methods=["concept"],
                guidance=rule,
                guidance_params={"start": 1, "stop": 3} if rule else None,
                **removal_options(bench),
            )
        )[0]
        for rule in ("window", None)
    ]
    found = compare_runs(records)
    assert {c.metric for c in found.comparisons} >= {"net_removal", "rsr", "reverse_activation"}
    by_name = {c.metric: c for c in found.comparisons}
    rates = [
        {e.metric: e for e in record.estimates if e.metric in ("rsr", "net_removal")}
        for record in records
    ]
    for name in ("rsr", "net_removal"):
        assert by_name[name].n == rates[0][name].n_scored
        assert by_name[name].delta == pytest.approx(rates[0][name].value - rates[1][name].value)
    assert [run.label for run in found.runs] == [
        "concept, window(start=1, stop=3)",
        "concept, cfg",
    ]
