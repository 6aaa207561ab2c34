"""Rules inside cross-attention: formulas against loops, and pictures of tiny pipelines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_pipelines import lanes_of, make_sd, make_sdxl

from negbench.errors import ConfigError
from negbench.generators.base import RunOptions
from negbench.generators.resolve import resolve
from negbench.guidance.base import EMPTY, POSITIVE, Step, negative
from negbench.guidance.binding import bind
from negbench.guidance.nag import NagSteer
from negbench.guidance.nasa import NasaSteer
from negbench.guidance.vsf import VsfSteer
from negbench.types import Guidance, ImageRequest, Negative, Treatment

ROWS, HEADS, POSITIONS, TOKENS, WIDTH = 2, 3, 5, 4, 6


def qkv(seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn((ROWS, HEADS, POSITIONS, WIDTH), generator=generator)
    texts = torch.randn((4, ROWS, HEADS, TOKENS, WIDTH), generator=generator)
    return query, *texts


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def slow_attention(query, key, value, bias=None):
    """(rows, positions, heads * width), one position and head at a time."""
    query, key, value = (tensor.double().numpy() for tensor in (query, key, value))
    out = np.zeros((ROWS, POSITIONS, HEADS * WIDTH))
    for row in range(ROWS):
        for head in range(HEADS):
            for position in range(POSITIONS):
                logits = key[row, head] @ query[row, head, position] / math.sqrt(WIDTH)
                weights = softmax(logits if bias is None else logits + bias)
                part = slice(head * WIDTH, (head + 1) * WIDTH)
                out[row, position, part] = weights @ value[row, head]
    return out


def close(got, expected):
    assert np.abs(got.double().numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("tau", [0.6, 2.5, 50.0])
def test_nag_is_the_paper_with_phi_one_below_the_scale(order, tau):
    query, key, value, away_key, away_value = qkv()
    steer = NagSteer(scale=3.0, tau=tau, alpha=0.375, norm="l1" if order == 1 else "l2")
    plain = slow_attention(query, key, value)
    away = slow_attention(query, away_key, away_value)
    expected = np.zeros_like(plain)
    phi, cut = 2.0, 0
    for row in range(ROWS):
        for position in range(POSITIONS):
            z, n = plain[row, position], away[row, position]
            far = z + phi * (z - n)
            ratio = (np.abs(far) ** order).sum() ** (1 / order)
            ratio /= (np.abs(z) ** order).sum() ** (1 / order)
            cut += ratio > tau
            expected[row, position] = 0.375 * far * min(ratio, tau) / ratio + 0.625 * z
    assert cut == {0.6: 10, 50.0: 0}.get(tau, cut)
    close(steer.attend(query, key, value, away_key, away_value), expected)


def test_nasa_subtracts():
    query, key, value, away_key, away_value = qkv()
    expected = slow_attention(query, key, value) - 0.2 * slow_attention(query, away_key, away_value)
    close(NasaSteer(weight=0.2).attend(query, key, value, away_key, away_value), expected)


@pytest.mark.parametrize("bias", [0.0, 0.7])
def test_vsf_has_one_softmax_over_both_texts(bias):
    query, key, value, away_key, away_value = qkv()
    keys = torch.cat([key, away_key], dim=2)
    values = torch.cat([value, -1.7 * away_value], dim=2)
    expected = slow_attention(query, keys, values, np.repeat([0.0, -bias], TOKENS))
    steer = VsfSteer(weight=1.7, bias=bias)
    close(steer.attend(query, key, value, away_key, away_value), expected)


@pytest.mark.parametrize(
    "steer", [NagSteer(scale=1.0), NagSteer(alpha=0.0, scale=4.0), NasaSteer(weight=0.0),
              VsfSteer(bias=10_000.0)],
)  # fmt: skip
def test_a_neutral_setting_is_the_prompt_alone(steer):
    query, key, value, away_key, away_value = qkv()
    got = steer.attend(query, key, value, away_key, away_value)
    close(got, slow_attention(query, key, value))


def test_nag_of_a_layer_that_says_nothing_is_nothing():
    query, key, value, away_key, away_value = qkv()
    zero = torch.zeros_like(value)
    assert not NagSteer(scale=3.0).attend(query, key, zero, away_key, zero).any()
    got = NagSteer(scale=3.0).attend(query, key, zero, away_key, away_value)
    assert got.isfinite().all()


# Rules ----------------------------------------------------------------------------------------


def rule(kind, *weights, scale=5.0, **params):
    texts = [Negative(text=f"thing {i}", weight=w) for i, w in enumerate(weights)]
    return bind(Guidance(kind=kind, scale=scale, params=params), texts)


def at(index, total=10):
    return Step(index=index, total=total, timestep=0.0, sigma=1.0)


def test_nag_has_the_numbers_of_table_5():
    from negbench.guidance.nag import Nag

    assert Nag.Config().model_dump() == {
        "preset": "sd", "nag_scale": 3.0, "tau": 2.5, "alpha": 0.375, "norm": "l1", "stop": 1.0,
    }  # fmt: skip
    assert Nag.Config(preset="sdxl").alpha == 0.5
    assert Nag.Config(preset="sdxl", alpha=0.1).alpha == 0.1


@pytest.mark.parametrize(("scale", "count"), [(0.0, 10), (1.0, 10), (5.0, 20)])
def test_a_steered_prompt_is_one_prediction(scale, count):
    bound, _ = rule("nag", 1.0, scale=scale)
    assert bound.count(10) == count


def test_stop_ends_the_steering_after_a_part_of_the_calls():
    bound, _ = rule("nag", 1.0, scale=1.0, stop=0.25)
    steered = [bound.needs(at(i)) != (POSITIVE,) for i in range(10)]
    assert steered == [True] * 3 + [False] * 7


def test_needs_name_the_prompt_and_what_it_is_turned_away_from():
    bound, _ = rule("nag", 1.0)
    empty, steered = bound.needs(at(0))
    assert empty == EMPTY
    assert steered.texts() == (POSITIVE, negative(0))
    assert rule("nag")[0].needs(at(0)) == (EMPTY, POSITIVE)


def test_negatives_are_joined_and_weights_refused():
    _, taken = rule("nag", 1.0, 1.0)
    assert [item.text for item in taken] == ["thing 0, thing 1"]
    with pytest.raises(ConfigError, match="got weight"):
        rule("nasa", 0.5)
    with pytest.raises(ConfigError, match="sdxl"):
        rule("vsf", 1.0)[0].check(family="sd3", space="flow", total=10)


# Pictures -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def generator(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("steered")
    make = {"sd": make_sd, "sdxl": make_sdxl}[request.param]
    return resolve(
        str(make(root / request.param)),
        params={"steps": 3, "dtype": "float32", "scheduler": "ddim"},
        options=RunOptions(device="cpu"),
    )


def order(generator, kind, *negatives, scale=5.0, seed=0, **params):
    return ImageRequest(
        generator=generator.ref(),
        treatment=Treatment(
            prompt="a professor in the snow",
            negatives=tuple(Negative(text=text) for text in negatives),
            guidance=Guidance(kind=kind, scale=scale, params=params),
        ),
        seed=seed,
    )


def draw(generator, *requests):
    drawn = {item.key: item for item in generator.draw(list(requests))}
    return [drawn[request.key()] for request in requests]


def latents(generator, request):
    """The clean latent of one request, where pixels would round differences away."""
    network = generator.load()
    with torch.inference_mode():
        lanes, texts = lanes_of(generator, network, [request])
        return generator._denoiser(network).run(lanes, texts).latents


def test_nag_at_scale_one_is_the_positive_branch(generator):
    plain = latents(generator, order(generator, "cfg", "glasses", scale=1.0))
    neutral = latents(generator, order(generator, "nag", "glasses", scale=1.0, nag_scale=1))
    steered = latents(generator, order(generator, "nag", "glasses", scale=1.0, nag_scale=20))
    # The formula itself, not its shortcut, through all layers and calls:
    formula = latents(generator, order(generator, "nasa", "glasses", scale=1.0, weight=1e-30))
    assert (neutral - plain).abs().max() <= 1e-5
    assert (formula - plain).abs().max() <= 1e-5
    assert (steered - plain).abs().max() > 1e-3


def test_steering_touches_no_other_picture_and_depends_on_none(generator):
    requests = [
        order(generator, "cfg", "glasses"),
        order(generator, "nag", "glasses"),
        order(generator, "nag", "hat", seed=1),
        order(generator, "nag", "glasses", scale=1.0, alpha=0.9),
        order(generator, "perp_neg", "glasses"),
        order(generator, "nasa", "glasses", weight=0.5),
        order(generator, "vsf", "glasses", stop=0.4),
        order(generator, "sld", "glasses", warmup=1),
        order(generator, "cfg"),
    ]
    together = draw(generator, *requests)
    for item, request in zip(together, requests, strict=True):
        (alone,) = draw(generator, request)
        assert np.array_equal(alone.pixels, item.pixels), request.guidance.kind
        assert alone.evaluations == item.evaluations == generator.evaluations(request)
    assert len({item.pixels.tobytes() for item in together}) == len(requests)


def test_the_layers_get_their_own_processors_back(generator):
    network = generator.load()
    before = dict(network.unet.attn_processors)
    draw(generator, order(generator, "nag", "glasses"))
    assert all(network.unet.attn_processors[name] is own for name, own in before.items())
