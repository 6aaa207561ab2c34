"""Whether an embedding fits the text encoders of a pipeline: known while planning."""

from __future__ import annotations

import json
from typing import Any

from negbench.embedding import Embedding
from negbench.errors import ConfigError
from negbench.generators.families import Pipeline
from negbench.generators.weights import read_config

FAMILIES = ("sd", "sdxl")


def check_embedding(embedding: Embedding, pipeline: Pipeline) -> None:
    """Refuse an embedding that was not made for models of this kind.

    Raises:
        ConfigError: a family, a width or a number of positions that does not fit; the message has
            the file's and the model's.
    """
    spec, said = pipeline.source.spec, f"embedding {embedding.source}"
    if pipeline.family.name not in FAMILIES:
        raise ConfigError(
            f"{said}: embeddings are taken by Stable Diffusion 1.x, 2.x and XL; generator {spec} "
            f"is of family {pipeline.family.name}"
        )
    configs = {part: _config(pipeline, part) for part in pipeline.encoders}
    positions = min(
        *(int(config["max_position_embeddings"]) for config in configs.values()),
        *(_longest(pipeline, part) for part in pipeline.tokenizers),
    )
    if embedding.whole:
        _check_whole(embedding, pipeline, configs, positions)
    else:
        _check_vectors(embedding, pipeline, configs, positions)


def _check_vectors(
    embedding: Embedding, pipeline: Pipeline, configs: dict[str, dict[str, Any]], positions: int
) -> None:
    spec, said = pipeline.source.spec, f"embedding {embedding.source}"
    if len(embedding.tensors) != len(configs):
        raise ConfigError(
            f"{said} has vectors for {_encoders(len(embedding.tensors))}, {_widths(embedding)} "
            f"wide, and generator {spec} reads with {_encoders(len(configs))}; take an embedding "
            f"made for {'SDXL (clip_l and clip_g)' if len(configs) > 1 else 'its family'}"
        )
    for array, (part, config) in zip(embedding.tensors.values(), configs.items(), strict=True):
        if array.shape[1] != config["hidden_size"]:
            raise ConfigError(
                f"{said} has vectors {array.shape[1]} wide, and {part} of generator {spec} takes "
                f"{config['hidden_size']}; take an embedding made for this model"
            )
    if embedding.vectors > positions - 2:
        raise ConfigError(
            f"{said} has {embedding.vectors} vectors, and the text encoder of generator {spec} has "
            f"room for {positions - 2}; a whole conditioning is (1, {positions}, width)"
        )


def _check_whole(
    embedding: Embedding, pipeline: Pipeline, configs: dict[str, dict[str, Any]], positions: int
) -> None:
    spec, said = pipeline.source.spec, f"embedding {embedding.source}"
    context, pooled = embedding.tensors["context"], embedding.tensors.get("pooled")
    width = sum(int(config["hidden_size"]) for config in configs.values())
    if context.shape != (positions, width):
        raise ConfigError(
            f"{said} is a conditioning of shape {context.shape}, and that of generator {spec} is "
            f"{(positions, width)}; take an embedding made for this model"
        )
    if pipeline.family.name != "sdxl":
        if pooled is not None:
            raise ConfigError(f"{said} has a pooled text, which generator {spec} does not take")
        return
    expected = int(list(configs.values())[-1]["projection_dim"])
    if pooled is None or pooled.shape[1] != expected:
        has = "no pooled text" if pooled is None else f"a pooled text {pooled.shape[1]} wide"
        raise ConfigError(
            f"{said} has {has}, and generator {spec} takes one {expected} wide, named "
            "negative_pooled_prompt_embeds"
        )


def _config(pipeline: Pipeline, part: str) -> dict[str, Any]:
    return dict(read_config(pipeline.source.folder / part / "config.json", source=pipeline.source))


def _longest(pipeline: Pipeline, part: str) -> int:
    """Positions that a tokenizer fills, as its configuration says."""
    path = pipeline.source.folder / part / "tokenizer_config.json"
    try:
        return int(json.loads(path.read_bytes())["model_max_length"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return 1 << 30


def _encoders(count: int) -> str:
    return "one text encoder" if count == 1 else f"{count} text encoders"


def _widths(embedding: Embedding) -> str:
    return " and ".join(str(array.shape[1]) for array in embedding.tensors.values())
