"""Tracing: the picture stays what it was, and what is recorded is what the formulas say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_pipelines import make_sd, make_sdxl

from negbench.errors import ConfigError
from negbench.generators.base import RunOptions
from negbench.generators.resolve import resolve
from negbench.generators.strength import layer_size
from negbench.generators.tracing import Look, Watch, trace
from negbench.types import Guidance, ImageRequest, Negative, Treatment


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {
        "sd": make_sd(root / "sd"),
        "v": make_sd(root / "v", prediction="v_prediction"),
        "sdxl": make_sdxl(root / "sdxl"),
    }


def build(folder, **params):
    return resolve(
        str(folder),
        params={"steps": 3, "dtype": "float32", **params},
        options=RunOptions(device="cpu"),
    )


def request(generator, prompt, negative="", *, seed=0, kind="cfg", scale=5.0, **params):
    return ImageRequest(
        generator=generator.ref(),
        treatment=Treatment(
            prompt=prompt,
            negatives=(Negative(text=negative),) if negative else (),
            guidance=Guidance(kind=kind, scale=scale, params=params),
        ),
        seed=seed,
    )


LOOKS = {
    "positive": Look("a house with glasses", focus="glasses"),
    "empty": Look(""),
    "negative": Look("tree"),
}


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [("sd", "pndm"), ("sd", "dpm++2m"), ("sd", "euler_a"), ("v", "ddim"), ("sdxl", "ddim")],
)
def test_watching_changes_no_pixel(folders, family, scheduler):
    generator = build(folders[family], scheduler=scheduler)
    prompt = "a fog" if family == "sdxl" else "a house with glasses"  # letters are tokens there
    looks = {**LOOKS, "positive": Look(prompt, focus=prompt.split()[-1])}
    requests = [
        request(generator, prompt),
        request(generator, prompt, "tree"),
        request(generator, prompt, "tree", seed=1, kind="window", start=1, stop=2),
        request(generator, prompt, "tree", seed=2, kind="perp_neg"),
    ]
    plain = {item.key: item.pixels for item in generator.draw(requests)}
    watches = [Watch(one, looks, maps=number == 1) for number, one in enumerate(requests)]
    traces = list(trace(generator, watches))
    assert [one.key for one in traces] == [one.key() for one in requests]
    for one in traces:
        assert np.array_equal(one.pixels, plain[one.key])
    calls = 4 if scheduler == "pndm" else 3
    assert traces[0].gram.shape == (calls, 3, 3)
    assert traces[0].lag.shape == (calls - 1, 3)
    assert traces[0].strength.shape == (calls, 3, 12)
    assert traces[0].maps is None
    assert traces[1].maps.shape == (calls, 3, 8, 8)
    # nothing is left in the network, and a picture does not feel its companions
    again = {item.key: item.pixels for item in generator.draw(requests[:1])}
    assert np.array_equal(again[requests[0].key()], plain[requests[0].key()])
    alone = next(trace(generator, watches[2:3]))
    assert np.array_equal(alone.gram, traces[2].gram)
    assert np.allclose(alone.strength, traces[2].strength, rtol=1e-6)


def cubic(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def upsample(image, size):
    """Bicubic convolution (Keys 1981, a = -0.75), half-pixel centres, borders repeated."""
    height, width = image.shape
    result = np.zeros((size, size))
    for y in range(size):
        for x in range(size):
            v, u = (y + 0.5) * height / size - 0.5, (x + 0.5) * width / size - 0.5
            for j in range(math.floor(v) - 1, math.floor(v) + 3):
                for i in range(math.floor(u) - 1, math.floor(u) + 3):
                    value = image[min(max(j, 0), height - 1), min(max(i, 0), width - 1)]
                    result[y, x] += value * cubic(v - j) * cubic(u - i)
    return result


def test_strength_is_the_authors_sum_computed_slowly_from_queries_and_keys(folders):
    generator = build(folders["sd"])
    network = generator.load()
    heard = {}

    def keep(name):
        return lambda module, inputs, output: heard.setdefault(name, []).append(output.clone())

    hooks, heads = [], {}
    for name, module in network.unet.named_modules():
        if getattr(module, "is_cross_attention", False):
            heads[name] = module.heads
            for part in ("to_q", "to_k"):
                hooks.append(getattr(module, part).register_forward_hook(keep(f"{name}/{part}")))
    assert any("mid_block" in name for name in heads)
    try:
        one = request(generator, "a house with glasses", "tree")
        found = next(trace(generator, [Watch(one, LOOKS, maps=True)]))
    finally:
        for hook in hooks:
            hook.remove()
    # rows of a call: the negative and the positive that the picture needs, then the empty prompt
    row = {"negative": 0, "positive": 1, "empty": 2}
    counted = 0
    expected = {name: np.zeros(12) for name in row}
    place = np.zeros((8, 8))
    for layer, count in heads.items():
        if "mid_block" in layer:
            continue
        counted += 1
        # each projection runs in the layer's own processor and once more to be listened to
        query, key = heard[f"{layer}/to_q"][0], heard[f"{layer}/to_k"][0]
        for name, at in row.items():
            q = query[at].double().numpy().reshape(query.shape[1], count, -1)
            k = key[at].double().numpy().reshape(key.shape[1], count, -1)
            for head in range(count):
                logits = q[:, head] @ k[:, head].T / math.sqrt(q.shape[2])
                share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
                side = math.isqrt(len(share))
                for token in range(12):
                    up = np.clip(upsample(share[:, token].reshape(side, side), 8), 0, None)
                    expected[name][token] += (up**2).mean()
                    if name == "positive" and token == 4:
                        place += up / count
    assert counted == len(heads) - 1 >= 3
    for at, name in enumerate(found.names):
        np.testing.assert_allclose(found.strength[0, at], expected[name], rtol=1e-5)
    assert found.words == {"positive": (4,), "empty": (), "negative": (1,)}
    np.testing.assert_allclose(found.maps[0, 0], place / counted, rtol=1e-4)


def test_products_are_those_of_the_predicted_noise(folders):
    generator = build(folders["sd"], scheduler="ddim")
    one = request(generator, "a house with glasses", "tree")
    found = next(trace(generator, [Watch(one, LOOKS)]))
    network, steps = generator.load(), generator._denoiser(generator.load()).steps
    with torch.inference_mode():
        noise = torch.Generator("cpu").manual_seed(0)
        x = torch.randn((1, *network.latent_shape), generator=noise)
        texts = network.encode([look.text for look in LOOKS.values()])
        t = torch.tensor(steps[0].timestep)
        eps = torch.cat(
            [network.predict(x, t, texts.take(torch.tensor([i]))) for i in range(3)]
        ).flatten(1)
        step = generator.schedule.build().step
        guided = eps[2] + 5.0 * (eps[0] - eps[2])
        x = step(guided.view_as(x), int(steps[0].timestep), x, return_dict=False)[0]
        after = torch.cat(
            [
                network.predict(x, torch.tensor(steps[1].timestep), texts.take(torch.tensor([i])))
                for i in range(3)
            ]
        ).flatten(1)
    np.testing.assert_allclose(found.gram[0], (eps @ eps.T).numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.gram[1], (after @ after.T).numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.lag[0], (eps * after).sum(1).numpy(), rtol=1e-3, atol=1e-2)


def test_velocity_is_turned_into_noise(folders):
    generator = build(folders["v"], scheduler="ddim")
    one = request(generator, "a house", "tree")
    found = next(trace(generator, [Watch(one, {"positive": Look("a house")})]))
    network, step = generator.load(), generator._denoiser(generator.load()).steps[0]
    with torch.inference_mode():
        x = torch.randn((1, *network.latent_shape), generator=torch.Generator("cpu").manual_seed(0))
        v = network.predict(x, torch.tensor(step.timestep), network.encode(["a house"]))
    alpha = float(generator.schedule.build().alphas_cumprod[int(step.timestep)]) ** 0.5
    eps = alpha * v + (1 - alpha**2) ** 0.5 * x
    assert found.gram[0, 0, 0] == pytest.approx(float((eps**2).sum()), rel=1e-4)


def test_what_cannot_be_traced_is_refused_in_one_line(folders):
    generator = build(folders["sd"])
    steered = request(generator, "a house", "tree", kind="nag")
    with pytest.raises(ConfigError, match="inside attention"):
        list(trace(generator, [Watch(steered, LOOKS)]))
    plain = request(generator, "a house")
    with pytest.raises(ConfigError, match="end the text"):
        list(trace(generator, [Watch(plain, {"a": Look("a house with", focus="house")})]))
    with pytest.raises(ConfigError, match="12"):
        list(trace(generator, [Watch(plain, {"a": Look("house " * 12 + "tree", focus="tree")})]))
    fake = resolve("fake")
    with pytest.raises(ConfigError, match="cannot be traced"):
        list(trace(fake, [Watch(plain, LOOKS)]))
    with pytest.raises(ConfigError, match="truncate"):
        list(trace(build(folders["sd"], long_text="chunk"), [Watch(plain, LOOKS)]))
    other = build(folders["sd"], steps=2)
    with pytest.raises(ConfigError, match="another generator"):
        list(trace(other, [Watch(plain, LOOKS)]))


def test_layers_of_odd_latents_are_placed():
    assert layer_size(48, (16, 12)) == (8, 6)
    assert layer_size(15, (9, 5)) == (5, 3)
    with pytest.raises(ConfigError):
        layer_size(50, (16, 12))
