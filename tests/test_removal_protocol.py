"""The removal protocol: its arms on the fake generator, and its numbers once more by hand."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from small_runs import CASES, StubPresence, removal_options, use_metrics, write_castles

from negbench.errors import ConfigError, DataError
from negbench.evaluate import evaluate
from negbench.forecast import forecast
from negbench.judges import Comparison, Judge, Verdict, judges
from negbench.metrics import metrics
from negbench.metrics.damage import NoOp, Ssim
from negbench.plan import make_plan
from negbench.protocols.benchmark import RemovalSpec, load_benchmark
from negbench.protocols.case_sets import load_case_set
from negbench.protocols.placebo import choose_placebos, stem
from negbench.protocols.removal import summarise_removal
from negbench.record import ImageResult, Sample, load_record
from negbench.registry import Entry
from negbench.types import Case, Score, Treatment, canonical_json, sha256_hex


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    use_metrics(monkeypatch, presence=StubPresence)


@pytest.fixture
def bench(tmp_path):
    return write_castles(tmp_path, wanted=("presence", "ssim", "no_op", "evaluations"))


def plan(tmp_path, bench, **changes):
    options = {
        "methods": ["concept"],
        "guidance": "window",
        "guidance_params": {"start": 1, "stop": 3},
        **removal_options(bench),
    }
    return make_plan(**{**options, **changes})


# The arms ---------------------------------------------------------------------------------------


def test_a_sample_has_all_arms(tmp_path, bench):
    resolved = plan(tmp_path, bench)
    wanted = resolved.jobs[0].wanted[0]
    treated, arms = wanted.treated.treatment, {k: v.treatment for k, v in wanted.arms.items()}
    assert treated.negative_text() == wanted.case.concept == "moat"
    assert treated.guidance.kind == "window"
    assert arms["all_steps"].negatives == treated.negatives
    assert arms["all_steps"].guidance == wanted.twin.guidance
    # a window of no negative is plain guidance from the empty prompt: the twin
    assert wanted.arm_keys["empty"] == wanted.twin_key
    assert arms["placebo"].guidance == treated.guidance
    assert arms["placebo"].negative_text() == wanted.placebo
    assert wanted.placebo in {"tower", "knight", "drawbridge", "banner"}
    assert {request.seed for request in wanted.arms.values()} == {wanted.seed}


def test_a_rule_with_a_neutral_picture_of_its_own_draws_it(tmp_path, bench):
    resolved = plan(tmp_path, bench, guidance="perp_neg", guidance_params={"weight": 1.5})
    wanted = resolved.jobs[0].wanted[0]
    empty = wanted.arms["empty"]
    assert empty.treatment.negatives == ()
    assert empty.guidance.kind == "perp_neg"
    assert empty.guidance.params["weight"] == 1.5


def test_equal_requests_are_drawn_once(tmp_path, bench):
    # plain guidance: the treatment is all_steps, and empty is the twin, which two concepts share
    plain = plan(tmp_path, bench, guidance=None, guidance_params=None)
    placebos = {(w.case.prompt, w.seed, w.placebo) for w in plain.jobs[0].wanted}
    assert len(plain.requests()) == 3 * 2 + 6 * 2 + len(placebos)
    outlook = forecast(plain)
    assert outlook.images == len(plain.requests())
    windowed = plan(tmp_path, bench)
    assert len(windowed.requests()) == 3 * 2 + 6 * 2 * 2 + len(placebos)


def test_the_same_protocol_with_another_placebo_is_another_plan(tmp_path, bench):
    one = plan(tmp_path, bench).jobs[0].plan
    text = CASES.replace(",knight,", ",soldier,")
    (tmp_path / "cases.csv").write_text(text)
    other = plan(tmp_path, bench).jobs[0].plan
    assert one.benchmark.params["threshold"] == 0.5
    assert one.benchmark.params["distance"] == "ssim"
    assert one.benchmark.params["placebos"] != other.benchmark.params["placebos"]


def test_the_placebo_does_not_depend_on_the_limit(tmp_path, bench):
    whole = {w.case.id: w.placebo for w in plan(tmp_path, bench).jobs[0].wanted}
    few = {w.case.id: w.placebo for w in plan(tmp_path, bench, limit=2).jobs[0].wanted}
    assert few == {case: whole[case] for case in few}


def test_a_method_that_does_not_look_at_the_concept_is_told_of(tmp_path, bench):
    resolved = plan(tmp_path, bench, methods=["static"], method_params={"text": "blurry"})
    assert "0 by construction" in " ".join(resolved.jobs[0].notes)
    wanted = resolved.jobs[0].wanted[0]
    assert wanted.arm_keys["placebo"] == wanted.treated_key


# The run ----------------------------------------------------------------------------------------


def essence(record):
    """What must not depend on how a run came about."""
    return record.model_dump(
        mode="json", include={"status", "estimates", "twin_estimates", "paired", "breakdown"}
    ), [sample.model_dump(mode="json") for sample in record.samples()]


def test_a_run_has_the_headline_first_and_is_read_back(tmp_path, bench):
    [record] = evaluate(plan(tmp_path, bench))
    assert record.status == "complete"
    assert record.estimates[0].metric == "net_removal"
    names = [e.metric for e in record.estimates]
    assert len(names) == len(set(names))
    assert {"rsr", "rsr_all_steps", "rsr_placebo", "rsr_empty", "rrsr", "cr", "cr_both_removed",
            "absent_rate", "base_rate", "reverse_activation", "no_op", "ssim", "ssim_all_steps",
            "ssim_placebo", "ssim_empty"} <= set(names)  # fmt: skip
    assert [(b.by, b.group) for b in record.breakdown] == [("category", "noun_object")]
    assert record.breakdown[0].n_cases == 6
    again = load_record(record.folder)
    assert essence(again) == essence(record)
    frame = again.to_pandas()
    assert {"presence", "twin_presence", "placebo_presence", "all_steps_key", "placebo"} <= set(
        frame
    )
    shown = frame[frame["twin_presence"] > 0.5]
    net = ((shown["presence"] <= 0.5) * 1.0 - (shown["placebo_presence"] <= 0.5)).mean()
    assert record.estimates[0].value == pytest.approx(net)


def test_shards_and_a_restart_end_as_the_whole(tmp_path, bench):
    [whole] = evaluate(plan(tmp_path, bench))
    for k in (1, 2):
        [record] = evaluate(
            plan(tmp_path, bench, shard=(k, 2), out=tmp_path / "s", cache=tmp_path / "c")
        )
    assert essence(record) == essence(whole)
    broken = {"size": 16, "steps": 4, "fail_at": 13}
    other = {"out": tmp_path / "k", "cache": tmp_path / "kc"}
    with pytest.raises(Exception, match="image 13"):
        evaluate(plan(tmp_path, bench, generator_params=broken, **other))
    mended = plan(tmp_path, bench, **other)
    drawn = []
    draw = mended.generator.draw
    mended.generator.draw = lambda requests: drawn.append(len(requests)) or draw(requests)
    [again] = evaluate(mended)
    assert drawn == [len(mended.requests()) - 13]
    assert essence(again) == essence(whole)
    mended.generator.draw = None
    evaluate(mended)


def test_fewer_metrics_keep_the_numbers_of_removal(tmp_path, bench):
    [whole] = evaluate(plan(tmp_path, bench))
    (whole.folder / "run.json").rename(whole.folder / "kept.json")
    evaluate(plan(tmp_path, bench))
    [few] = evaluate(plan(tmp_path, bench, metrics=["ssim"]))
    assert {e.metric for e in few.estimates} == {e.metric for e in whole.estimates}


def test_without_presence_nothing_is_claimed(tmp_path, bench):
    [record] = evaluate(plan(tmp_path, bench, metrics=["ssim"]))
    assert "presence was not asked for" in " ".join(record.notes)
    assert [e.metric for e in record.estimates] == ["ssim"]


def test_samples_of_the_quality_protocol_have_the_fields_they_had(tmp_path):
    sample = hand_made(0, "p", {"twin": 1.0, "treated": 0.0}, arms=False)
    assert {"arms", "placebo"}.isdisjoint(sample.model_dump(mode="json"))
    assert Sample.model_validate(sample.model_dump(mode="json")) == sample


OLD_SAMPLE = (
    '{"case":"c0","concept":null,"metrics":{"no_op":"d"},"prompt":"a castle","replicate":0,'
    '"seed":7,"tags":["style:flat"],"treated":{"evaluations":8,"facts":{},"image":"b","key":"a",'
    '"scores":{"no_op":{"unscored":null,"value":0.0}}},"treatment":{"guidance":{"kind":"cfg",'
    '"params":{},"scale":4.0,"version":1},"negatives":[{"text":"blurry","weight":1.0}],"prompt":'
    '"a castle"},"twin":{"evaluations":8,"facts":{},"image":"y","key":"x","scores":{"no_op":'
    '{"unscored":"no twin to compare with","value":null}}}}'
)


def test_a_sample_written_before_there_were_arms_is_read_and_written_as_it_was():
    sample = Sample.model_validate_json(OLD_SAMPLE)
    assert sample.arms == {}
    assert sample.placebo is None
    assert canonical_json(sample.model_dump(mode="json")).decode() == OLD_SAMPLE


GOLDEN_QUALITY_PLANS = {
    (None, None): "e197ee2bb3429dc33c4e3194e03b3d27dcacca3eb62aec9d3938dfe2ce8e2e4e",
    ("window", None): "f07f53abd65b6d0f6db8cbfc20d2d380edb5125cd1169f01588215359dfd22cb",
    ("perp_neg", 6.0): "da0ae5f3e9dfb168bf540f0a9096179b8bb387219f7dcb2fbb7ce575a578ef76",
}
PARAMS = {None: None, "window": {"start": 1, "stop": 3}, "perp_neg": {"weight": 1.5}}


@pytest.mark.parametrize(("guidance", "scale"), GOLDEN_QUALITY_PLANS)
def test_plans_of_the_quality_protocol_stay_what_they_were(tmp_path, guidance, scale):
    (tmp_path / "p.csv").write_text("id,prompt,negative\nc0,a castle,\nc1,a dog,blurry\n")
    resolved = make_plan(
        methods=["static"], method_params={"text": "noisy"}, generator="fake",
        generator_params={"size": 16, "steps": 4}, metrics=["no_op"], prompts=tmp_path / "p.csv",
        replicates=2, out=tmp_path / "o", cache=tmp_path / "c", guidance=guidance, scale=scale,
        guidance_params=PARAMS[guidance],
    )  # fmt: skip
    assert resolved.jobs[0].plan.digest() == GOLDEN_QUALITY_PLANS[guidance, scale]


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"guidance": "window", "guidance_params": {"start": 0, "stop": 0}},
            "would have no effect",
        ),
        ({"guidance": "cfg", "guidance_params": {"scale": 1}}, "at scale 1"),
        ({"guidance": "perp_neg", "guidance_params": {"weight": 0}}, "never looks at it"),
    ],
)
def test_rules_that_ignore_the_negative_are_refused_while_planning(tmp_path, bench, changes, said):
    with pytest.raises(ConfigError, match=said):
        plan(tmp_path, bench, **changes)


def test_cases_without_a_concept_are_refused(tmp_path, bench):
    (tmp_path / "cases.csv").write_text("id,prompt,concept\na,a castle,\nb,a dog,collar\n")
    with pytest.raises(ConfigError, match="1 of 2 have none"):
        plan(tmp_path, bench)
    (tmp_path / "cases.csv").write_text("id,prompt,concept\na,a castle,moat\n")
    with pytest.raises(DataError, match="no placebo"):
        plan(tmp_path, bench)
    (tmp_path / "cases.csv").write_text("id,prompt,concept,category\na,a castle,moat,thing\n")
    with pytest.raises(DataError, match="category"):
        plan(tmp_path, bench)


def test_the_method_concept_needs_one(tmp_path):
    (tmp_path / "p.csv").write_text("prompt\na castle\n")
    with pytest.raises(ConfigError, match="has no concept"):
        make_plan(
            methods=["concept"], generator="fake", prompts=tmp_path / "p.csv", metrics=["ssim"]
        )


def test_a_table_removal_belongs_to_the_protocol(tmp_path, bench):
    text = bench.read_text().replace('"removal"', '"quality"') + "[removal]\nthreshold = 0.4\n"
    bench.write_text(text)
    with pytest.raises(ConfigError, match="needs protocol"):
        load_benchmark(str(bench))


# Placebos ---------------------------------------------------------------------------------------


def test_a_placebo_is_unrelated_and_of_the_same_kind():
    cases = [
        Case(id="1", prompt="a professor", concept="glasses",
             tags=("category:noun_object", "related:monocle")),
        Case(id="2", prompt="a professor", concept="beard", tags=("category:noun_object",)),
        Case(id="3", prompt="a bar", concept="wine glass", tags=("category:noun_object",)),
        Case(id="4", prompt="a knight", concept="monocles", tags=("category:noun_object",)),
        Case(id="5", prompt="a car", concept="rusty", tags=("category:attribute",)),
        Case(id="6", prompt="a pond", concept="duck", tags=("category:noun_object",)),
        Case(id="7", prompt="an optician", concept="lamp",
             tags=("category:noun_object", "related:spectacles; glasses")),
    ]  # fmt: skip
    assert choose_placebos(cases, cases)["1"] == "duck"
    assert choose_placebos(cases, cases) == choose_placebos(cases[::-1], cases[::-1])
    # "rusty" has nothing of its own kind, so it takes any
    assert choose_placebos(cases, cases)["5"] != "rusty"


def test_the_choice_follows_the_hash_of_case_and_concept():
    names = ["moat", "flag", "tower", "knight"]
    cases = [Case(id=f"c{i}", prompt=f"p{i}", concept=name) for i, name in enumerate(names)]
    for case in cases:
        best = max(
            (other for other in names if other != case.concept),
            key=lambda o: sha256_hex(canonical_json(["negbench-placebo-concept", 1, case.id, o])),
        )
        assert choose_placebos(cases, cases)[case.id] == best


def test_no_part_of_the_subject_is_a_placebo_in_the_miniature():
    from negbench.miniature.world import ATTRIBUTES, PARTS_BY_SUBJECT

    cases = load_case_set("miniature-removal")
    placebos = choose_placebos(cases, cases)
    assert len(cases) == sum(len(parts) for parts in PARTS_BY_SUBJECT.values())
    for case in cases:
        subject = case.prompt.split(maxsplit=1)[1]
        assert placebos[case.id] not in PARTS_BY_SUBJECT[subject]
        assert (placebos[case.id] in ATTRIBUTES) == (case.concept in ATTRIBUTES)


@pytest.mark.parametrize(
    ("one", "other"),
    [("glass", "glasses"), ("snow", "snowy"), ("crack", "cracked"), ("knit", "knitting")],
)
def test_inflections_share_a_stem(one, other):
    assert stem(one) == stem(other)


# The numbers ------------------------------------------------------------------------------------

SSIM, NO_OP = Ssim(), NoOp()
MEASURED = {"presence": StubPresence(), "ssim": SSIM, "no_op": NO_OP}
SIDES = ("treated", "twin", "all_steps", "empty", "placebo")


def hand_made(number, prompt, presence, *, ssim=None, tags=(), arms=True):
    def image(side):
        scores = {"presence": Score.missing("dark") if presence[side] is None else
                  Score.of(presence[side])}  # fmt: skip
        if side == "twin":
            scores |= {"ssim": Score.missing("twin"), "no_op": Score.missing("twin")}
        else:
            scores["ssim"] = Score.of((ssim or {}).get(side, 0.5))
            scores["no_op"] = Score.of(0.0)
        return ImageResult(
            key=f"{side}-{number}", image=f"{side}-{number}", evaluations=2, scores=scores
        )

    presence = dict.fromkeys(SIDES, 0.0) | presence
    return Sample(
        case=f"case-{number}", replicate=0, seed=number, prompt=prompt, concept="x", tags=tags,
        treatment=Treatment(prompt=prompt), treated=image("treated"), twin=image("twin"),
        arms={a: image(a) for a in ("all_steps", "empty", "placebo")} if arms else {},
        placebo="y" if arms else None,
    )  # fmt: skip


def random_samples(seed, *, prompts=12, each=6):
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(prompts * each):
        presence = {side: float(rng.random()) for side in SIDES}
        if rng.random() < 0.05:
            presence["treated"] = None
        ssim = {side: round(float(rng.random()), 1) for side in SIDES}
        tags = ("category:style" if number % 3 else "category:text",)
        samples.append(hand_made(number, f"p{number % prompts}", presence, ssim=ssim, tags=tags))
    return samples


def by_name(summary):
    return {estimate.metric: estimate for estimate in summary.estimates}


def test_every_number_against_a_plain_loop():
    samples = random_samples(1)
    threshold = 0.4
    found = by_name(
        summarise_removal(samples, spec=RemovalSpec(threshold=threshold), metrics=MEASURED)
    )

    def gone(sample, side):
        value = sample.images()[side].scores["presence"].value
        return None if value is None else not value > threshold

    shown = [s for s in samples if gone(s, "twin") is False]
    lacking = [s for s in samples if gone(s, "twin")]

    def rate(chosen, side, wanted):
        said = [gone(s, side) for s in chosen if gone(s, side) is not None]
        return sum(x is wanted for x in said) / len(said)

    for side, name in (("treated", ""), ("all_steps", "_all_steps"), ("placebo", "_placebo")):
        assert found[f"rsr{name}"].value == pytest.approx(rate(shown, side, True))
        assert found[f"reverse_activation{name}"].value == pytest.approx(rate(lacking, side, False))
    both = [s for s in shown if gone(s, "treated") is not None]
    net = sum(gone(s, "treated") - gone(s, "placebo") for s in both) / len(both)
    assert found["net_removal"].value == pytest.approx(net)
    assert found["net_removal"].n_scored == len(both)
    assert found["net_removal"].n_unscored == len(shown) - len(both)
    ratio = sum(gone(s, "treated") for s in both) / sum(gone(s, "all_steps") for s in both)
    assert found["rrsr"].value == pytest.approx(ratio)

    def closer(chosen):
        total = 0.0
        for sample in chosen:
            ours = sample.treated.scores["ssim"].value
            theirs = sample.arms["all_steps"].scores["ssim"].value
            total += 1.0 if ours > theirs else 0.5 if ours == theirs else 0.0
        return total / len(chosen)

    assert found["cr"].value == pytest.approx(closer(shown))
    emptied = [s for s in both if gone(s, "treated") and gone(s, "all_steps")]
    assert found["cr_both_removed"].value == pytest.approx(closer(emptied))
    assert found["cr_both_removed"].higher_is_better is None
    assert found["cr"].note == "by ssim"
    assert found["base_rate"].value == pytest.approx(len(shown) / len(samples))
    assert found["absent_rate"].value == pytest.approx(rate(samples, "treated", True))
    mean = np.mean([s.arms["placebo"].scores["ssim"].value for s in samples])
    assert found["ssim_placebo"].value == pytest.approx(mean)


def test_the_breakdown_is_the_protocol_on_a_part():
    samples = random_samples(2)
    whole = summarise_removal(samples, spec=RemovalSpec(), metrics=MEASURED)
    part = [s for s in samples if "category:text" in s.tags]
    alone = by_name(summarise_removal(part, spec=RemovalSpec(), metrics=MEASURED))
    text = next(b for b in whole.breakdown if (b.by, b.group) == ("category", "text"))
    assert {b.group for b in whole.breakdown} == {"text", "style"}
    for estimate in text.estimates:
        if estimate.metric not in ("ssim", "no_op"):
            assert estimate == alone[estimate.metric]


def test_the_interval_of_a_ratio_is_that_of_its_logarithm():
    from negbench.stats import cluster_bootstrap

    samples = random_samples(3)
    found = by_name(summarise_removal(samples, spec=RemovalSpec(), metrics=MEASURED))["rrsr"]
    sums = {}
    for s in samples:
        value = {side: image.scores["presence"].value for side, image in s.images().items()}
        if value["twin"] > 0.5 and value["treated"] is not None:
            row = sums.setdefault(s.prompt, [0, 0])
            row[0] += value["treated"] <= 0.5
            row[1] += value["all_steps"] <= 0.5
    totals = np.array([sums[p] for p in sorted(sums)], dtype=float)
    ends, _ = cluster_bootstrap(totals, lambda t: np.log(t[..., 0] / t[..., 1]))
    assert found.ci95 == pytest.approx(tuple(math.exp(end) for end in ends), rel=0.02)


def test_where_all_triples_agree_there_is_still_an_interval():
    gone = [hand_made(n, f"p{n % 10}", {"twin": 1.0, "placebo": 1.0}) for n in range(30)]
    found = by_name(summarise_removal(gone, spec=RemovalSpec(), metrics=MEASURED))
    assert found["rsr"].value == found["net_removal"].value == 1.0
    assert found["rsr_placebo"].value == 0.0
    low, high = found["net_removal"].ci95
    assert 0 < low < 1 == high
    assert found["rsr_placebo"].ci95[1] > 0.2
    assert found["rrsr"].value == 1.0
    kept = [hand_made(n, f"p{n % 10}", dict.fromkeys(SIDES, 1.0)) for n in range(30)]
    found = by_name(summarise_removal(kept, spec=RemovalSpec(), metrics=MEASURED))
    assert found["net_removal"].ci95[0] == -found["net_removal"].ci95[1] < 0
    assert found["rrsr"].value is None
    assert "denominator is 0" in found["rrsr"].note
    assert found["cr_both_removed"].value is None


def test_where_nothing_was_there_nothing_is_scored():
    bare = [hand_made(n, f"p{n}", {"treated": 1.0}) for n in range(5)]
    summary = summarise_removal(bare, spec=RemovalSpec(), metrics=MEASURED)
    found = by_name(summary)
    assert found["rsr"].value is None
    assert found["net_removal"].value is None
    assert found["reverse_activation"].value == 1.0
    assert "nothing could be removed" in " ".join(summary.notes)
    unjudged = [hand_made(n, f"p{n}", dict.fromkeys(SIDES)) for n in range(5)]
    summary = summarise_removal(unjudged, spec=RemovalSpec(), metrics=MEASURED)
    assert "25 pictures have no presence (25: dark)" in summary.notes
    assert by_name(summary)["base_rate"].n_unscored == 5


def test_what_is_compared_with_itself_has_no_number():
    samples = []
    for sample in random_samples(4):
        same = sample.arms | {
            "all_steps": sample.treated,
            "empty": sample.twin.model_copy(
                update={"scores": sample.twin.scores | {"ssim": Score.of(1), "no_op": Score.of(1)}}
            ),
        }
        samples.append(sample.model_copy(update={"arms": same}))
    found = by_name(summarise_removal(samples, spec=RemovalSpec(), metrics=MEASURED))
    for name in ("rrsr", "cr"):
        assert found[name].value is None
        assert "at every step" in found[name].note
    assert found["rsr_empty"].value == 0.0
    assert found["rsr_empty"].ci95 is None


def test_the_smallest_detectable_difference_is_found_four_times_in_five():
    # differences of prompts with the deviation of the sample, shifted by the number reported
    samples = random_samples(5, prompts=20, each=8)
    estimate = by_name(summarise_removal(samples, spec=RemovalSpec(), metrics=MEASURED))[
        "net_removal"
    ]
    smallest = estimate.customary["smallest_detectable"]
    width = (estimate.ci95[1] - estimate.ci95[0]) / 2
    # t intervals: half width 2.09 se, detectable about 2.95 se
    assert 1.1 < smallest / width < 1.8


@pytest.mark.slow
def test_intervals_cover_the_truth():
    rng = np.random.default_rng(11)
    spec = RemovalSpec()
    hits = {"net_removal": 0, "rsr": 0, "rrsr": 0}
    runs = 200
    for _ in range(runs):
        samples = []
        for number in range(40 * 6):
            if number % 6 == 0:
                lift = rng.beta(2, 2)
            sides = {"twin": 1.0, "empty": 1.0}
            for side, mean in (("treated", 0.6), ("all_steps", 0.7), ("placebo", 0.2)):
                share = min(1.0, mean * 2 * lift) if side != "placebo" else mean
                sides[side] = float(rng.random() > share)
            samples.append(hand_made(number, f"p{number // 6}", sides))
        found = by_name(
            summarise_removal(samples, spec=spec, metrics={"presence": MEASURED["presence"]})
        )
        draws = np.random.default_rng(0).beta(2, 2, 200_000)
        truth = {s: np.minimum(1, m * 2 * draws).mean() for s, m in (("t", 0.6), ("a", 0.7))}
        targets = {
            "net_removal": truth["t"] - 0.2,
            "rsr": truth["t"],
            "rrsr": truth["t"] / truth["a"],
        }
        for name, target in targets.items():
            low, high = found[name].ci95
            hits[name] += low <= target <= high
    for name, count in hits.items():
        assert count / runs >= 0.91, (name, count / runs)


# Tables -----------------------------------------------------------------------------------------


@pytest.fixture
def records(tmp_path, bench):
    options = {"methods": ["concept", "static"], "method_params": {"static.text": "blurry"}}
    return evaluate(plan(tmp_path, bench, **options))


def test_the_tables_have_the_headline_with_holm_and_every_arm(records):
    from negbench.stats import holm
    from negbench.tables import as_csv_table, as_latex_table, as_text_table

    text = as_text_table(records)
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("net_removal"))
    assert lines.index(head) == min(
        i for i, line in enumerate(lines) if "[" in line and "%" not in line
    )
    for name in ("rsr", "rsr_all_steps", "rsr_placebo", "rrsr", "cr", "reverse_activation", "ssim"):
        assert any(line.startswith(name) for line in lines), name
    assert "window(start=1, stop=3)" in text
    assert "category: noun_object" in text
    rows = list(csv.DictReader(io.StringIO(as_csv_table(records))))
    first = [row for row in rows if row["metric"] == "net_removal" and not row["by"]]
    adjusted = holm([float(row["p"]) for row in first])
    assert [float(row["p_holm"]) for row in first] == pytest.approx(adjusted)
    assert [row["method"] for row in first] == ["concept", "static"]
    assert all(row["baseline"] == "placebo" for row in first)
    assert {row["group"] for row in rows if row["by"] == "category"} == {"noun_object"}
    latex = as_latex_table(records)
    assert latex.startswith(r"\begin{tabular}")
    assert latex.index(r"net\_removal") < latex.index(r"rsr\_all\_steps")
    assert latex.count("&") == latex.splitlines()[2].count("&") * 3


def test_records_read_from_disk_give_the_same_table(records):
    from negbench.record import load_record
    from negbench.tables import as_text_table

    assert as_text_table([load_record(r.folder) for r in records]) == as_text_table(records)


def test_methods_under_several_rules_are_told_apart(tmp_path, bench, records):
    from negbench.protocols.removal_table import labels

    [other] = evaluate(plan(tmp_path, bench, guidance_params={"start": 0, "stop": 2, "scale": 6.0}))
    assert labels([records[0], other]) == [
        "concept, window(start=1, stop=3)", "concept, window(stop=2) at scale 6",
    ]  # fmt: skip
    assert labels(records) == ["concept", "static"]


# A judge that compares --------------------------------------------------------------------------


class Comparer(Judge):
    """The closer picture is the one whose first grey level is nearer; one case has no answer."""

    compares = True
    asked = 0

    def judge(self, questions):
        return [Verdict.of(0.0) for _ in questions]

    def compare(self, triples):
        type(self).asked += len(triples)
        return [self._nearer(*triple) for triple in triples]

    def _nearer(self, reference, first, second):
        near, far = (abs(int(p[0, 0, 0]) - int(reference[0, 0, 0])) for p in (first, second))
        if near == far:
            return Comparison(unscored="cannot tell")
        return Comparison(first=float(near < far))


def test_cr_by_a_judge_that_compares(tmp_path, bench, monkeypatch):
    monkeypatch.setattr(judges, "_local", {"comparer": Entry("comparer", "a test", "", Comparer)})
    text = bench.read_text() + '[removal]\ndistance = "closer_to_twin"\n'
    bench.write_text(text + '[metrics.closer_to_twin]\njudge = "comparer"\n')
    resolved = plan(tmp_path, bench)
    [record] = evaluate(resolved)
    assert Comparer.asked == 12  # once a treated picture, never a twin or another arm
    samples = record.samples()
    scores = [sample.treated.scores["closer_to_twin"] for sample in samples]
    for sample, score in zip(samples, scores, strict=True):
        assert "negative at every step" in sample.arms["placebo"].scores["closer_to_twin"].unscored
        assert score.value in (0.0, 1.0) or score.unscored == "cannot tell"
    shown = [s.twin.scores["presence"].value > 0.5 for s in samples]
    counted = [
        s.value for s, seen in zip(scores, shown, strict=True) if seen and s.value is not None
    ]
    found = {estimate.metric: estimate for estimate in record.estimates}
    assert found["cr"].value == pytest.approx(np.mean(counted))
    assert found["cr"].note == "by closer_to_twin"
    assert "closer_to_twin_placebo" not in found
    evaluate(resolved)
    assert Comparer.asked == 12
    monkeypatch.setattr(Comparer, "compares", False)
    with pytest.raises(ConfigError, match="does not compare"):
        plan(tmp_path, bench)


# On the miniature -------------------------------------------------------------------------------


def test_the_miniatures_benchmark_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "_local", {})
    resolved = make_plan(
        benchmark="miniature-removal",
        methods=["concept"],
        guidance="window",
        guidance_params={"start": 1, "stop": 3},
        generator_params={"steps": 4},
        limit=3,
        replicates=1,
        out=tmp_path / "runs",
        cache=tmp_path / "cache",
    )
    [record] = evaluate(resolved)
    found = {estimate.metric: estimate for estimate in record.estimates}
    assert record.status == "complete"
    assert found["base_rate"].n_scored == 3
    assert found["base_rate"].n_unscored == 0
    for sample in record.samples():
        for image in sample.images().values():
            assert 0 <= image.scores["presence"].value <= 1
        assert sample.arms["empty"].image == sample.twin.image
        assert sample.treated.image != sample.twin.image
