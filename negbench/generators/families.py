"""What a pipeline folder holds, read from its JSON files and checked while planning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from negbench.errors import ConfigError, DataError, MissingError, did_you_mean
from negbench.generators.weights import (
    TOKENIZER_FILES,
    Source,
    component_weights,
    digest_files,
    read_config,
)
from negbench.weight_files import read_header


@dataclass(frozen=True)
class Family:
    """One family of models that the loop can run.

    Attributes:
        name: what rules and configs call it.
        encoders: text encoder folder -> its class in transformers.
        tokenizers: tokenizer folders, in the order of the encoders.
        steps: steps that its users take.
        scale: guidance scale that its users take.
        adapter: ``module:Class`` of the network adapter.
        denoiser: folder and class in diffusers of the network that predicts.
        optional: text encoders that a pipeline may leave out.
        flow: whether it is a rectified flow, with the scheduler of these.
        patch: latent positions a side that its denoiser takes as one.
        half: precision that its users take on a GPU.
    """

    name: str
    encoders: Mapping[str, str]
    tokenizers: tuple[str, ...]
    steps: int
    scale: float
    adapter: str
    denoiser: tuple[str, str] = ("unet", "UNet2DConditionModel")
    optional: frozenset[str] = frozenset()
    flow: bool = False
    patch: int = 1
    half: Literal["float16", "bfloat16"] = "float16"


FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": Family(
        name="sd",
        encoders={"text_encoder": "CLIPTextModel"},
        tokenizers=("tokenizer",),
        steps=30,
        scale=7.5,
        adapter="negbench.generators.sd:StableDiffusion",
    ),
    "StableDiffusionXLPipeline": Family(
        name="sdxl",
        encoders={
            "text_encoder": "CLIPTextModel",
            "text_encoder_2": "CLIPTextModelWithProjection",
        },
        tokenizers=("tokenizer", "tokenizer_2"),
        steps=30,
        scale=5.0,
        adapter="negbench.generators.sdxl:StableDiffusionXL",
    ),
    "StableDiffusion3Pipeline": Family(
        name="sd3",
        encoders={
            "text_encoder": "CLIPTextModelWithProjection",
            "text_encoder_2": "CLIPTextModelWithProjection",
            "text_encoder_3": "T5EncoderModel",
        },
        tokenizers=("tokenizer", "tokenizer_2", "tokenizer_3"),
        steps=28,
        scale=7.0,
        adapter="negbench.generators.sd3:StableDiffusion3",
        denoiser=("transformer", "SD3Transformer2DModel"),
        optional=frozenset({"text_encoder_3"}),
        flow=True,
        patch=2,
        half="bfloat16",
    ),
    "FluxPipeline": Family(
        name="flux",
        encoders={"text_encoder": "CLIPTextModel", "text_encoder_2": "T5EncoderModel"},
        tokenizers=("tokenizer", "tokenizer_2"),
        steps=28,
        scale=1.0,
        adapter="negbench.generators.flux:Flux",
        denoiser=("transformer", "FluxTransformer2DModel"),
        flow=True,
        patch=2,
        half="bfloat16",
    ),
}

_DISTILLED = "guidance is distilled into its weights, so a negative prompt would have no effect"
REFUSED = {
    "LatentConsistencyModelPipeline": _DISTILLED,
    "StableDiffusionInpaintPipeline": "it paints into a picture it is given",
    "StableDiffusionXLInpaintPipeline": "it paints into a picture it is given",
    "StableDiffusionImg2ImgPipeline": "it changes a picture it is given",
    "StableDiffusionXLImg2ImgPipeline": "it changes a picture it is given",
    "StableDiffusionInstructPix2PixPipeline": "it edits a picture it is given",
    "StableDiffusionUpscalePipeline": "it enlarges a picture it is given",
}
TOKENIZERS = (
    "CLIPTokenizer",
    "CLIPTokenizerFast",
    "PreTrainedTokenizerFast",
    "TokenizersBackend",
    "T5Tokenizer",
    "T5TokenizerFast",
)


@dataclass(frozen=True)
class Pipeline:
    """Everything about a pipeline that is known without loading it.

    Attributes:
        source: where it lies.
        family: which adapter runs it.
        scheduler: its own ``scheduler_config.json``.
        digest: sha256 of weights, configs and tokenizers, without paths and repo names.
        size: (height, width) in pixels that it was trained for.
        factor: pixels per latent position.
        channels: of the latent.
        zeros_for_empty: the empty prompt is an embedding of zeros, as in Stable Diffusion XL.
        variants: component -> ``fp16`` where only that precision is at hand.
        tokenizers: tokenizer folder -> class name in transformers.
        encoders: text encoder folder -> class name in transformers, of those that it has.
        denoiser: JSON configuration of the network that predicts.
    """

    source: Source
    family: Family
    scheduler: Mapping[str, Any]
    digest: str
    size: tuple[int, int]
    factor: int
    channels: int
    zeros_for_empty: bool
    variants: Mapping[str, str | None]
    tokenizers: Mapping[str, str]
    encoders: Mapping[str, str]
    denoiser: Mapping[str, Any]


def inspect(source: Source) -> Pipeline:
    """Read, check and digest a pipeline; loads no weights.

    Raises:
        ConfigError: a family, or a kind of model, that is not supported, with the reason.
        MissingError: a file is not there.
        DataError: a file is torn or no JSON.
    """
    index = read_config(source.folder / "model_index.json", source=source)
    class_name = str(index.get("_class_name", ""))
    family = _family(class_name, source)
    encoders = {part: name for part, name in family.encoders.items()
                if part not in family.optional or _is_there(index, part)}  # fmt: skip
    folder, _ = family.denoiser
    configs = {
        part: read_config(source.folder / part / "config.json", source=source)
        for part in (folder, "vae", *encoders)
    }
    denoiser, vae = configs[folder], configs["vae"]
    if folder == "unet":
        _check_unet(denoiser, vae, source)
    else:
        _check_transformer(denoiser, vae, family, source)
    files: dict[str, Path] = {
        f"{part}/config.json": source.folder / part / "config.json" for part in configs
    }
    tokenizers = {}
    for part, encoder in zip(family.tokenizers, family.encoders, strict=True):
        if encoder not in encoders:
            continue
        tokenizers[part] = _tokenizer_class(index, part, source)
        found = {name: source.folder / part / name for name in TOKENIZER_FILES}
        files |= {f"{part}/{name}": path for name, path in found.items() if path.is_file()}
    variants: dict[str, str | None] = {}
    if source.checkpoint is None:
        for part in configs:
            shards, variants[part] = component_weights(source, part)
            for number, path in enumerate(shards):
                read_header(path)
                files[f"{part}/weights/{number}"] = path
    else:
        files["checkpoint"] = source.checkpoint
    scheduler = read_config(source.folder / "scheduler" / "scheduler_config.json", source=source)
    zeros = bool(index.get("force_zeros_for_empty_prompt", True)) and family.name == "sdxl"
    factor = 2 ** (len(vae.get("block_out_channels", (1, 1, 1, 1))) - 1)
    # FLUX packs 2 x 2 positions into one token's channels and has no size of its own.
    packed = family.patch**2 if family.name == "flux" else 1
    sized = {"sample_size": 128, **denoiser} if family.flow else denoiser
    return Pipeline(
        source=source,
        family=family,
        scheduler=scheduler,
        digest=digest_files(files, facts={"family": family.name, "zeros_for_empty": zeros}),
        size=_native_size(sized, factor, source, part=folder),
        factor=factor,
        channels=int(denoiser["in_channels"]) // packed,
        zeros_for_empty=zeros,
        variants=variants,
        tokenizers=tokenizers,
        encoders=encoders,
        denoiser=denoiser,
    )


def _is_there(index: Mapping[str, Any], part: str) -> bool:
    """Whether model_index.json names a component; what was left out is ``[null, null]``."""
    entry = index.get(part)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _family(class_name: str, source: Source) -> Family:
    if class_name in FAMILIES:
        return FAMILIES[class_name]
    if class_name in REFUSED:
        raise ConfigError(
            f"generator {source.spec}: {class_name} is not supported: {REFUSED[class_name]}"
        )
    if not class_name:
        raise DataError(
            f"generator {source.spec}: model_index.json names no pipeline class; is this the "
            "folder of a diffusers pipeline?"
        )
    raise ConfigError(
        f"generator {source.spec}: pipeline family {class_name} is not supported; "
        f"{did_you_mean(class_name, FAMILIES)}; supported: {', '.join(FAMILIES)}"
    )


def _check_unet(unet: Mapping[str, Any], vae: Mapping[str, Any], source: Source) -> None:
    if unet.get("time_cond_proj_dim") is not None:
        raise ConfigError(f"generator {source.spec} is not supported: {_DISTILLED}")
    latent = vae.get("latent_channels", 4)
    channels = unet.get("in_channels", 4)
    if "in_channels" not in unet:
        raise DataError(f"generator {source.spec}: unet/config.json has no in_channels")
    if channels != latent:
        raise ConfigError(
            f"generator {source.spec} is not supported: its U-Net takes {channels} channels where "
            f"a latent has {latent}, so it wants a picture or mask beside the text"
        )
    if unet.get("encoder_hid_dim_type") is not None or unet.get("class_embed_type") is not None:
        raise ConfigError(
            f"generator {source.spec} is not supported: its U-Net is conditioned on more than text"
        )


def _check_transformer(
    transformer: Mapping[str, Any], vae: Mapping[str, Any], family: Family, source: Source
) -> None:
    if "in_channels" not in transformer:
        raise DataError(f"generator {source.spec}: transformer/config.json has no in_channels")
    packed = family.patch**2 if family.name == "flux" else 1
    channels, latent = transformer["in_channels"], vae.get("latent_channels", 4)
    if channels != latent * packed:
        raise ConfigError(
            f"generator {source.spec} is not supported: its transformer takes {channels} channels "
            f"where a latent has {latent * packed}, so it wants a picture or mask beside the text"
        )
    if int(transformer.get("patch_size", 1)) * (2 if packed > 1 else 1) != family.patch:
        raise ConfigError(
            f"generator {source.spec} is not supported: its transformer has patches of "
            f"{transformer.get('patch_size')}"
        )


def _tokenizer_class(index: Mapping[str, Any], part: str, source: Source) -> str:
    entry = index.get(part)
    name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    if name not in TOKENIZERS:
        raise ConfigError(
            f"generator {source.spec}: {part} is a {name}, which is not supported; supported: "
            f"{', '.join(TOKENIZERS)}"
        )
    folder = source.folder / part
    whole = (folder / "tokenizer.json").is_file()
    if not whole and name.startswith("T5"):
        raise MissingError(
            f"generator {source.spec}: {folder} has no tokenizer.json, which its T5 needs; "
            f"{source.remedy}"
        )
    if not whole and not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
        raise MissingError(
            f"generator {source.spec}: {folder} has no tokenizer.json and no vocab.json with "
            f"merges.txt; {source.remedy}"
        )
    return str(name)


def _native_size(
    denoiser: Mapping[str, Any], factor: int, source: Source, *, part: str
) -> tuple[int, int]:
    size = denoiser.get("sample_size")
    pair = (size, size) if isinstance(size, int) else size
    try:
        height, width = (int(side) * factor for side in pair)  # type: ignore[union-attr]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"generator {source.spec}: {part}/config.json has sample_size {size!r}; a number or a "
            "pair is needed"
        ) from error
    return height, width
