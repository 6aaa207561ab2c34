"""Discovered cases: what twins show and the prompt does not name, read by evaluate."""

from __future__ import annotations

import pytest

from negbench.discover.discover import discover, write_cases
from negbench.errors import ConfigError, DataError
from negbench.judges import Judge, Verdict
from negbench.plan import make_plan
from negbench.protocols.cases import read_prompts
from negbench.protocols.placebo import named_in
from negbench.store import ImageStore


class Lister(Judge):
    """Names what it sees by the first pixel."""

    def judge(self, questions):
        return [Verdict.of(float(question.concept == "moat")) for question in questions]

    def list_concepts(self, images):
        return [
            Verdict.missing("too dark") if pixels[0, 0, 0] % 8 == 0 else
            ("castles", "moat", "flag") if pixels[0, 0, 0] % 2 else ("moat",)
            for pixels in images
        ]  # fmt: skip


class Asked(Judge):
    """Lists nothing of its own accord."""

    def judge(self, questions):
        return [Verdict.of(float(question.concept == "moat")) for question in questions]


@pytest.fixture
def options(tmp_path):
    path = tmp_path / "castles.toml"
    path.write_text(
        'name = "castles"\nversion = 1\nprotocol = "removal"\nsummary = "s"\nreplicates = 4\n'
        'generator = "fake"\n[data]\nsource = "none"\ncase_set = "concepts-removal"\n'
        "[guidance]\nscale = 4.0\n[metrics.ssim]\n"
    )
    (tmp_path / "prompts.txt").write_text("a castle\na castle with a moat\na castle\na lake\n")
    return {
        "prompts": tmp_path / "prompts.txt",
        "benchmark": str(path),
        "generator_params": {"size": 16, "steps": 3},
        "cache": tmp_path / "cache",
    }


def named(judge):
    judge.name = "test"
    return judge


def test_what_the_judge_sees_and_the_prompt_does_not_name_becomes_a_case(options, tmp_path):
    found = discover(judge=named(Lister()), **options)
    assert (found.n_prompts, found.n_twins) == (3, 12)
    pairs = {(item.prompt, item.concept) for item in found.found}
    assert ("a castle", "moat") in pairs
    assert ("a lake", "moat") in pairs
    assert ("a castle with a moat", "moat") not in pairs
    assert ("a castle", "castles") not in pairs
    assert ("a lake", "castles") in pairs
    assert found.named["moat"] > 0
    assert all(1 <= item.seen <= item.twins <= 4 for item in found.found)
    assert write_cases(found, tmp_path / "cases.csv") == len(found.found)
    cases = read_prompts(tmp_path / "cases.csv")
    assert {(case.prompt, case.concept) for case in cases} == pairs
    # the twins are those of the evaluation that follows
    resolved = make_plan(
        benchmark=options["benchmark"], methods=["concept"], prompts=tmp_path / "cases.csv",
        generator_params=options["generator_params"], cache=options["cache"], out=tmp_path / "runs",
    )  # fmt: skip
    store = ImageStore(options["cache"])
    assert all(store.get(wanted.twin_key) for wanted in resolved.jobs[0].wanted)


def test_a_judge_that_only_answers_is_asked_for_each(options):
    found = discover(judge=named(Asked()), concepts=["moat", "flag"], **options)
    assert {(item.prompt, item.concept, item.seen) for item in found.found} == {
        ("a castle", "moat", 4), ("a lake", "moat", 4),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="--concepts"):
        discover(judge=named(Asked()), **options)


def test_rare_sights_can_be_left_out_and_nothing_found_is_said(options, tmp_path):
    whole = discover(judge=named(Lister()), **options)
    often = discover(judge=named(Lister()), at_least=3, **options)
    assert {(f.prompt, f.concept) for f in often.found} == {
        (f.prompt, f.concept) for f in whole.found if f.seen >= 3
    }
    nothing = discover(judge=named(Asked()), concepts=["flag"], **options)
    with pytest.raises(DataError, match="saw nothing"):
        write_cases(nothing, tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="no question of removal"):
        discover(judge=named(Lister()), **{**options, "benchmark": "miniature-quality"})


def test_named_is_by_words_and_their_inflections():
    assert named_in("castles", "an old castle")
    assert named_in("red nose", "a clown with a red nose")
    assert not named_in("red nose", "a red clown")
    assert not named_in("the", "the sea")
