"""Methods that need no network: what they say, and the contract of every method."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

import pytest
from pydantic import ValidationError

from negbench.errors import (
    ConfigError,
    DataError,
    MissingError,
    NegbenchError,
    PluginError,
    UnknownNameError,
)
from negbench.methods.base import Method, Pair
from negbench.methods.check import treat_checked
from negbench.methods.human import Human
from negbench.methods.nearest import Nearest
from negbench.methods.none import NoNegative
from negbench.methods.placebo import Placebo
from negbench.methods.popular import Popular
from negbench.methods.static import Static, universal_lists
from negbench.methods.texts import MAX_WRITTEN, tidied
from negbench.params import build_config
from negbench.types import MAX_TEXT, Case, Negative, Treatment, canonical_json, sha256_hex


@dataclass
class Pairs:
    """Training pairs in memory."""

    rows: list[Pair]

    def pairs(self):
        return self.rows

    def digest(self):
        return sha256_hex(canonical_json([[p.id, p.prompt, p.negative] for p in self.rows]))


TRAINING = Pairs(
    [
        Pair("t1", "a house at night", "blurry, noisy"),
        Pair("t2", "a house by day", "blurry, watermark"),
        Pair("t3", "a red car", "Rusty, (blurry:1.3)"),
        Pair("t4", "a cat, sketch", "dark, blurry, blurry"),
        Pair("t5", "a dog", "cropped, noisy"),
        Pair("t6", "a boat", "   "),
    ]
)
CASES = [
    Case(id="c1", prompt="an old house at night", negative="cracked"),
    Case(id="c2", prompt="my red car"),
    Case(id="c3", prompt="xylophone", negative="  "),
]


def texts(method, cases=CASES, seed=0, name="it"):
    method.check()
    return [t.negative_text() for t in treat_checked(method, name, cases, seed=seed)]


def test_none_and_human():
    assert texts(NoNegative()) == ["", "", ""]
    assert texts(Human()) == ["cracked", "", ""]
    assert Human().notes(CASES) == ["human: 2 of 3 cases have no negative prompt of their own"]
    assert Human().notes(CASES[:1]) == []
    assert treat_checked(Human(), "human", CASES, seed=0)[2].negatives == ()


def test_static_lists_and_text():
    lists = universal_lists()
    assert texts(Static()) == [lists["common"]["text"]] * 3
    named = Static(build_config(Static.Config, {"list": "nag"}, owner="method static"))
    assert texts(named) == ["Low resolution, blurry"] * 3
    own = Static(build_config(Static.Config, {"text": "ugly"}, owner="method static"))
    assert texts(own) == ["ugly"] * 3
    assert Static().ref("static").params["list"] == "common"
    assert Static().ref("static") == Static(Static.Config(list="common")).ref("static")
    assert named.ref("static") != own.ref("static")
    with pytest.raises(UnknownNameError, match="no list 'nsaa'; did you mean nasa"):
        Static(Static.Config(list="nsaa")).check()
    with pytest.raises(ConfigError, match="not both"):
        build_config(Static.Config, {"list": "nag", "text": "x"}, owner="method static")
    assert texts(Static(Static.Config(text=""))) == ["", "", ""]


def test_universal_lists_are_sound():
    for name, entry in universal_lists().items():
        assert set(entry) <= {"text", "about", "source"}, name
        tags = [tag.strip() for tag in entry["text"].split(",")]
        assert len(set(tags)) == len(tags), name
    assert "2412.02687" in universal_lists()["nasa"]["source"]
    assert "2505.21179" in universal_lists()["nag"]["source"]


def test_miniature_list_names_every_defect():
    from negbench.miniature.world import DEFECTS

    words = {tag.strip() for tag in universal_lists()["miniature"]["text"].split(",")}
    assert words == set(DEFECTS)


def test_popular_counts_each_tag_once_a_text_and_breaks_ties_by_alphabet():
    method = Popular(Popular.Config(k=3), training=TRAINING)
    # blurry 4, noisy 2, then cropped, dark, rusty, watermark 1 each
    assert method.tags() == ["blurry", "noisy", "cropped"]
    assert texts(method) == ["blurry, noisy, cropped"] * 3
    assert Popular(Popular.Config(k=100), training=TRAINING).tags()[-1] == "watermark"
    with pytest.raises(ValidationError):
        Popular.Config(k=0)


def test_placebo_is_anothers_and_depends_on_seed_and_case_alone():
    method = Placebo(training=TRAINING)
    cases = [Case(id=f"c{i}", prompt=f"p{i}", negative="noisy, blurry") for i in range(400)]
    drawn = texts(method, cases)
    # the case's own tags in another order are its own text too
    assert "blurry, noisy" not in drawn
    counts = Counter(drawn)
    assert set(counts) == {p.negative for p in TRAINING.rows if p.negative.strip()} - {
        "blurry, noisy"
    }
    assert all(60 < n < 140 for n in counts.values())
    assert texts(method, cases[7:9]) == drawn[7:9]
    assert texts(method, cases, seed=1) != drawn
    shuffled = Placebo(training=Pairs(TRAINING.rows[::-1]))
    assert texts(shuffled, cases) == drawn
    golden = texts(method, cases)[:4]
    assert golden == GOLDEN_PLACEBO


GOLDEN_PLACEBO = [
    "Rusty, (blurry:1.3)",
    "dark, blurry, blurry",
    "blurry, watermark",
    "cropped, noisy",
]


def test_placebo_without_another_text_says_so():
    lone = Placebo(training=Pairs([Pair("t", "a cat", "blurry")]))
    with pytest.raises(DataError, match="no other negative prompt for case 'c'"):
        texts(lone, [Case(id="c", prompt="a dog", negative="Blurry")])


def test_nearest_equals_a_plain_computation():
    method = Nearest(training=TRAINING)
    assert texts(method) == ["blurry, noisy", "Rusty, (blurry:1.3)", ""]
    assert method.notes(CASES) == ["nearest: 1 of 3 prompts share no word with a training prompt"]
    rows = [p for p in TRAINING.rows if p.negative.strip()]
    count = {w: sum(w in re.findall(r"\w+", p.prompt) for p in rows) for p in rows for w in
             re.findall(r"\w+", p.prompt)}  # fmt: skip

    def vector(text):
        words = [w for w in re.findall(r"\w+", text.lower()) if w in count]
        v = {w: words.count(w) * (math.log((1 + len(rows)) / (1 + count[w])) + 1) for w in words}
        length = math.sqrt(sum(x * x for x in v.values()))
        return {w: x / length for w, x in v.items()}

    cases = [
        Case(id=str(i), prompt=p)
        for i, p in enumerate(
            ["a dog by day", "night night cat", "red house", "sketch of a boat", "a A a", "car day"]
        )
    ]
    for case, found in zip(cases, texts(method, cases), strict=True):
        mine = vector(case.prompt)
        scores = [
            (-round(sum(x * vector(p.prompt).get(w, 0) for w, x in mine.items()), 9), p.id)
            for p in rows
        ]
        assert found == next(p.negative for p in rows if p.id == min(scores)[1])


def test_nearest_breaks_ties_by_id_whatever_the_order():
    rows = [Pair(f"t{i}", "a cat", f"tag{i}") for i in (3, 1, 2)]
    assert texts(Nearest(training=Pairs(rows)), [Case(id="c", prompt="cat")]) == ["tag1"]


@pytest.mark.parametrize("cls", [Placebo, Popular, Nearest])
def test_methods_that_learn_refuse_a_benchmark_without_training(cls):
    for training in (None, Pairs([]), Pairs([Pair("a", "b", " ")])):
        with pytest.raises(MissingError, match="learns from a training split"):
            cls(training=training).check()
    a = cls(training=TRAINING).ref("x")
    assert a.params["sha256:training"] == TRAINING.digest()
    assert a != cls(training=Pairs(TRAINING.rows[:3])).ref("x")


@pytest.mark.parametrize("cls", [NoNegative, Human, Static, Placebo, Popular, Nearest])
def test_answers_do_not_depend_on_the_other_cases(cls):
    method = cls(training=TRAINING)
    cases = [Case(id=f"c{i}", prompt=f"a {w}", negative=w) for i, w in
             enumerate(["cat", "dog", "house", "boat", "car"])]  # fmt: skip
    together = texts(method, cases, seed=3)
    assert together[::-1] == texts(method, cases[::-1], seed=3)
    assert together == [texts(method, [case], seed=3)[0] for case in cases]
    assert [t.prompt for t in treat_checked(method, "it", cases, seed=3)] == [
        c.prompt for c in cases
    ]
    assert texts(method, []) == []


def test_tidied_keeps_each_tag_once_and_bounds_the_length():
    assert (
        tidied("Blurry,  blurry , low\tquality,, .,\nblurry, Low Quality") == "Blurry, low quality"
    )
    assert tidied("") == ""
    long = tidied(", ".join(f"tag{i}" for i in range(1000)))
    assert len(long) <= MAX_WRITTEN
    assert long.endswith(tuple("0123456789"))
    assert len(tidied("x" * 5000)) == MAX_WRITTEN


# --- the contract, whoever wrote the method


def method_that(answer):
    class Made(Method):
        def treat(self, cases, *, seed):
            return answer(cases)

    return Made()


def test_strings_are_short_for_treatments():
    treated = treat_checked(
        method_that(lambda cases: ["blurry", " ", Treatment(prompt="other")]), "x", CASES, seed=0
    )
    assert treated[0] == Treatment(prompt=CASES[0].prompt, negatives=(Negative(text="blurry"),))
    assert treated[1].negatives == ()
    assert treated[2].prompt == "other"
    assert len(treat_checked(method_that(lambda cases: ("a",) * 3), "x", CASES, seed=0)) == 3


def wrong(*negatives, prompt="p"):
    return Treatment.model_construct(prompt=prompt, negatives=negatives, guidance=None)


def boom(cases):
    return cases[0].prompt.no_such_attribute


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (boom, r"method bad failed at .*test_methods\.py:\d+: AttributeError: 'str' object"),
        (lambda c: c[9], "IndexError: list index out of range"),
        (lambda c: exec("raise SystemExit(3)"), "SystemExit: 3"),
        (lambda c: exec("raise ValueError('two\\nlines\\x1b[31m')"), "two lines"),
        (lambda c: None, r"returned nothing \(None\), not a list"),
        (lambda c: "blurry", "type str, not a list"),
        (lambda c: (x for x in ["a", "b", "c"]), "type generator, not a list"),
        (lambda c: ["a"], "returned 1 treatments for 3 cases"),
        (lambda c: ["a"] * 4, "returned 4 treatments for 3 cases"),
        (lambda c: ["a", None, "b"], r"case 'c2': returned nothing \(None\)"),
        (lambda c: ["a", "b", 7], "case 'c3': returned a value of type int"),
        (lambda c: ["a", "b" * (MAX_TEXT + 1), "c"], f"has {MAX_TEXT + 1} characters; at most"),
        (lambda c: ["\ud800"] * 3, "lone surrogate"),
        (lambda c: [wrong(Negative.model_construct(text=5))] * 3, "type int, not a string"),
        (lambda c: [wrong("blurry")] * 3, "a negative prompt is nothing"),
        (lambda c: [wrong(Negative.model_construct(text="x" * 30_000))] * 3, "30000 characters"),
        (lambda c: [wrong(prompt="x" * 30_000)] * 3, "the prompt has 30000 characters"),
        (lambda c: [wrong(prompt=5)] * 3, "not a valid Treatment"),
        (lambda c: [wrong(*[Negative(text="a")] * 65)] * 3, "65 negatives; at most 64"),
        (
            lambda c: [wrong(Negative.model_construct(text="a", weight=math.nan))] * 3,
            "not a valid Treatment",
        ),
    ],
)
def test_broken_contracts_are_told_in_one_line(answer, said):
    with pytest.raises(PluginError, match=said) as failure:
        treat_checked(method_that(answer), "bad", CASES, seed=0)
    assert "\n" not in str(failure.value)
    assert "\x1b" not in str(failure.value)
    assert "bad" in str(failure.value)


def test_a_methods_own_refusal_is_passed_on():
    def refuse(cases):
        raise ConfigError("method x: choose another k")

    with pytest.raises(NegbenchError, match=r"^method x: choose another k$"):
        treat_checked(method_that(refuse), "x", CASES, seed=0)


def test_a_method_cannot_change_the_cases():
    def clear(cases):
        cases.clear()
        return ["a", "b", "c"]

    assert len(treat_checked(method_that(clear), "x", CASES, seed=0)) == 3
    assert len(CASES) == 3
