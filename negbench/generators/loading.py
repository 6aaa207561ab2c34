"""Load the parts of a pipeline from safetensors and JSON, quietly, and fuse LoRAs into them."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negbench.errors import DataError, MissingError, NegbenchError, one_line
from negbench.generators.families import Pipeline


@dataclass(frozen=True)
class Parts:
    """Loaded components, on the CPU in the precision of their files."""

    denoiser: Any
    vae: Any
    encoders: list[Any]
    tokenizers: list[Any]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No log lines and no progress bars of diffusers and transformers inside."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    modules = (diffusers_logging, transformers_logging)
    levels = [module.get_verbosity() for module in modules]
    bars = [module.is_progress_bar_enabled() for module in modules]
    for module in modules:
        module.set_verbosity(50)
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module, level, bar in zip(modules, levels, bars, strict=True):
            module.set_verbosity(level)
            if bar:
                module.enable_progress_bar()


def load_parts(pipeline: Pipeline, *, lora: Sequence[tuple[str, float]] = ()) -> Parts:
    """The components of `pipeline`, nothing but safetensors read.

    Args:
        pipeline: checked by `inspect`.
        lora: files and scales, fused in this order.

    Raises:
        DataError: weights that do not fit their configs.
        MissingError: LoRA without the package peft.
    """
    spec = pipeline.source.spec
    try:
        with quiet():
            load = _from_one_file if pipeline.source.checkpoint else _from_folder
            parts = load(pipeline)
            if lora:
                _fuse(parts, pipeline, lora)
    except NegbenchError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", limit=300)
        raise DataError(f"generator {spec} cannot be loaded: {reason}") from error
    return parts


def _tokenizers(pipeline: Pipeline) -> list[Any]:
    import transformers

    tokenizers = []
    for part, name in pipeline.tokenizers.items():
        # TokenizersBackend is what version 5 of transformers calls PreTrainedTokenizerFast.
        known = "PreTrainedTokenizerFast" if name == "TokenizersBackend" else name
        cls = getattr(transformers, known)
        folder = str(pipeline.source.folder / part)
        tokenizers.append(cls.from_pretrained(folder, local_files_only=True))
    return tokenizers


def _from_folder(pipeline: Pipeline) -> Parts:
    import diffusers
    import transformers

    folder = pipeline.source.folder
    lean = importlib.util.find_spec("accelerate") is not None

    def model(cls: Any, part: str) -> Any:
        return cls.from_pretrained(
            str(folder / part),
            local_files_only=True,
            use_safetensors=True,
            variant=pipeline.variants[part],
            low_cpu_mem_usage=lean,
        )

    encoders = []
    for part, name in pipeline.encoders.items():
        encoder, notes = getattr(transformers, name).from_pretrained(
            str(folder / part),
            local_files_only=True,
            use_safetensors=True,
            variant=pipeline.variants[part],
            output_loading_info=True,
        )
        known = ("position_ids", "embed_tokens.weight")  # made up, or tied to another tensor
        lacking = [key for key in notes["missing_keys"] if not key.endswith(known)]
        if lacking:
            raise DataError(
                f"generator {pipeline.source.spec}: the weights of {part} lack "
                f"{len(lacking)} tensors, for example {sorted(lacking)[0]}"
            )
        encoders.append(encoder)
    part, name = pipeline.family.denoiser
    return Parts(
        denoiser=model(getattr(diffusers, name), part),
        vae=model(diffusers.AutoencoderKL, "vae"),
        encoders=encoders,
        tokenizers=_tokenizers(pipeline),
    )


def _from_one_file(pipeline: Pipeline) -> Parts:
    import diffusers

    cls = {
        "sd": diffusers.StableDiffusionPipeline,
        "sdxl": diffusers.StableDiffusionXLPipeline,
    }[pipeline.family.name]
    extra: dict[str, Any] = {}
    if pipeline.family.name == "sd":
        extra = {"safety_checker": None, "feature_extractor": None}
    whole = cls.from_single_file(
        str(pipeline.source.checkpoint),
        config=str(pipeline.source.folder),
        local_files_only=True,
        **extra,
    )
    encoders = [getattr(whole, part) for part in pipeline.encoders]
    return Parts(
        denoiser=whole.unet, vae=whole.vae, encoders=encoders, tokenizers=_tokenizers(pipeline)
    )


def need_peft() -> None:
    """Refuse a LoRA, while planning, where it could not be loaded."""
    if importlib.util.find_spec("peft") is None:
        raise MissingError("lora= needs the package peft; install it with `pip install peft`")


def _fuse(parts: Parts, pipeline: Pipeline, lora: Sequence[tuple[str, float]]) -> None:
    import diffusers

    scheduler = diffusers.DDIMScheduler()
    common = {"vae": parts.vae, "unet": parts.denoiser, "scheduler": scheduler}
    whole: Any
    if pipeline.family.name == "sd":
        whole = diffusers.StableDiffusionPipeline(
            **common,
            text_encoder=parts.encoders[0],
            tokenizer=parts.tokenizers[0],
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    else:
        whole = diffusers.StableDiffusionXLPipeline(
            **common,
            text_encoder=parts.encoders[0],
            text_encoder_2=parts.encoders[1],
            tokenizer=parts.tokenizers[0],
            tokenizer_2=parts.tokenizers[1],
        )
    for path, scale in lora:
        file = Path(path)
        whole.load_lora_weights(str(file.parent), weight_name=file.name, local_files_only=True)
        whole.fuse_lora(lora_scale=scale)
        whole.unload_lora_weights()
