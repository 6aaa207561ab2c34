"""Stable Diffusion 3 and FLUX.1: against diffusers bit for bit, and what is refused."""

from __future__ import annotations

import json
import math
import random
import shutil

import numpy as np
import pytest
import torch
from tiny_pipelines import make_flux, make_sd3

from negbench.errors import ConfigError, MissingError
from negbench.generators.base import RunOptions
from negbench.generators.families import inspect
from negbench.generators.loading import quiet
from negbench.generators.resolve import resolve
from negbench.generators.schedule import flow_shift
from negbench.generators.weights import locate, wanted_files
from negbench.guidance import rules
from negbench.types import Guidance, ImageRequest, Negative, Treatment

PROMPTS = ["a house in fog", "the professor with glasses and a hat in the old snow by", "red"]
NEGATIVES = ["blurry , low quality", "tree", "a cat on the car"]
SEEDS = [7, 2**32 - 1, 0]
SIZE = 16
OPTIONS = RunOptions(device="cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("flows")
    return {
        "sd3": make_sd3(root / "sd3"),
        "sd3-no-t5": make_sd3(root / "sd3-no-t5", t5=False),
        "sd3-dynamic": make_sd3(root / "sd3-dynamic", dynamic=True),
        "flux": make_flux(root / "flux"),
        "schnell": make_flux(root / "schnell", distilled=True),
    }


def build(folder, *, mode="canonical", batch_size=None, **params):
    return resolve(
        str(folder),
        params={"steps": 3, "dtype": "float32", "height": SIZE, "width": SIZE, **params},
        options=RunOptions(device="cpu", batch_size=batch_size),
        mode=mode,
    )


def request(generator, prompt, *negatives, seed=0, scale=4.0, kind="cfg", **params):
    return ImageRequest(
        generator=generator.ref(),
        treatment=Treatment(
            prompt=prompt,
            negatives=tuple(Negative(text=text) for text in negatives),
            guidance=Guidance(kind=kind, scale=scale, params=params),
        ),
        seed=seed,
    )


def drawn(generator, requests):
    return {item.key: item for item in generator.draw(requests)}


def theirs(folder, *, scale, steps, negatives, size, embedded):
    import diffusers

    left_out = {"text_encoder_3": None, "tokenizer_3": None} if "no-t5" in folder.name else {}
    with quiet():
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            str(folder), low_cpu_mem_usage=False, **left_out
        )
    pipe.set_progress_bar_config(disable=True)
    flux = isinstance(pipe, diffusers.FluxPipeline)
    guidance = {"true_cfg_scale": scale} if flux else {"guidance_scale": scale}
    if flux:
        guidance["guidance_scale"] = embedded
    with quiet():
        pictures = pipe(
            PROMPTS,
            negative_prompt=negatives,
            num_inference_steps=steps,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
            height=size[0],
            width=size[1],
            output_type="pil",
            **guidance,
        ).images
    return np.stack([np.asarray(picture) for picture in pictures])


@pytest.mark.parametrize(
    ("name", "scale", "empty", "size"),
    [
        ("sd3", 7.0, False, (16, 16)),
        ("sd3", 1.0, False, (16, 16)),
        ("sd3", 4.0, True, (16, 24)),
        ("sd3-no-t5", 7.0, False, (16, 16)),
        ("sd3-dynamic", 7.0, False, (24, 16)),
        ("flux", 4.0, False, (16, 16)),
        ("flux", 1.0, False, (24, 16)),
        ("flux", 2.5, True, (16, 16)),
        ("schnell", 1.0, False, (16, 16)),
        ("schnell", 3.0, False, (16, 16)),
    ],
)
def test_equals_diffusers_bit_for_bit(folders, name, scale, empty, size):
    extra = {"embedded_scale": 2.5} if name == "flux" else {}
    generator = build(
        folders[name], mode="reference", batch_size=3, height=size[0], width=size[1], **extra
    )
    negatives = [""] * 3 if empty else NEGATIVES
    requests = [
        request(generator, prompt, negative, seed=seed, scale=scale)
        for prompt, negative, seed in zip(PROMPTS, negatives, SEEDS, strict=True)
    ]
    ours = drawn(generator, requests)
    wanted = theirs(
        folders[name], scale=scale, steps=3, negatives=negatives, size=size, embedded=2.5
    )
    for row, one in enumerate(requests):
        assert np.array_equal(ours[one.key()].pixels, wanted[row])
    assert len(np.unique(wanted)) > 16


@pytest.mark.parametrize("name", ["sd3", "sd3-no-t5", "flux", "schnell"])
def test_order_companions_and_batch_size_change_no_bit(folders, name):
    generator = build(folders[name])
    requests = []
    for seed in range(2):
        requests += [
            request(generator, "a house", seed=seed),
            request(generator, "a house", "tree", seed=seed),
            request(generator, "a house", "tree", seed=seed, kind="window", start=1),
            request(generator, "a house", "tree", seed=seed, kind="window", stop=2),
            request(generator, "a house", "tree", "fog", seed=seed, kind="perp_neg"),
            request(generator, "a house", "tree", seed=seed, kind="ccfg"),
            request(generator, "a house", "tree", seed=seed, kind="composable_not"),
            request(generator, "a house", "tree", seed=seed, kind="sld", warmup=1),
            request(generator, "red car", seed=seed, scale=1.0),
        ]
    whole = drawn(generator, requests)
    shuffled = random.Random(1).sample(requests, len(requests))
    other = drawn(build(folders[name], batch_size=3), shuffled)
    alone = drawn(generator, requests[2:3])
    for one in requests:
        assert np.array_equal(other[one.key()].pixels, whole[one.key()].pixels)
        assert whole[one.key()].evaluations == generator.evaluations(one)
    key = requests[2].key()
    assert np.array_equal(alone[key].pixels, whole[key].pixels)
    assert len({item.pixels.tobytes() for item in whole.values()}) == len(whole)
    made = sum(item.evaluations - item.shared for item in whole.values())
    assert made == generator.needed(requests) < sum(map(generator.evaluations, requests))


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_rules_mean_the_same_in_a_flow(folders, name):
    """Every rule's neutral setting is a picture of plain guidance, or it is refused in a line."""
    generator = build(folders[name])
    plain = {
        "empty_negative": request(generator, "a house"),
        "cfg": request(generator, "a house", "tree"),
        "positive": request(generator, "a house", scale=1.0),
    }
    expected = drawn(generator, list(plain.values()))
    for kind in rules.names():
        for neutral in rules.get(kind).neutral:
            scale = 4.0 if neutral.scale is None else neutral.scale
            guidance = Guidance(kind=kind, scale=scale, params=dict(neutral.params))
            if rules.get(kind).families is not None:
                with pytest.raises(ConfigError, match=f"does not support {name}; only sd, sdxl"):
                    generator.check_guidance(guidance)
                continue
            generator.check_guidance(guidance)
            asked = request(
                generator, "a house", "tree", kind=kind, scale=scale, **dict(neutral.params)
            )
            same = plain[neutral.equals]
            picture = drawn(generator, [asked])[asked.key()].pixels.astype(int)
            assert np.abs(picture - expected[same.key()].pixels).max() <= 1


def test_families_are_known_by_their_files(folders):
    sd3, flux, schnell = (inspect(locate(str(folders[n]))) for n in ("sd3", "flux", "schnell"))
    assert (sd3.family.name, sd3.channels, sd3.size) == ("sd3", 4, (16, 16))
    assert (flux.family.name, flux.channels, flux.size) == ("flux", 4, (256, 256))
    assert set(sd3.encoders) == {"text_encoder", "text_encoder_2", "text_encoder_3"}
    without = inspect(locate(str(folders["sd3-no-t5"])))
    assert set(without.encoders) == {"text_encoder", "text_encoder_2"}
    usual = [
        resolve(str(folders[name]), params={"dtype": "float32"}, options=OPTIONS)
        for name in ("sd3", "flux", "schnell")
    ]
    assert [one.config.steps for one in usual] == [28, 28, 4]
    assert [one.default_guidance().scale for one in usual] == [7.0, 1.0, 1.0]
    assert [one.config.embedded_scale for one in usual] == [None, 3.5, None]
    assert "embedded_scale" not in usual[0].ref().params
    other = build(folders["flux"], embedded_scale=2.0)
    assert other.ref() != build(folders["flux"]).ref()
    assert schnell.digest != flux.digest


def test_a_negative_that_nothing_looks_at_is_refused(folders):
    tree = (Negative(text="tree"),)
    flux, schnell = build(folders["flux"]), build(folders["schnell"])
    with pytest.raises(ConfigError, match=r"guidance_embeds.*take --scale above 1"):
        flux.refuse_ignored(Guidance(scale=1.0), tree)
    with pytest.raises(ConfigError, match="at scale 1 predicts the prompt alone"):
        schnell.refuse_ignored(Guidance(scale=1.0), tree)
    flux.refuse_ignored(Guidance(scale=1.0), ())
    flux.refuse_ignored(Guidance(scale=4.0), tree)
    schnell.refuse_ignored(Guidance(scale=3.0), tree)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("sd3", {"scheduler": "ddim"}, "not for a rectified flow"),
        ("flux", {"scheduler": "EulerDiscreteScheduler"}, "not for a rectified flow"),
        ("sd3", {"long_text": "chunk"}, "with a T5"),
        ("flux", {"lora": "x.safetensors"}, "no such file|not for flux"),
        ("sd3", {"embedded_scale": 3.0}, "takes no embedded_scale"),
        ("schnell", {"embedded_scale": 3.0}, "takes no embedded_scale"),
        ("flux", {"height": 20}, "height=20 is not a multiple of 8"),
    ],
)
def test_settings_that_do_not_fit(folders, name, params, message):
    with pytest.raises((ConfigError, MissingError), match=message):
        build(folders[name], **params)


def test_pipelines_that_want_a_picture_are_refused(folders, tmp_path):
    folder = shutil.copytree(folders["flux"], tmp_path / "fill")
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "in_channels": 96}))
    with pytest.raises(ConfigError, match="wants a picture or mask"):
        inspect(locate(str(folder)))


def test_what_no_encoder_reads_is_counted(folders):
    long = " ".join(["red"] * 300)
    for name, read in (("sd3", 256), ("flux", 512), ("sd3-no-t5", 12)):
        generator = build(folders[name], steps=1)
        one = request(generator, long, scale=1.0)
        (item,) = generator.draw([one])
        assert item.facts["truncated_tokens"] == max(0, 302 - read)


def test_half_precision_keeps_what_overflows(folders):
    generator = build(folders["sd3"], dtype="float16")
    network = generator.load()
    kept = [m.weight.dtype for n, m in network.encoders[2].named_modules() if n.endswith(".wo")]
    assert kept == [torch.float32]
    assert network.unet.dtype == torch.float16


def test_the_shift_of_a_flow_is_linear_in_the_picture(folders):
    config = {"use_dynamic_shifting": True, "max_shift": 1.15}
    assert flow_shift(config, tokens=256, highest=1.0) == pytest.approx(0.5)
    assert flow_shift(config, tokens=4096, highest=1.0) == pytest.approx(1.15)
    assert flow_shift({}, tokens=256, highest=1.15) is None
    generator = build(folders["sd3"])
    steps = generator.schedule.describe(generator.schedule.build())
    assert steps[0].space == "flow"
    assert steps[0].sigma == math.inf
    level = steps[1].timestep / 1000
    assert steps[1].sigma == pytest.approx(level / (1 - level), rel=1e-4)


def test_the_files_of_transformers_are_fetched():
    names = [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "text_encoder_3/config.json",
        "text_encoder_3/model.fp16-00001-of-00002.safetensors",
        "tokenizer_3/tokenizer.json",
        "tokenizer_3/spiece.model",
        "flux1-dev.safetensors",
        "README.md",
    ]
    assert set(wanted_files(names, weights=True)) == set(names[:-2])
