"""Recorded judgements: reading hostile files, metrics against independent computations."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from negbench.errors import DataError, MissingError, NegbenchError, UnknownNameError
from negbench.protocols.commands import score_verdicts as command
from negbench.protocols.concept_lists import BUILT_IN, load_concepts
from negbench.protocols.verdict_scores import score_verdicts
from negbench.protocols.verdict_table import as_text
from negbench.protocols.verdicts import read_comparisons, read_verdicts
from negbench.stats.share_ratio import share_ratio_interval

COUNTS = """concept,arm,present,count
cat,all_steps,0,6
cat,all_steps,1,4
cat,window,0,4
cat,window,1,6
cat,window,0,1
cat,all_steps,1,1
potted plant,all_steps,0,3
potted plant,all_steps,1,7
potted plant,window,1,10
"""
HEADER = "concept,arm,present,count\n"
TRIPLES = "case,seed,concept,arm,present,count\n"


def write(tmp_path, text, name="v.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def score(tmp_path, text, *, comparisons=None, concepts=None):
    return score_verdicts(
        read_verdicts(write(tmp_path, text)),
        comparisons=comparisons and read_comparisons(write(tmp_path, comparisons, "c.csv")),
        concepts=concepts and load_concepts(concepts),
    )


def triples(rows):
    return TRIPLES + "".join(",".join(map(str, row)) + ",1\n" for row in rows)


# metrics from counts


def test_counts_are_added_up_and_divided(tmp_path):
    scores = score(tmp_path, COUNTS)
    assert scores.n == 21
    assert scores.rsr["all_steps"].value == pytest.approx(9 / 21)
    assert scores.rsr["window"].value == pytest.approx(5 / 21)
    assert scores.rrsr.value == pytest.approx(5 / 9)
    assert scores.independence_assumed
    assert scores.rsr["window"].independence_assumed
    assert scores.rrsr.independence_assumed
    assert scores.cr.value is None
    assert scores.cr.unscored == "no comparisons were given"


def test_share_interval_of_counts_is_wilsons(tmp_path):
    rate = score(tmp_path, COUNTS).rsr["all_steps"]
    # the shares that a score test does not reject: |p - x| = z sqrt(x (1 - x) / n) at both ends
    for end in rate.ci95:
        assert abs(9 / 21 - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / 21))


@pytest.mark.parametrize("counts", [(5, 21, 9, 21), (36, 40, 16, 80), (0, 20, 7, 20), (9, 9, 5, 9)])
def test_ratio_interval_inverts_the_score_test(counts):
    from scipy.optimize import minimize_scalar

    hits, n, base_hits, base_n = counts

    def statistic(ratio):
        """Pearson's chi-square at the likeliest shares with this ratio, found numerically."""

        def loss(base):
            pairs = ((hits, n, ratio * base), (base_hits, base_n, base))
            return -sum(x * np.log(p + 1e-300) + (m - x) * np.log1p(-p) for x, m, p in pairs)

        top = min(1.0, 1 / ratio) * (1 - 1e-12)
        base = minimize_scalar(loss, bounds=(1e-12, top), method="bounded",
                               options={"xatol": 1e-12}).x  # fmt: skip
        pairs = ((hits, n, ratio * base), (base_hits, base_n, base))
        return sum((x - m * p) ** 2 / (m * p * (1 - p)) for x, m, p in pairs)

    low, high = share_ratio_interval(*counts)
    assert low <= (hits / n) / (base_hits / base_n) <= high
    for end in (low, high):
        if end > 0:
            assert statistic(end) == pytest.approx(3.841459, rel=1e-3)
    assert (low == 0) == (hits == 0)


@given(
    n=st.integers(1, 10**9),
    base_n=st.integers(1, 10**9),
    share=st.floats(0, 1),
    base_share=st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
@example(n=8, base_n=59538, share=1.0, base_share=0.99999)
@example(n=10**9, base_n=10**9, share=1.0, base_share=1.0)
def test_ratio_interval_is_finite_and_holds_the_ratio(n, base_n, share, base_share):
    hits, base_hits = round(share * n), max(1, round(base_share * base_n))
    low, high = share_ratio_interval(hits, n, base_hits, base_n)
    ratio = (hits / n) / (base_hits / base_n)
    assert 0 <= low <= ratio * (1 + 1e-9)
    assert ratio * (1 - 1e-9) <= high < math.inf
    assert low < high


def test_ratio_interval_refuses_counts_out_of_range():
    assert share_ratio_interval(3, 5, 0, 5) is None
    with pytest.raises(ValueError):
        share_ratio_interval(6, 5, 1, 5)


def test_denominator_zero_is_unscored(tmp_path):
    text = HEADER + "cat,all_steps,1,5\ncat,window,0,2\ncat,window,1,3\n"
    scores = score(tmp_path, text)
    assert scores.rsr["all_steps"].value == 0
    assert scores.rsr["all_steps"].ci95[1] > 0.3
    assert scores.rrsr.value is None
    assert "denominator is 0" in scores.rrsr.unscored


@pytest.mark.parametrize(
    "text", [HEADER + "cat,all_steps,1,0\n", HEADER + "cat,none,1,4\n", COUNTS]
)
def test_nothing_to_score_gives_reasons_not_nan(tmp_path, text):
    scores = score(tmp_path, text, concepts=str(write(tmp_path, "zebra\n", "list.txt")))
    assert scores.n == 0
    for rate in (*scores.rsr.values(), scores.rrsr):
        assert rate.value is None
        assert rate.ci95 is None
        assert rate.unscored
    assert "NaN" not in json.dumps(scores.model_dump(mode="json"))
    assert "unscored" in as_text(scores)


def test_arm_that_is_missing_is_unscored(tmp_path):
    scores = score(tmp_path, HEADER + "cat,window,0,2\n")
    assert scores.rsr["window"].value == 1
    assert scores.rsr["all_steps"].unscored
    assert scores.rrsr.unscored == "an arm is missing"


def test_unmatched_twins_do_not_condition_and_say_so(tmp_path):
    text = COUNTS + "cat,none,1,8\ncat,none,0,3\n"
    scores = score(tmp_path, text)
    assert not scores.conditioned_on_twin
    assert scores.rsr["window"].value == pytest.approx(5 / 21)
    assert scores.twin_presence.value == pytest.approx(8 / 11)
    assert any("too high" in note for note in scores.notes)


# metrics with case and seed


def test_triples_are_conditioned_on_the_twin(tmp_path):
    rows = []
    for case in range(4):
        rows += [(case, 1, "cat", "none", 1), (case, 1, "cat", "all_steps", 0)]
        rows += [(case, 1, "cat", "window", int(case < 2))]
        rows += [(case, 2, "cat", "none", 0), (case, 2, "cat", "all_steps", int(case == 0))]
        rows += [(case, 2, "cat", "window", 0)]
    rows.append((9, 1, "cat", "window", 0))
    scores = score(tmp_path, triples(rows))
    assert scores.conditioned_on_twin
    assert not scores.independence_assumed
    assert (scores.n, scores.n_cases) == (4, 4)
    assert scores.rsr["all_steps"].value == 1
    assert scores.rsr["window"].value == 0.5
    assert scores.rrsr.value == 0.5
    assert scores.reverse_activation["all_steps"].value == 0.25
    assert scores.reverse_activation["window"].value == 0
    assert scores.twin_presence.value == 0.5
    assert any("without a verdict on the twin, left out: 1" in note for note in scores.notes)


def test_ratio_leaves_out_triples_judged_in_one_arm_only(tmp_path):
    rows = [(c, 1, "cat", arm, c % 2) for c in range(6) for arm in ("all_steps", "window")]
    rows += [(c, 2, "cat", "window", 1) for c in range(6)]
    scores = score(tmp_path, triples(rows))
    assert scores.rsr["window"].value == pytest.approx(3 / 12)
    assert scores.rrsr.value == 1
    assert scores.rrsr.n == 6
    assert "judged in one arm only, left out: 6" in scores.rrsr.note


def clustered(rng, seeds):
    """Cases whose seeds all come out alike, window correlated with all_steps."""
    rows = []
    for case in range(60):
        absent = rng.random() < 0.6
        window = absent and rng.random() < 0.8
        for seed in range(seeds):
            rows.append((case, seed, "cat", "all_steps", int(not absent)))
            rows.append((case, seed, "cat", "window", int(not window)))
    return triples(rows)


def test_copies_of_a_case_do_not_narrow_the_interval(tmp_path):
    one = score(tmp_path, clustered(np.random.default_rng(3), 1))
    five = score(tmp_path, clustered(np.random.default_rng(3), 5))
    assert five.n == 5 * one.n
    assert five.rrsr.value == pytest.approx(one.rrsr.value)
    for few, many in ((one.rrsr, five.rrsr), (one.rsr["window"], five.rsr["window"])):
        assert many.ci95[1] - many.ci95[0] == pytest.approx(few.ci95[1] - few.ci95[0], rel=0.1)


def test_matched_arms_narrow_the_ratio_against_counts(tmp_path):
    text = clustered(np.random.default_rng(3), 1)
    matched = score(tmp_path, text)
    rows = [line.split(",", 2)[2] for line in text.splitlines()]
    counts = score(tmp_path, "\n".join(rows) + "\n")
    assert counts.rrsr.value == pytest.approx(matched.rrsr.value)
    width = matched.rrsr.ci95[1] - matched.rrsr.ci95[0]
    assert width < 0.9 * (counts.rrsr.ci95[1] - counts.rrsr.ci95[0])


def test_case_without_seed_clusters_counts(tmp_path):
    rows = "".join(
        f"{case},cat,{arm},{present},{count}\n"
        for case in range(20)
        for arm in ("all_steps", "window")
        for present, count in ((0, 5 * (case % 2)), (1, 5 * (1 - case % 2)))
    )
    scores = score(tmp_path, "case," + HEADER + rows)
    assert not scores.independence_assumed
    assert (scores.n, scores.n_cases) == (100, 20)
    low, high = scores.rsr["window"].ci95
    assert high - low > 0.4  # twenty coins, not a hundred


def test_one_case_has_no_interval(tmp_path):
    rows = [(1, s, "cat", arm, s % 2) for s in range(6) for arm in ("all_steps", "window")]
    scores = score(tmp_path, triples(rows))
    assert scores.rsr["window"].value == 0.5
    for rate in (*scores.rsr.values(), scores.rrsr):
        assert rate.ci95 is None
        assert rate.note.startswith("one case only")


def test_seed_without_case_is_not_used_and_said(tmp_path):
    scores = score(tmp_path, "seed," + HEADER + "1,cat,window,0,3\n1,cat,window,0,3\n")
    assert scores.independence_assumed
    assert scores.rsr["window"].n == 6
    assert any("seed is not used" in note for note in scores.notes)


# comparisons


def test_ties_count_one_half(tmp_path):
    comparisons = "case,closer,count\na,window,2\na,tie,1\nb,all_steps,3\nb,tie,2\n"
    cr = score(tmp_path, COUNTS, comparisons=comparisons).cr
    assert cr.value == pytest.approx(3.5 / 8)
    assert (cr.n, cr.ties, cr.n_cases) == (8, 3, 2)
    assert not cr.independence_assumed
    assert cr.ci95[0] < cr.value < cr.ci95[1]


def test_closeness_among_what_both_removed(tmp_path):
    rows, comparisons = [], "case,seed,concept,closer,count\n"
    for case in range(8):
        failed = case < 6
        rows.append((case, 1, "cat", "all_steps", 0))
        rows.append((case, 1, "cat", "window", int(failed)))
        comparisons += f"{case},1,cat,{'window' if failed or case == 6 else 'all_steps'},1\n"
    scores = score(tmp_path, triples(rows), comparisons=comparisons)
    assert scores.cr.value == pytest.approx(7 / 8)
    assert scores.cr_both_removed.value == 0.5
    assert scores.cr_both_removed.n == 2


def test_comparisons_without_concepts_are_not_filtered_and_it_is_said(tmp_path):
    comparisons = "case,closer,count\na,window,2\n"
    scores = score(tmp_path, COUNTS, comparisons=comparisons, concepts="coco")
    assert scores.cr.n == 2
    assert any("do not name concepts" in note for note in scores.notes)
    named = "case,concept,closer,count\na,cat,window,2\na,tree,all_steps,5\n"
    assert score(tmp_path, COUNTS, comparisons=named, concepts="coco").cr.value == 1


# lists of concepts


def test_underscored_list_loses_two_word_classes_and_says_which(tmp_path):
    right, lost = (score(tmp_path, COUNTS, concepts=n) for n in ("coco", "coco-underscored"))
    assert (right.n, lost.n) == (21, 11)
    assert right.concepts.near_misses == {}
    assert lost.concepts.near_misses == {"potted plant": 10}
    assert lost.concepts.n_dropped == 10
    assert "'potted plant' 10" in as_text(lost)


def test_concepts_are_compared_letter_by_letter(tmp_path):
    text = HEADER + '"cat\n",window,0,1\nCat,window,0,1\n cat,window,0,1\ncat,window,1,1\n'
    scores = score(tmp_path, text, concepts="coco")
    assert scores.n == 1
    assert scores.rsr["window"].value == 0
    assert set(scores.concepts.near_misses) == {"cat\n", "Cat", " cat"}


def test_built_in_lists_have_eighty_classes():
    assert {len(set(names)) for names in BUILT_IN.values()} == {80}
    assert not any(" " in name for name in BUILT_IN["coco-underscored"])


def test_list_file_with_mark_blank_lines_and_any_line_ends(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbfcat\r\n\r\n potted plant \n", "list.txt")
    assert load_concepts(str(path)).concepts == {"cat", "potted plant"}


def test_lists_that_cannot_be_used(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean coco"):
        load_concepts("cocco")
    with pytest.raises(MissingError, match="folder"):
        load_concepts(str(tmp_path))
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        load_concepts(str(write(tmp_path, b"cat\n\xff\n", "l")))
    with pytest.raises(DataError, match="no concept"):
        load_concepts(str(write(tmp_path, "\n \n", "l")))


# reading


@pytest.mark.parametrize(
    "change",
    [
        lambda t: "\ufeff" + t,
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("\n", "\r"),
        lambda t: t.rstrip("\n"),
        lambda t: t.replace("\n", "\n\n"),
        lambda t: t.replace(HEADER, " concept,arm, present ,count\n"),
        lambda t: t.replace(",all_steps,", ", all_steps ,"),
    ],
)
def test_harmless_differences_change_nothing(tmp_path, change):
    plain = score(tmp_path, COUNTS)
    other = score(tmp_path, change(COUNTS))
    assert other.rsr == plain.rsr
    assert other.rrsr == plain.rrsr


def test_odd_concepts_are_just_concepts(tmp_path):
    text = HEADER + ',window,0,1\n"a, b",window,0,1\n"say ""x""",window,0,1\n'
    text += "ваза,window,0,1\n\x1b[31mred,window,1,1\n"
    scores = score(tmp_path, text)
    assert scores.n == 5
    text = HEADER + "\x1b[31m_CAT,window,0,1\n"
    listed = str(write(tmp_path, "\x1b[31m cat\n", "list.txt"))
    assert "\x1b" not in as_text(score(tmp_path, text, concepts=listed))


BAD_VERDICTS = [
    ("", "is empty"),
    (HEADER, "no row"),
    ("concept,arm,count\n", "line 1: no column present"),
    ("a;b\n", "separated by semicolons"),
    ("concept;arm;present;count\ncat;window;1;1\n", "separated by semicolons"),
    ("concept\tarm\tpresent\tcount\n", "separated by tabs"),
    ("concept,arm,arm,present,count\n", "column arm is there twice"),
    (HEADER + "cat,windw,0,1\n", "line 2: arm is 'windw'.*did you mean window"),
    (HEADER + "cat,window,2,1\n", "line 2: present is '2', not 0 or 1"),
    (HEADER + "cat,window,True,1\n", "present is 'True'"),
    (HEADER + "cat,window,,1\n", "present is ''"),
    (HEADER + "cat,window,0,1\ncat,window,0,-1\n", "line 3: count is '-1'"),
    (HEADER + "cat,window,0,1.5\n", "count is '1.5'"),
    (HEADER + "cat,window,0,1e3\n", "count is '1e3'"),
    (HEADER + "cat,window,0,1_0\n", "count is '1_0'"),
    (HEADER + "cat,window,0,٣\n", "count is"),
    (HEADER + "cat,window,0,nan\n", "count is 'nan'"),
    (HEADER + "cat,window,0,\n", "count is ''"),
    (HEADER + "cat,window,0,1000000001\n", "more than 1000000000"),
    (HEADER + "cat,window,0," + "9" * 5000 + "\n", "count is '999"),
    (HEADER + "cat,window,0\n", "line 2: 3 cells where the header has 4"),
    (HEADER + "wine, red,window,0,1\n", "5 cells"),
    (HEADER + '"a\nb",window,0,1\ncat,window\n', "line 4: 2 cells"),
    (HEADER + '"cat,window,0,1\n', "line 2: not valid CSV"),
    (HEADER + "x" * 120_000 + ",window,0,1\n", "line 2: a cell of more than"),
    (HEADER.encode() + b"caf\xe9,window,0,1\n", "line 2: not UTF-8"),
    (HEADER.encode("utf-16"), "not UTF-8"),
    (TRIPLES + "1,,cat,window,0,1\n", "seed is empty"),
    (TRIPLES + " ,1,cat,window,0,1\n", "case is empty"),
    (TRIPLES + "1,1,cat,window,0,2\n", "count 2 for one case"),
    (TRIPLES + "1,1,cat,window,0,1\n1,1,cat,window,0,1\n", "line 3: a second verdict.*line 2"),
    (TRIPLES + "1,1,cat,window,0,1\n1,1,cat,window,1,1\n", "line 3: a second verdict"),
]


@pytest.mark.parametrize(("text", "says"), BAD_VERDICTS)
def test_bad_verdicts_are_told_in_one_line_with_file_and_line(tmp_path, text, says):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=says) as caught:
        read_verdicts(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("closer,count\n", "no column case"),
        ("case,closer,count\n", "no row"),
        ("case,closer,count\n1,third,1\n", "closer is 'third', not window, all_steps or tie"),
        ("case,closer,count\n,window,1\n", "case is empty"),
        ("case,closer,count\n1,window,-2\n", "count is '-2'"),
        (
            "case,seed,concept,closer,count\n1,1,cat,tie,1\n1,1,cat,window,1\n",
            "line 3: a second comparison.*line 2",
        ),
        ("case,seed,concept,closer,count\n1,1,cat,tie,4\n", "count 4 for one case"),
    ],
)
def test_bad_comparisons_are_told_with_file_and_line(tmp_path, text, says):
    with pytest.raises(DataError, match=says):
        read_comparisons(write(tmp_path, text))


def test_rows_of_no_count_do_not_clash(tmp_path):
    text = TRIPLES + "1,1,cat,window,0,1\n1,1,cat,window,1,0\n"
    assert score(tmp_path, text).rsr["window"].value == 1


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(MissingError, match="no file"):
        read_verdicts(tmp_path / "x.csv")
    with pytest.raises(MissingError, match="folder"):
        read_comparisons(tmp_path)


CELLS = st.sampled_from(["cat", "window", "none", "0", "1", "-1", '"', "\r", "\n", "\x00", ""])
LINES = st.lists(st.lists(CELLS, min_size=4, max_size=4).map(",".join)).map("\n".join)


@given(st.one_of(st.binary(max_size=300), LINES.map(str.encode)))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "v.csv"
    path.write_bytes(HEADER.encode() + data)
    try:
        scores = score_verdicts(read_verdicts(path))
    except NegbenchError as error:
        message = str(error)
    else:
        message = ""
        json.dumps(scores.model_dump(mode="json"), allow_nan=False)
    assert "\n" not in message


def test_other_columns_are_noted(tmp_path):
    scores = score(tmp_path, "judge," + HEADER + "gpt,cat,window,0,1\n")
    assert any("not used: judge" in note for note in scores.notes)


# the command


def run(*arguments):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_prints_json(tmp_path):
    comparisons = write(tmp_path, "case,closer,count\na,window,2\nb,all_steps,1\n", "c.csv")
    verdicts = write(tmp_path, COUNTS)
    result = run(verdicts, "--comparisons", comparisons, "--concepts", "coco", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["n"] == 21
    assert found["rsr"]["all_steps"]["value"] == pytest.approx(9 / 21)
    assert found["rrsr"]["value"] == pytest.approx(5 / 9)
    assert found["cr"]["value"] == pytest.approx(2 / 3)
    for rate in (*found["rsr"].values(), found["rrsr"], found["cr"]):
        low, high = rate["ci95"]
        assert low <= rate["value"] <= high
    assert found["independence_assumed"] is True


def test_command_prints_a_table(tmp_path):
    result = run(write(tmp_path, COUNTS))
    assert result.exit_code == 0
    assert "42.86 [" in result.stdout
    assert "independent" in result.stdout


def test_command_raises_what_the_user_can_mend(tmp_path):
    result = run(tmp_path / "x.csv")
    assert isinstance(result.exception, MissingError)
