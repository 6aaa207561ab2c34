"""What is refused while planning because a negative prompt could do nothing."""

from __future__ import annotations

import pytest

from negbench.errors import ConfigError
from negbench.guidance.effect import refuse_ignored, why_distilled, why_ignored
from negbench.types import Guidance, Negative


def asked(kind, scale=7.5, **params):
    return Guidance(kind=kind, scale=scale, params=params)


@pytest.mark.parametrize(
    ("guidance", "part"),
    [
        (asked("cfg", 1.0), "at scale 1 predicts the prompt alone"),
        (asked("window", 1.0), "at scale 1"),
        (asked("window", start=0, stop=0), "never looks at it in 20 model calls"),
        (asked("perp_neg", weight=0), "negbench show guidance perp_neg"),
        (asked("composable_not", 0.0), "at scale 0"),
        (asked("sld", strength=0), "never looks at it"),
        (asked("nag", 1.0, nag_scale=1), "never looks at it"),
        (asked("sld", preset="weak", warmup=20), "never looks at it"),
    ],
)
def test_a_negative_without_effect_has_a_reason(guidance, part):
    assert part in why_ignored(guidance, total=20)
    with pytest.raises(ConfigError, match="generator x: a negative prompt would have no effect"):
        refuse_ignored(guidance, total=20, where="generator x")


@pytest.mark.parametrize(
    "guidance",
    [
        asked("cfg"),
        asked("cfg", 0.0),
        asked("window", start=19),
        asked("composable_not", 1.0),
        asked("perp_neg", 1.0),
        asked("sld", 1.0),
        asked("ccfg", 1.0),
        asked("nag", 1.0),
        asked("vsf", 1.0),
    ],
)
def test_a_negative_that_acts_is_let_through(guidance):
    assert why_ignored(guidance, total=20) is None
    refuse_ignored(guidance, total=20)


@pytest.mark.parametrize("negatives", [(), (Negative(text=" "),), (Negative(text="x", weight=0),)])
def test_where_nothing_is_asked_for_nothing_is_lost(negatives):
    assert why_ignored(asked("cfg", 1.0), negatives, total=20) is None


@pytest.mark.parametrize(
    ("configs", "pipeline", "part"),
    [
        ({"unet": {"time_cond_proj_dim": 256}}, "StableDiffusionPipeline", "time_cond_proj_dim"),
        ({"transformer": {"guidance_embeds": True}}, "FluxPipeline", "guidance_embeds"),
        ({"scheduler": {"_class_name": "TCDScheduler"}}, "", "TCDScheduler"),
        ({}, "LatentConsistencyModelPipeline", "LatentConsistencyModelPipeline"),
    ],
)
def test_distilled_guidance_is_seen_in_the_configs(configs, pipeline, part):
    assert part in why_distilled(configs, pipeline=pipeline)


def test_ordinary_models_are_not_refused():
    assert why_distilled({"unet": {"time_cond_proj_dim": None}, "scheduler": {}}) is None
    schnell = {"transformer": {"guidance_embeds": False}}
    assert why_distilled(schnell, pipeline="FluxPipeline") is None
