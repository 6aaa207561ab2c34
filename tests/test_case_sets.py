"""The shipped case sets: what their authors promise, and that their cards say what is in them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from negbench.errors import DataError, UnknownNameError
from negbench.protocols import benchmark_names, load_benchmark
from negbench.protocols.case_cards import MADE, case_card
from negbench.protocols.case_sets import (
    CATEGORIES,
    case_set_names,
    load_case_set,
    read_rows,
    tagged,
    tags_of_row,
)
from negbench.protocols.cases import load_cases, read_prompts
from negbench.protocols.placebo import SMALL, choose_placebos, stem

CARDS = Path(__file__).resolve().parent.parent / "data_cards"


def words(text):
    found = re.findall(r"[^\W_]+", text.casefold())
    return {stem(word) for word in found if word not in SMALL}


@pytest.mark.parametrize("name", case_set_names())
def test_every_set_has_its_card_and_it_is_up_to_date(name):
    assert name in MADE
    assert (CARDS / f"{name}.md").read_text(encoding="utf-8") == case_card(name), (
        "run benchmarks/write_cards.py: the case set's card is not up to date"
    )


@pytest.mark.parametrize("name", case_set_names())
def test_every_case_is_whole(name):
    cases = load_case_set(name)
    assert len({case.id for case in cases}) == len(cases)
    placebos = choose_placebos(cases, cases)
    category_of = {case.concept: tagged(case, "category") for case in cases}
    for case in cases:
        assert tagged(case, "category")[0] in CATEGORIES
        assert tagged(case, "entangled")[0] in ("yes", "no")
        assert not words(case.concept) & words(case.prompt), case.id
        assert category_of[placebos[case.id]] == tagged(case, "category"), case.id


def test_the_concepts_for_real_models_are_many_and_each_its_own():
    rows = read_rows("concepts-removal")
    counts = Counter(row["category"] for row in rows)
    assert counts["noun_object"] >= 120
    assert sum(counts.values()) - counts["noun_object"] >= 60
    assert set(counts) == set(CATEGORIES)
    assert len({row["concept"].casefold() for row in rows}) == len(rows)
    assert len({row["why"] for row in rows}) == len(rows)
    for row in rows:
        assert 3 <= len(row["why"].split()) <= 25, row
        assert not row["why"].endswith("."), row
        assert not words(row["concept"]) & words(row["why"]), row
        assert len(row["related"].split(";")) >= 1, row
        assert all(cell == cell.strip() and cell.isprintable() for cell in row.values()), row
        assert len(row["prompt"].split()) >= 2, row


def test_benchmarks_take_their_cases_in_a_fixed_order():
    for name in ("miniature-removal", "concepts-removal"):
        bench = load_benchmark(name)
        assert name in benchmark_names()
        cases, _ = load_cases(bench)
        assert {case.id for case in cases} == {case.id for case in load_case_set(name)}
        few, _ = load_cases(bench, limit=5)
        assert few == cases[:5]
        # the first cases are of different prompts, so that a small sample is a wide one
        assert len({case.prompt for case in cases[:10]}) >= 6


def test_a_file_of_ones_own_may_say_what_the_shipped_sets_say(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "prompt,concept,category,entangled,related\n"
        "a barn,hay,noun_object,no,straw; grass\na wall,old,attribute,,\n"
    )
    hay, old = read_prompts(path)
    assert hay.tags == (
        "category:noun_object", "entangled:no", "related:straw", "related:grass"
    )  # fmt: skip
    assert old.tags == ("category:attribute",)
    with pytest.raises(DataError, match="did you mean noun_object"):
        tags_of_row({"category": "noun-object"})
    with pytest.raises(UnknownNameError, match="did you mean concepts-removal"):
        load_case_set("concept-removal")
