"""What a method promises, tried on made-up cases."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from negbench.conformance.outcome import Outcome, require, run
from negbench.errors import NegbenchError
from negbench.guidance.binding import bind
from negbench.methods.base import Method, Pair
from negbench.methods.check import treat_checked
from negbench.params import build_config
from negbench.types import Case, Treatment, canonical_json, sha256_hex

CASES = (
    Case(id="plain", prompt="a professor in front of a blackboard", negative="blurry, glasses"),
    Case(id="bare", prompt="an old red car on a small street at night"),
    Case(id="concept", prompt="a street in the rain", concept="umbrella", tags=("noun",)),
    Case(id="twice", prompt="a professor in front of a blackboard", negative="hat"),
    Case(id="scripts", prompt="naïve café, 東京の夜 🌧", negative="très flou, ぼやけた"),
    Case(id="weights", prompt="(portrait:1.3) of a [cat], <lora:x:1> 8k", negative="(text:1.4)"),
    Case(id="long", prompt=", ".join(f"detail {i}" for i in range(300)), negative="lowres"),
    Case(id="blank", prompt=" ", negative=" "),
)
SEED = 11


class MadeUpTraining:
    """A few training pairs, for methods that learn from the benchmark's data set."""

    def pairs(self) -> Sequence[Pair]:
        """Pairs of prompts and negative prompts, always the same."""
        things = ("house", "cat", "car", "tree", "portrait", "street", "castle", "lake")
        flaws = ("blurry", "lowres", "watermark", "text", "bad hands", "cropped")
        return [
            Pair(
                id=f"{thing}-{i}",
                prompt=f"a {thing} at noon, view {i}",
                negative=", ".join(flaws[(i + k) % len(flaws)] for k in range(3)),
            )
            for i in range(4)
            for thing in things
        ]

    def digest(self) -> str:
        """sha256 over the pairs."""
        return sha256_hex(canonical_json([list(vars(pair).values()) for pair in self.pairs()]))


def check_method(
    cls: type[Method], *, name: str, params: Mapping[str, Any] | None = None
) -> list[Outcome]:
    """Try a method's promises.

    Args:
        cls: the method's class.
        name: what messages call it.
        params: parameters for a method whose defaults are not enough.

    Returns:
        One outcome a check; a method that cannot answer at all has two.

    Raises:
        NegbenchError: the method refuses to be built here, for example for lack of weights.
    """

    def build() -> Method:
        config = build_config(cls.Config, dict(params or {}), owner=f"method {name}")
        method = cls(config, training=MadeUpTraining() if cls.uses_training else None)
        method.check()
        return method

    build()
    outcomes = [run("is built", partial(_is_built, build, name))]
    answers = run("answers", partial(_answers, build, name))
    outcomes.append(answers)
    if not (outcomes[0].passed and answers.passed):
        return outcomes
    return [
        *outcomes,
        run("no cases", partial(_no_cases, build, name)),
        run("seed", partial(_seed, build, name)),
        run("order", partial(_order, build, name)),
        run("subset", partial(_subset, build, name)),
    ]


def _treat(method: Method, name: str, cases: Sequence[Case], seed: int = SEED) -> list[Treatment]:
    return treat_checked(method, name, cases, seed=seed)


def _is_built(build: Any, name: str) -> str:
    first, second = build(), build()
    ref = first.ref(name)
    require(ref.digest() == second.ref(name).digest(), "its identity changes when built again")
    dumped = first.config.model_dump(mode="json")
    again = build_config(type(first).Config, dumped, owner=f"method {name}")
    require(again == first.config, "parameters change when they are written and read")
    return f"version {ref.version}, parameters {', '.join(dumped) or 'none'}"


def _answers(build: Any, name: str) -> str:
    treatments = _treat(build(), name, CASES)
    longest = 0
    for case, treatment in zip(CASES, treatments, strict=True):
        treatment.digest()
        longest = max([longest, *(len(item.text) for item in treatment.negatives)])
        if treatment.guidance is not None:
            try:
                bind(treatment.guidance, treatment.negatives)
            except NegbenchError as error:
                require(False, f"case {case.id!r}: its guidance is refused: {error}")
    treated = sum(bool(treatment.negative_text()) for treatment in treatments)
    return (
        f"one treatment a case, {treated} of {len(CASES)} with a negative, the longest text "
        f"{longest} characters"
    )


def _no_cases(build: Any, name: str) -> str:
    require(_treat(build(), name, ()) == [], "answers something where there is no case")
    return "no case, no treatment"


def _seed(build: Any, name: str) -> str:
    method = build()
    first = _treat(method, name, CASES)
    random.seed(1)
    _same(first, _treat(method, name, CASES), "the same seed gives another answer the second time")
    random.seed(2)
    _same(first, _treat(build(), name, CASES), "the same seed gives another answer when built anew")
    other = _treat(method, name, CASES, SEED + 1)
    _same(first, _treat(method, name, CASES), "an answer with another seed in between changes it")
    moved = sum(a != b for a, b in zip(first, other, strict=True))
    return f"equal seeds agree; another seed changes {moved} of {len(CASES)} answers"


def _order(build: Any, name: str) -> str:
    method = build()
    forward = _treat(method, name, CASES)
    backward = _treat(method, name, CASES[::-1])[::-1]
    _same(forward, backward, "the order of the cases changes the answer")
    return "the order of the cases changes nothing"


def _subset(build: Any, name: str) -> str:
    method = build()
    whole = _treat(method, name, CASES)
    half = _treat(method, name, CASES[::2])
    _same(whole[::2], half, "leaving out other cases changes the answer", CASES[::2])
    alone = [_treat(build(), name, [case])[0] for case in CASES]
    _same(whole, alone, "a case asked alone has another answer")
    return "no answer depends on the other cases"


def _same(
    a: Sequence[Treatment],
    b: Sequence[Treatment],
    message: str,
    cases: Sequence[Case] = CASES,
) -> None:
    for case, one, other in zip(cases, a, b, strict=True):
        require(one == other, f"{message}: case {case.id!r}, {_show(one)} and {_show(other)}")


def _show(treatment: Treatment) -> str:
    text = treatment.negative_text()
    return repr(text if len(text) <= 60 else text[:59] + "…")
