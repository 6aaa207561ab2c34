"""From what a user writes after ``--generator`` to a checked generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from negbench.errors import ConfigError, UnknownNameError, did_you_mean
from negbench.generators import generators
from negbench.generators.base import Generator, RunOptions
from negbench.generators.choices import Choices, default_dtype, read_lora
from negbench.generators.diffusers import DiffusersGenerator, Mode
from negbench.generators.families import Pipeline, inspect
from negbench.generators.schedule import Schedule
from negbench.generators.weights import locate
from negbench.params import build_config, check_counts

MINIATURE = "miniature"
MINIATURE_DEFAULTS: Mapping[str, Any] = {"steps": 25, "scale": 4.0, "dtype": "float32"}
"""What the miniature is trained and calibrated for; the size is in its U-Net's config."""


def resolve(
    spec: str = MINIATURE,
    *,
    params: Mapping[str, Any] | None = None,
    options: RunOptions | None = None,
    mode: Mode = "canonical",
) -> Generator:
    """The generator that `spec` names, checked while planning.

    Args:
        spec: ``miniature``, ``fake`` or another registered name, a pipeline folder, a hub repo
            ``org/name[@revision]``, or a checkpoint ``file.safetensors``.
        params: what the user set: fields of `Choices`, or of the plug-in's own Config.
        options: device and batch size.
        mode: ``canonical`` or ``reference``, see `DiffusersGenerator`.

    Raises:
        NegbenchError: whatever would fail later, in one line.
    """
    params = dict(params or {})
    options = options or RunOptions()
    check_counts(batch_size=options.batch_size)
    if spec == MINIATURE:
        from negbench.miniature import pipeline_dir

        folder = str(pipeline_dir())
        values = {**MINIATURE_DEFAULTS, **params}
        return _diffusers(folder, values, options, mode=mode, shown=MINIATURE)
    if spec == "diffusers":
        raise ConfigError(
            "generator diffusers: name a model: --generator org/repo, a pipeline folder or a "
            ".safetensors file"
        )
    if spec in generators:
        cls: Any = generators.get(spec)
        config = build_config(cls.Config, params, owner=f"generator {spec}")
        plugin: Generator = cls(config, options=options)
        return plugin
    if "/" not in spec and "." not in spec and not Path(spec).is_dir():
        known = [MINIATURE, *(name for name in generators.names() if name != "diffusers")]
        raise UnknownNameError(
            f"unknown generator {spec!r}; {did_you_mean(spec, known)}; or give a pipeline folder, "
            "a hub repo as org/name, or a .safetensors file"
        )
    return _diffusers(spec, params, options, mode=mode, shown=spec)


def _diffusers(
    spec: str, params: Mapping[str, Any], options: RunOptions, *, mode: Mode, shown: str
) -> DiffusersGenerator:
    choices = build_config(Choices, params, owner=f"generator {shown}")
    assert isinstance(choices, Choices)
    pipeline = inspect(locate(spec, config=choices.config))
    return build(pipeline, choices, options=options, mode=mode)


def _usual_steps(pipeline: Pipeline) -> int:
    """What users take; 4 for a FLUX whose steps are distilled (schnell), which shifts nothing."""
    if pipeline.family.name == "flux" and not pipeline.scheduler.get("use_dynamic_shifting"):
        return 4
    return pipeline.family.steps


def build(
    pipeline: Pipeline,
    choices: Choices,
    *,
    options: RunOptions | None = None,
    mode: Mode = "canonical",
) -> DiffusersGenerator:
    """The generator of an inspected pipeline.

    Raises:
        ConfigError: a size, scheduler or LoRA that the pipeline cannot take.
    """
    options = options or RunOptions()
    family = pipeline.family
    steps = choices.steps or _usual_steps(pipeline)
    height, width = choices.height or pipeline.size[0], choices.width or pipeline.size[1]
    unit = max(8, pipeline.factor * family.patch)
    for name, side in (("height", height), ("width", width)):
        if side % unit:
            near = max(unit, round(side / unit) * unit)
            raise ConfigError(f"{name}={side} is not a multiple of {unit}; {near} is")
    schedule = Schedule.choose(choices.scheduler, pipeline.scheduler, steps=steps, flow=family.flow)
    lora = read_lora(choices.lora)
    if lora and family.flow:
        raise ConfigError(f"lora= is for Stable Diffusion 1.x, 2.x and XL, not for {family.name}")
    if choices.long_text == "chunk" and family.flow:
        raise ConfigError(
            f"long_text=chunk is for models that read with CLIP alone; {family.name} reads texts "
            "with a T5, up to its own length, so leave long_text out"
        )
    embeds = bool(pipeline.denoiser.get("guidance_embeds"))
    if choices.embedded_scale is not None and not embeds:
        raise ConfigError(
            f"generator {pipeline.source.spec} takes no embedded_scale: its guidance is not an "
            "input (guidance_embeds); leave it out"
        )
    embedded = 3.5 if embeds and choices.embedded_scale is None else choices.embedded_scale
    if mode == "reference" and choices.long_text != "truncate":
        raise ConfigError("reference mode cuts long texts as diffusers does; leave long_text out")
    config = DiffusersGenerator.Config(
        weights=pipeline.digest,
        family=family.name,
        dtype=choices.dtype or default_dtype(options.device, family.half),
        scheduler=schedule.name,
        scheduler_config=dict(schedule.config),
        steps=steps,
        height=height,
        width=width,
        long_text=choices.long_text,
        lora=tuple((item.digest, item.scale) for item in lora),
        embedded_scale=embedded,
    )
    scale = choices.scale if choices.scale is not None else family.scale
    return DiffusersGenerator(
        config, pipeline=pipeline, scale=scale, lora=lora, options=options, mode=mode
    )
