"""Guidance rules against plain loops over samples and elements, written apart from them."""

from __future__ import annotations

import ast
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from negbench.errors import ConfigError, UnknownNameError
from negbench.guidance import rules
from negbench.guidance.base import EMPTY, POSITIVE, Step, negative
from negbench.guidance.binding import bind
from negbench.types import Guidance, Negative

SHAPE = (3, 4, 4, 4)
SPACES = ["epsilon", "v_prediction", "sample", "flow"]
OUTPUT_RULES = ["composable_not", "perp_neg", "sld", "ccfg"]


def make(kind, *weights, scale=4.0, **params):
    texts = [Negative(text=f"thing {i}", weight=w) for i, w in enumerate(weights)]
    return bind(Guidance(kind=kind, scale=scale, params=params), texts)[0]


def noise(seed, shape=SHAPE, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(shape, generator=generator)


def predictions(seed=0, negatives=2, shape=SHAPE, spread=0.1):
    base = noise(seed, shape)
    made = {EMPTY: base, POSITIVE: base + noise(seed + 1, shape, spread)}
    for i in range(negatives):
        made[negative(i)] = base + noise(seed + 2 + i, shape, spread)
    return made


def rows(made, chosen):
    return {branch: tensor[chosen] for branch, tensor in made.items()}


def step(index=20, total=50, sigma=1.3, space="epsilon"):
    return Step(index=index, total=total, timestep=500.0, sigma=sigma, space=space)


def flat(made):
    """Branch -> list of samples, each a list of Python floats."""
    return {key: [row.flatten().double().tolist() for row in value] for key, value in made.items()}


def to_tensor(samples):
    return torch.tensor(samples, dtype=torch.float64).view(SHAPE)


def close(got, expected, tolerance=1e-5):
    worst = (got.double() - expected.double()).abs().max().item()
    assert worst <= tolerance * max(1.0, expected.abs().max().item()), worst


# Independent computations ---------------------------------------------------------------------


def slow_composable(made, scale, weights):
    p = flat(made)
    return to_tensor(
        [
            [
                u
                + scale * (c - u)
                - sum(scale * w * (p[negative(i)][b][k] - u) for i, w in enumerate(weights))
                for k, (u, c) in enumerate(zip(p[EMPTY][b], p[POSITIVE][b], strict=True))
            ]
            for b in range(SHAPE[0])
        ]
    )


def slow_perp(made, scale, weights):
    p = flat(made)
    out = []
    for b in range(SHAPE[0]):
        u = np.array(p[EMPTY][b])
        d = np.array(p[POSITIVE][b]) - u
        total = d.copy()
        for i, w in enumerate(weights):
            di = np.array(p[negative(i)][b]) - u
            perpendicular = di - (np.dot(di, d) / np.dot(d, d)) * d
            assert abs(np.dot(perpendicular, d)) < 1e-9
            total -= w * perpendicular
        out.append(u + scale * total)
    return to_tensor(np.array(out).tolist())


def slow_ccfg(made, scale, weights, tau, *, plain=False):
    p = flat(made)
    out = []
    for b in range(SHAPE[0]):
        u = np.array(p[EMPTY][b])
        d = np.array(p[POSITIVE][b]) - u
        gate = 1.0 if plain else 2 / (1 + math.exp(-tau * float((d**2).sum())))
        total = gate * d
        for i, w in enumerate(weights):
            di = np.array(p[negative(i)][b]) - u
            r = math.exp(-tau * float((di**2).sum()))
            total -= w * 2 * r / (1 + r) * di
        out.append(u + scale * total)
    return to_tensor(np.array(out).tolist())


def slow_sld(calls, scale, weights, *, warmup, strength, threshold, momentum_scale, momentum_beta):
    """One list of predictions a model call, from call 0; the outputs of all calls."""
    outputs = []
    size = math.prod(SHAPE[1:])
    momentum = [[0.0] * size for _ in range(SHAPE[0])]
    for index, made in enumerate(calls):
        p = flat(made)
        result = []
        for b in range(SHAPE[0]):
            line = []
            for k in range(size):
                u, c = p[EMPTY][b][k], p[POSITIVE][b][k]
                g = momentum_scale * momentum[b][k]
                for i, w in enumerate(weights):
                    n = p[negative(i)][b][k]
                    if c - n < threshold:
                        g += w * min(1.0, strength * abs(c - n)) * (n - u)
                momentum[b][k] = momentum_beta * momentum[b][k] + (1 - momentum_beta) * g
                line.append(u + scale * (c - u - (g if index >= warmup else 0.0)))
            result.append(line)
        outputs.append(to_tensor(result))
    return outputs


# Formulas -------------------------------------------------------------------------------------


def test_composable_not_is_the_signed_sum():
    made = predictions()
    got, state = make("composable_not", 0.5, 1.5, scale=6.0, weight=0.8).combine(
        made, made[EMPTY], step(), None
    )
    close(got, slow_composable(made, 6.0, [0.4, 1.2]))
    assert state is None


def test_composable_not_in_the_absolute_weights_of_the_community_pipeline():
    made = predictions(negatives=1)
    weights = torch.tensor([7.5, -3.0]).view(-1, 1, 1, 1)
    for b in range(SHAPE[0]):
        concepts = torch.stack([made[POSITIVE][b], made[negative(0)][b]])
        expected = made[EMPTY][b] + (weights * (concepts - made[EMPTY][b])).sum(dim=0)
        got, _ = make("composable_not", 1.0, scale=7.5, weight=3.0 / 7.5).combine(
            made, made[EMPTY], step(), None
        )
        close(got[b], expected)


def test_composable_not_with_one_plain_negative_is_scale_times_prompt_minus_negative():
    made = predictions(negatives=1)
    got, _ = make("composable_not", 1.0).combine(made, made[EMPTY], step(), None)
    close(got, made[EMPTY] + 4.0 * (made[POSITIVE] - made[negative(0)]))


def test_perp_neg_projects_each_sample_alone():
    made = predictions()
    got, _ = make("perp_neg", 1.0, 0.5).combine(made, made[EMPTY], step(), None)
    close(got, slow_perp(made, 4.0, [1.5, 0.75]))


def test_perp_neg_leaves_what_negative_and_prompt_share():
    made = predictions(negatives=1)
    made[negative(0)] = made[EMPTY] + 0.7 * (made[POSITIVE] - made[EMPTY])
    got, _ = make("perp_neg", 1.0).combine(made, made[EMPTY], step(), None)
    close(got, made[EMPTY] + 4.0 * (made[POSITIVE] - made[EMPTY]))


def test_perp_neg_of_a_prompt_without_direction_projects_nothing():
    made = predictions(negatives=1)
    made[POSITIVE] = made[EMPTY].clone()
    got, _ = make("perp_neg", 1.0).combine(made, made[EMPTY], step(), None)
    close(got, made[EMPTY] - 4.0 * 1.5 * (made[negative(0)] - made[EMPTY]))


@pytest.mark.parametrize("positive", ["contrastive", "plain"])
def test_ccfg_factors_follow_the_squared_distance(positive):
    made = predictions(spread=0.3)
    rule = make("ccfg", 1.0, 2.0, tau=0.2, weight=0.5, positive=positive)
    got, _ = rule.combine(made, made[EMPTY], step(), None)
    close(got, slow_ccfg(made, 4.0, [0.5, 1.0], 0.2, plain=positive == "plain"))


def test_ccfg_at_tau_zero_is_composable_not():
    made = predictions()
    got, _ = make("ccfg", 1.0, 2.0, tau=0.0).combine(made, made[EMPTY], step(), None)
    expected, _ = make("composable_not", 1.0, 2.0).combine(made, made[EMPTY], step(), None)
    close(got, expected)


def sld_run(rule, calls, *, space="epsilon", sigmas=None, total=50):
    state, outputs = None, []
    for index, made in enumerate(calls):
        sigma = 1.3 if sigmas is None else sigmas[index]
        now = step(index, total, sigma, space)
        needed = {branch: made[branch] for branch in rule.needs(now)}
        output, state = rule.combine(needed, made[EMPTY], now, state)
        outputs.append(output)
    return outputs


@pytest.mark.parametrize("preset", ["weak", "medium", "strong", "max"])
def test_sld_against_the_loop(preset):
    from negbench.guidance.sld import PRESETS

    numbers = {**PRESETS[preset], "warmup": 2}
    calls = [predictions(10 * i, spread=0.02) for i in range(5)]
    got = sld_run(make("sld", 1.0, 0.5, preset=preset, warmup=2), calls)
    for ours, expected in zip(got, slow_sld(calls, 4.0, [1.0, 0.5], **numbers), strict=True):
        close(ours, expected)


def test_sld_presets_and_overrides():
    from negbench.guidance.sld import Sld

    assert Sld.Config().model_dump() == {
        "preset": "medium", "warmup": 10, "strength": 1000.0, "threshold": 0.01,
        "momentum_scale": 0.3, "momentum_beta": 0.4,
    }  # fmt: skip
    strong = Sld.Config(preset="strong", threshold=0.5)
    assert (strong.warmup, strong.threshold, strong.strength) == (7, 0.5, 2000.0)
    assert Sld.Config.model_validate(strong.model_dump()) == strong


def function_of_diffusers(file, name):
    """One function out of diffusers' source; importing the package takes many seconds."""
    spec = importlib.util.find_spec("diffusers")
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        pytest.skip(f"this diffusers has no {file}")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            names = {"torch": torch}
            exec(compile(ast.Module([node], []), str(path), "exec"), names)
            return names[name]
    pytest.skip(f"{file} of this diffusers has no {name}")


def test_sld_is_the_arithmetic_of_diffusers():
    theirs = function_of_diffusers(
        "pipelines/deprecated/stable_diffusion_safe/pipeline_stable_diffusion_safe.py",
        "perform_safety_guidance",
    )
    calls = [predictions(10 * i, negatives=1, spread=0.02) for i in range(6)]
    got = sld_run(make("sld", 1.0, preset="strong", warmup=3), calls)
    momentum = None
    for index, (made, ours) in enumerate(zip(calls, got, strict=True)):
        u, c, n = made[EMPTY], made[POSITIVE], made[negative(0)]
        guided, momentum = theirs(
            None, True, momentum, c - u, (c, u, n), index, 2000.0, 3, 0.025, 0.5, 0.7
        )
        close(ours, u + 4.0 * guided)


# Spaces ---------------------------------------------------------------------------------------


def convert(made, x, sigma, space):
    """Predictions of noise as the other spaces have them, from the definitions."""
    if space == "epsilon":
        return made
    if space == "flow":
        t = sigma / (1 + sigma)
        signal, spread = 1 - t, t
    else:
        signal, spread = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    out = {}
    for branch, eps in made.items():
        clean = (x - spread * eps) / signal
        out[branch] = {
            "v_prediction": signal * eps - spread * clean,
            "sample": clean,
            "flow": eps - clean,
        }[space]
    return out


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", OUTPUT_RULES)
def test_every_space_gives_the_guided_noise(kind, space):
    params = {"sld": {"warmup": 1}, "ccfg": {"tau": 2.0}}.get(kind, {})
    rule = make(kind, 1.0, 0.6, **params)
    sigmas = [3.0, 1.1, 0.4]
    state = expected_state = None
    for index, sigma in enumerate(sigmas):
        made = {key: value.double() for key, value in predictions(7 * index, spread=0.05).items()}
        x = noise(90 + index).double()
        expected, expected_state = rule.combine(made, x, step(index, sigma=sigma), expected_state)
        other = convert(made, x, sigma, space)
        got, state = rule.combine(other, x, step(index, sigma=sigma, space=space), state)
        close(got, convert({EMPTY: expected}, x, sigma, space)[EMPTY])


@pytest.mark.parametrize("space", ["v_prediction", "flow"])
@pytest.mark.parametrize("kind", OUTPUT_RULES)
def test_a_first_call_without_signal_is_finite(kind, space):
    made = predictions(negatives=1)
    now = step(0, sigma=math.inf, space=space)
    got, _ = make(kind, 1.0).combine(made, made[EMPTY], now, None)
    assert got.isfinite().all()


# What a rule must equal, and what it may not depend on ------------------------------------------


@pytest.mark.parametrize("kind", ["cfg", "window", *OUTPUT_RULES, "nag", "nasa", "vsf"])
def test_neutral_settings(kind):
    from negbench.conformance.rules import check_rule

    outcomes = check_rule(rules.get(kind), name=kind)
    assert outcomes
    assert [item.message for item in outcomes if not item.passed] == []


@pytest.mark.parametrize("kind", OUTPUT_RULES)
def test_a_row_does_not_depend_on_its_batch(kind):
    shape = (5, 4, 32, 32)
    calls = [predictions(10 * i, shape=shape, spread=0.02) for i in range(3)]
    rule = make(kind, 1.0, 0.5, **({"warmup": 1} if kind == "sld" else {}))
    together = sld_run(rule, calls)
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = sld_run(rule, [rows(made, order) for made in calls])
    for row in range(shape[0]):
        alone = sld_run(rule, [rows(made, slice(row, row + 1)) for made in calls])
        place = int((order == row).nonzero())
        for whole, one, mixed in zip(together, alone, shuffled, strict=True):
            assert torch.equal(whole[row], one[0])
            assert torch.equal(whole[row], mixed[place])


def test_sld_keeps_its_momentum_in_the_state_alone():
    calls = [predictions(10 * i, spread=0.02) for i in range(4)]
    others = [predictions(10 * i + 500, spread=0.02) for i in range(4)]
    rule = make("sld", 1.0, preset="max")
    expected = sld_run(rule, calls)
    states = {"a": None, "b": None}
    for index in range(4):
        for name, source in (("a", calls), ("b", others)):
            before = None if states[name] is None else states[name].clone()
            output, after = rule.combine(source[index], calls[0][EMPTY], step(index), states[name])
            if before is not None:
                assert torch.equal(states[name], before)
            states[name] = after
            if name == "a":
                assert torch.equal(output, expected[index])


@pytest.mark.parametrize("kind", OUTPUT_RULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_and_keeps_its_dtype(kind, dtype):
    made = {key: value.to(dtype) for key, value in predictions(shape=(2, 4, 64, 64)).items()}
    rule = make(kind, 1.0, 0.5, **({"preset": "max"} if kind == "sld" else {}))
    got, _ = rule.combine(made, made[EMPTY], step(), None)
    assert got.dtype == dtype
    assert got.isfinite().all()


# Counts, negatives, refusals --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "params", "weights", "scale", "count"),
    [
        ("composable_not", {}, (1.0,), 7.5, 30),
        ("composable_not", {}, (1.0, 0.0, 2.0), 7.5, 40),
        ("composable_not", {"weight": 0}, (1.0,), 7.5, 20),
        ("composable_not", {"weight": 0}, (1.0,), 1.0, 10),
        ("perp_neg", {}, (1.0,), 0.0, 10),
        ("perp_neg", {}, (), 1.0, 10),
        ("ccfg", {}, (), 1.0, 20),
        ("ccfg", {}, (1.0,), 1.0, 30),
        ("sld", {"preset": "max"}, (1.0, 1.0), 7.5, 30),
        ("sld", {"preset": "max"}, (1.0, 0.5), 7.5, 40),
        ("sld", {"preset": "weak", "warmup": 4}, (1.0,), 7.5, 26),
        ("sld", {"preset": "weak", "warmup": 4}, (1.0,), 1.0, 22),
        ("sld", {"warmup": 4}, (1.0,), 7.5, 30),
    ],
)
def test_predictions_that_are_asked_for(kind, params, weights, scale, count):
    assert make(kind, *weights, scale=scale, **params).count(10) == count


def test_the_weak_preset_needs_no_negative_before_it_acts():
    calls = [predictions(10 * i, negatives=1, spread=0.02) for i in range(4)]
    numbers = {"strength": 20.0, "threshold": 0.0, "momentum_scale": 0.0, "momentum_beta": 0.0}
    got = sld_run(make("sld", 1.0, preset="weak", warmup=2), calls)
    for ours, expected in zip(got, slow_sld(calls, 4.0, [1.0], warmup=2, **numbers), strict=True):
        close(ours, expected)


@pytest.mark.parametrize(
    ("kind", "params", "part"),
    [
        ("perp_neg", {"weight": -1}, "weight"),
        ("perp_neg", {"weight": "nan"}, "weight"),
        ("ccfg", {"tau": -0.1}, "tau"),
        ("sld", {"preset": "mild"}, "preset"),
        ("sld", {"momentum_beta": 1.0}, "momentum_beta"),
    ],
)
def test_values_that_do_not_fit_are_refused(kind, params, part):
    with pytest.raises(ConfigError, match=part):
        make(kind, 1.0, **params)


def test_an_unknown_parameter_is_refused_with_a_hint():
    with pytest.raises(UnknownNameError, match="did you mean weight"):
        make("perp_neg", 1.0, wieght=2)


def test_a_warm_up_without_end_is_refused():
    rule = make("sld", 1.0)
    rule.check(family="sd", space="epsilon", total=11)
    with pytest.raises(ConfigError, match="warmup=10 lasts longer"):
        rule.check(family="sd", space="epsilon", total=10)
