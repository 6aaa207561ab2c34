"""Canonical bytes, digests and seeds: golden values here are joined by new ones, never edited."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from negbench.types import (
    Case,
    Guidance,
    ImageRequest,
    Negative,
    Ref,
    Score,
    Treatment,
    seed_of,
)

REQUEST = ImageRequest(
    generator=Ref(name="x", params={"steps": 25, "weights": "ab"}),
    treatment=Treatment(
        prompt="a castle",
        negatives=(Negative(text="blurry"),),
        guidance=Guidance(kind="window", scale=4.0, params={"start": 5, "stop": 15}),
    ),
    seed=7,
)


def test_golden_request_digest_v1():
    assert REQUEST.key() == "594b4cc3a9441d81ff018ef29f1d259c690eb85e927b3cc1bcdcaebf9c234f11"


def test_golden_seeds_v1():
    assert seed_of("miniature-quality@1", "a castle", 0) == 1096695641
    assert seed_of("miniature-quality@1", "a castle", 1) == 110462769


def test_digest_is_sha256_of_sorted_compact_json():
    expected = json.dumps(
        REQUEST.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert hashlib.sha256(expected.encode()).hexdigest() == REQUEST.digest()


def test_integer_and_float_scale_are_one_identity():
    assert Guidance(scale=7).digest() == Guidance(scale=7.0).digest()


def test_composed_and_decomposed_text_are_one_identity():
    one, two = Treatment(prompt="caf\u00e9"), Treatment(prompt="cafe\u0301")
    assert one.digest() == two.digest()
    assert two.prompt == "caf\u00e9"
    assert seed_of("b@1", "caf\u00e9", 0) == seed_of("b@1", "cafe\u0301", 0)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_no_nan_or_infinity(scale):
    with pytest.raises(ValidationError):
        Guidance(scale=scale)


def test_unknown_field_is_refused():
    with pytest.raises(ValidationError):
        Case(id="a", prompt="b", color="red")


def test_lone_surrogate_is_refused():
    with pytest.raises(ValidationError, match="surrogate"):
        Treatment(prompt="\ud800")


def test_seed_outside_32_bits_is_refused():
    with pytest.raises(ValidationError):
        REQUEST.model_copy().model_validate({**REQUEST.model_dump(), "seed": 2**32})


def test_request_needs_resolved_guidance():
    with pytest.raises(ValidationError, match="resolved"):
        ImageRequest(generator=REQUEST.generator, treatment=Treatment(prompt="a"), seed=0)


def test_types_are_frozen():
    with pytest.raises(ValidationError):
        REQUEST.seed = 8


def test_score_is_a_number_or_a_reason():
    assert Score.of(0.5).value == 0.5
    assert Score.of(float("nan")).unscored == "not finite: nan"
    for bad in ({}, {"value": 1.0, "unscored": "x"}, {"value": float("inf")}):
        with pytest.raises(ValidationError):
            Score(**bad)


def test_negative_text_leaves_out_blanks():
    treatment = Treatment(
        prompt="a", negatives=(Negative(text="x"), Negative(text=" "), Negative(text="y"))
    )
    assert treatment.negative_text() == "x, y"


@given(st.text(max_size=50), st.integers(0, 1000))
def test_seeds_are_32_bit_and_stable(prompt, replicate):
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return
    seed = seed_of("b@1", prompt, replicate)
    assert 0 <= seed < 2**32
    assert seed == seed_of("b@1", prompt, replicate)


def test_seeds_differ_by_benchmark_prompt_and_replicate():
    seeds = {seed_of(b, p, r) for b in ("a@1", "a@2") for p in ("x", "y") for r in range(50)}
    assert len(seeds) == 200
