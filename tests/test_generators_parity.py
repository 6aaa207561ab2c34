"""Reference mode against diffusers' own pipelines, bit for bit, in float32 on the CPU."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from tiny_pipelines import make_sd, make_sdxl

from negbench.errors import ConfigError
from negbench.generators.base import RunOptions
from negbench.generators.loading import quiet
from negbench.generators.resolve import resolve
from negbench.types import Guidance, ImageRequest, Negative, Treatment

SCHEDULERS = ["ddim", "pndm", "euler", "euler_a", "dpm++2m"]
PROMPTS = ["a house in fog", "the professor with glasses and a hat in the old snow", "red"]
NEGATIVES = ["blurry , low quality", "tree", "a cat on the car"]
SEEDS = [7, 2**32 - 1, 0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {
        "sd": make_sd(root / "sd"),
        "sd2-v": make_sd(
            root / "sd2-v",
            prediction="v_prediction",
            attention_head_dim=(2, 4),
            use_linear_projection=True,
        ),
        "sdxl": make_sdxl(root / "sdxl"),
        "sdxl-text": make_sdxl(root / "sdxl-text", zeros=False),
    }


@functools.cache
def load_theirs(folder):
    import diffusers

    name = "StableDiffusionXLPipeline" if "sdxl" in folder.name else "StableDiffusionPipeline"
    return getattr(diffusers, name).from_pretrained(str(folder), low_cpu_mem_usage=False)


def theirs(folder, generator, *, prompts, negatives, scale, steps, size=None):
    import diffusers

    with quiet():
        pipe = load_theirs(folder)
        target = getattr(diffusers, generator.config.scheduler)
        extra = {}
        if target is diffusers.DPMSolverMultistepScheduler:
            extra = {"algorithm_type": "dpmsolver++"}
        if target is diffusers.PNDMScheduler:
            extra = {"skip_prk_steps": True}
        pipe.scheduler = target.from_config(pipe.scheduler.config, **extra)
        pipe.set_progress_bar_config(disable=True)

        def run(kind):
            noise = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS[: len(prompts)]]
            height, width = size or (None, None)
            return pipe(
                prompts,
                negative_prompt=negatives,
                guidance_scale=scale,
                num_inference_steps=steps,
                generator=noise,
                output_type=kind,
                height=height,
                width=width,
            ).images

        latents = run("latent")
        # what the pipeline does with latents at its end
        image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
        pictures = pipe.image_processor.postprocess(image.detach(), output_type="pil")
        return np.stack([np.asarray(picture) for picture in pictures]), latents


def ours(generator, *, prompts, negatives, scale):
    texts = negatives or [None] * len(prompts)
    requests = [
        ImageRequest(
            generator=generator.ref(),
            treatment=Treatment(
                prompt=prompt,
                negatives=() if text is None else (Negative(text=text),),
                guidance=Guidance(scale=scale),
            ),
            seed=seed,
        )
        for prompt, text, seed in zip(prompts, texts, SEEDS, strict=False)
    ]
    drawn = {item.key: item for item in generator.draw(requests)}
    with torch.inference_mode():
        lanes, encoded = generator._reference_lanes(generator.load(), requests)
        latents = generator._denoiser(generator.load()).run(lanes, encoded).latents
    return np.stack([drawn[request.key()].pixels for request in requests]), latents


def check(folder, *, scheduler, negatives=NEGATIVES, scale=7.5, steps=5, prompts=PROMPTS, **size):
    generator = resolve(
        str(folder),
        params={"scheduler": scheduler, "steps": steps, "dtype": "float32", **size},
        options=RunOptions(device="cpu", batch_size=len(prompts)),
        mode="reference",
    )
    wanted, latents = theirs(
        folder,
        generator,
        prompts=prompts,
        negatives=negatives,
        scale=scale,
        steps=steps,
        size=(size["height"], size["width"]) if size else None,
    )
    pixels, own = ours(generator, prompts=prompts, negatives=negatives, scale=scale)
    assert torch.equal(own, latents)
    assert np.array_equal(pixels, wanted)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("family", ["sd", "sd2-v", "sdxl"])
def test_equals_diffusers_bit_for_bit(folders, family, scheduler):
    check(folders[family], scheduler=scheduler)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sdxl-text"])
def test_without_negative_prompt(folders, family):
    check(folders[family], scheduler="own", negatives=None)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_without_guidance_only_the_prompt_is_predicted(folders, family):
    check(folders[family], scheduler="euler", scale=1.0)


def test_one_picture_of_another_shape(folders):
    one = {"prompts": PROMPTS[:1], "negatives": NEGATIVES[:1]}
    check(folders["sdxl"], scheduler="ddim", **one, height=24, width=32)


def test_sdxl_with_an_empty_negative_equals_none(folders):
    generator = resolve(
        str(folders["sdxl"]),
        params={"steps": 2, "dtype": "float32"},
        options=RunOptions(device="cpu", batch_size=1),
        mode="reference",
    )
    blank, _ = ours(generator, prompts=PROMPTS[:1], negatives=["  "], scale=5.0)
    none, _ = ours(generator, prompts=PROMPTS[:1], negatives=None, scale=5.0)
    assert np.array_equal(blank, none)


def test_reference_mode_takes_plain_guidance_only(folders):
    generator = resolve(
        str(folders["sd"]), params={"dtype": "float32"}, options=RunOptions(device="cpu"),
        mode="reference",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="reference mode takes cfg only"):
        generator.check_guidance(Guidance(kind="window", params={"stop": 3}))
