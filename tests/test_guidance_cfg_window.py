"""The rules cfg and window against their formulas computed apart, in numpy and double precision."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from negbench.errors import ConfigError
from negbench.guidance.base import EMPTY, POSITIVE, Step, negative
from negbench.guidance.binding import bind
from negbench.guidance.cfg import Cfg
from negbench.types import Guidance, Negative


def predictions(count=3, rows=2, seed=0):
    noise = np.random.default_rng(seed)
    branches = [POSITIVE, EMPTY, *(negative(i) for i in range(count))]
    return {
        branch: torch.from_numpy(noise.normal(size=(rows, 4, 5, 6)).astype(np.float32))
        for branch in branches
    }


def step(index, total=31):
    return Step(index=index, total=total, timestep=0.0, sigma=1.0)


def combine(rule, index=0, total=31, seed=0):
    at = step(index, total)
    full = predictions(seed=seed)
    needed = {branch: full[branch] for branch in rule.needs(at)}
    guided, state = rule.combine(needed, torch.zeros(2, 4, 5, 6), at, None)
    assert state is None
    exact = {branch: tensor.double().numpy() for branch, tensor in full.items()}
    return guided.double().numpy(), exact


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 4.0, 7.5])
@pytest.mark.parametrize("weights", [(), (1.0,), (0.5,), (1.0, -0.25), (2.0, 1.0, 0.5)])
def test_cfg_is_its_formula(scale, weights):
    guided, exact = combine(Cfg(scale=scale, weights=weights))
    away = exact[EMPTY] + sum(
        weight * (exact[negative(i)] - exact[EMPTY]) for i, weight in enumerate(weights)
    )
    expected = (1 - scale) * away + scale * exact[POSITIVE]
    np.testing.assert_allclose(guided, expected, rtol=1e-4, atol=1e-4)


def test_only_what_is_needed_is_predicted():
    at = step(0)
    assert Cfg(scale=1.0, weights=(1.0,)).needs(at) == (POSITIVE,)
    assert Cfg(scale=0.0, weights=(1.0,)).needs(at) == (negative(0),)
    assert Cfg(scale=5.0).needs(at) == (EMPTY, POSITIVE)
    assert Cfg(scale=5.0, weights=(1.0,)).needs(at) == (negative(0), POSITIVE)
    assert Cfg(scale=5.0, weights=(0.5,)).needs(at) == (EMPTY, negative(0), POSITIVE)


def test_negatives_as_plain_guidance_takes_them():
    plain = [Negative(text="fog"), Negative(text=" "), Negative(text="snow")]
    assert Cfg.read(plain) == (Negative(text="fog, snow"),)
    assert Cfg.read([Negative(text="fog", weight=0), Negative(text="")]) == ()
    weighted = (Negative(text="fog", weight=2), Negative(text="snow"))
    assert Cfg.read(weighted) == weighted


def window(scale=5.0, negatives=("tree",), **params):
    guidance = Guidance(kind="window", scale=scale, params=params)
    rule, taken = bind(guidance, [Negative(text=text) for text in negatives])
    assert len(taken) == min(1, len(negatives))
    return rule


def test_window_counts_model_calls_half_open():
    rule = window(start=5, stop=16)
    inside = [i for i in range(31) if negative(0) in rule.needs(step(i))]
    assert inside == list(range(5, 16))
    assert rule.count(31) == 62
    for index in range(31):
        guided, exact = combine(rule, index)
        base = exact[negative(0)] if 5 <= index < 16 else exact[EMPTY]
        np.testing.assert_allclose(
            guided, base + 5.0 * (exact[POSITIVE] - base), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("total", [1, 7, 25, 30, 31, 50])
def test_fractions_part_the_schedule_without_gaps(total):
    cuts = [0, 0.1, 0.2, 1 / 3, 0.5, 0.7, 0.9, 1]
    calls = []
    for start, stop in itertools.pairwise(cuts):
        calls += window(start=start, stop=stop, unit="fraction").calls(total)
    assert calls == list(range(total))
    assert list(window(start=0.1, unit="fraction").calls(30)) == list(range(3, 30))


def test_outside_its_window_the_empty_prompt_guides_never_the_prompt_alone():
    rule = window(start=2, stop=3)
    assert rule.needs(step(0)) == (EMPTY, POSITIVE)
    assert window(scale=1.0, start=2, stop=3).needs(step(2)) == (POSITIVE,)
    assert window(scale=0.0, start=2, stop=3).needs(step(0)) == (EMPTY,)


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"start": 1.5}, "unit=fraction"),
        ({"start": 3, "stop": 2}, "stop must not lie before start"),
        ({"start": 0.5, "stop": 1.5, "unit": "fraction"}, "between 0 and 1"),
        ({"start": -1}, "start"),
        ({"start": float("inf")}, "start"),
        ({"start": "soon"}, "start"),
    ],
)
def test_windows_that_make_no_sense(params, word):
    with pytest.raises((ConfigError, ValueError), match=word):
        window(**params)


def test_windows_beyond_the_schedule_are_refused():
    window(start=30).check(family="sd", space="epsilon", total=31)
    window(start=40, stop=40).check(family="sd", space="epsilon", total=31)
    with pytest.raises(ConfigError, match="after the last of 31 model calls"):
        window(start=31).check(family="sd", space="v_prediction", total=31)


@pytest.mark.parametrize("kind", ["cfg", "window"])
def test_neutral_settings(kind):
    from negbench.guidance import rules

    for neutral in rules.get(kind).neutral:
        scale = 5.0 if neutral.scale is None else neutral.scale
        guidance = Guidance(kind=kind, scale=scale, params=dict(neutral.params))
        rule, _ = bind(guidance, [Negative(text="tree")])
        for index in range(5):
            guided, exact = combine(rule, index, total=5, seed=index)
            base = {
                "positive": exact[POSITIVE],
                "empty_negative": exact[EMPTY],
                "cfg": exact[negative(0)],
            }[neutral.equals]
            expected = base + scale * (exact[POSITIVE] - base)
            np.testing.assert_allclose(guided, expected, rtol=1e-4, atol=1e-4)


def test_rows_do_not_depend_on_their_mates():
    rule = Cfg(scale=7.5, weights=(1.0, 0.5))
    both = predictions()
    alone = {branch: tensor[:1] for branch, tensor in both.items()}
    x = torch.zeros(2, 4, 5, 6)
    whole, _ = rule.combine(both, x, step(0), None)
    one, _ = rule.combine(alone, x[:1], step(0), None)
    assert torch.equal(whole[:1], one)
