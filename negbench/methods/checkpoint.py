"""Find a seq2seq checkpoint on this machine, check it and digest it; torch is not needed.

Weights come from safetensors only, and no code of a repo is ever run. Nothing is downloaded here
but by `fetch`, which ``negbench prefetch`` calls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negbench import hub
from negbench.errors import ConfigError, MissingError
from negbench.types import canonical_json, sha256_hex
from negbench.weight_files import file_digest, indexed_shards, read_description, read_header

MINIATURE = "miniature"
SHIPPED = (MINIATURE, "miniature-rl")
"""Checkpoints that come with negbench: by imitation, and then by reward."""

MAX_JSON = 64 << 20
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
TOKENIZER = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "vocab.json")
FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    *TOKENIZER,
)


@dataclass(frozen=True)
class Checkpoint:
    """A seq2seq model folder whose files are all there.

    Attributes:
        spec: as the user gave it.
        folder: where it lies.
        digest: sha256 over the names and bytes of its files.
        config: its ``config.json``.
    """

    spec: str
    folder: Path
    digest: str
    config: dict[str, Any]


def locate(spec: str) -> Path:
    """The folder of a checkpoint: the miniature's, a local one, or a repo in the hub's cache.

    Raises:
        MissingError: it is not on this machine; the message says how to get it.
        ConfigError: a file, or a name that can be none of these.
    """
    if spec in SHIPPED:
        from negbench import miniature

        folder = miniature.negopt_dir() if spec == MINIATURE else miniature.negopt_rl_dir()
        if not folder.is_dir():
            raise MissingError(
                f"method negopt: the miniature's checkpoint {folder} is missing; reinstall negbench"
            )
        return folder
    path = Path(spec).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_file():
        raise ConfigError(
            f"method negopt: checkpoint={spec} is a file; give the model's folder (config.json, "
            f"{WEIGHTS}, tokenizer) or a hub repo as org/name"
        )
    repo = hub.parse(spec)
    if repo is None:
        raise MissingError(
            f"method negopt: checkpoint={spec}: there is no such folder; give a model folder, a "
            f"hub repo as org/name[@revision], or one of {', '.join(SHIPPED)}"
        )
    folder_or_none = hub.cached_snapshot(repo, owner=f"method negopt: checkpoint={spec}")
    if folder_or_none is None:
        raise MissingError(
            f"method negopt: checkpoint={spec} is not on this machine; fetch it with "
            f"`{fetch_command(spec)}`"
        )
    return folder_or_none


def fetch_command(spec: str) -> str:
    """The command that brings a hub repo here."""
    return f"negbench prefetch --method negopt -p checkpoint={spec}"


def inspect(spec: str) -> Checkpoint:
    """Check that a checkpoint is a whole seq2seq model with a tokenizer that fits it.

    Raises:
        MissingError: it, or one of its files, is not on this machine.
        ConfigError: it is no encoder-decoder model, has only pickled weights, or its tokenizer
            knows more tokens than the model.
        DataError: a file is torn or not what its name says.
    """
    folder = locate(spec)
    remedy = (
        f"run `{fetch_command(spec)}`"
        if hub.parse(spec) and not Path(spec).expanduser().is_dir()
        else "copy the whole model folder again"
    )
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise MissingError(
            f"method negopt: checkpoint={spec} has no config.json, so it is no model; {remedy}, or "
            "give another folder"
        )
    config = _json(config_path)
    if config.get("is_encoder_decoder") is not True:
        kind = config.get("model_type") or "unknown"
        raise ConfigError(
            f"method negopt: checkpoint={spec} is a model of type {str(kind)[:40]!r}, not a "
            "sequence-to-sequence model; give a T5, BART or another encoder-decoder model"
        )
    weights = _weights(folder, spec=spec, remedy=remedy)
    shapes: dict[str, Any] = {}
    for file in weights:
        shapes.update(read_header(file))
    if not any((folder / name).is_file() for name in TOKENIZER):
        raise MissingError(
            f"method negopt: checkpoint={spec} has no tokenizer (none of {', '.join(TOKENIZER)}); "
            f"{remedy}"
        )
    _check_vocabulary(folder, config, spec=spec)
    names = [name for name in FILES if (folder / name).is_file()]
    names += [file.name for file in weights]
    table = {name: file_digest(folder / name) for name in sorted(names)}
    return Checkpoint(spec, folder, sha256_hex(canonical_json(table)), config)


def _weights(folder: Path, *, spec: str, remedy: str) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        shards, gone = indexed_shards(folder / INDEX, _json(folder / INDEX))
        if gone is None:
            return shards
        raise MissingError(f"method negopt: checkpoint={spec}: {gone} is missing; {remedy}")
    pickled = [name for name in PICKLES if (folder / name).is_file()]
    if pickled:
        raise ConfigError(
            f"method negopt: checkpoint={spec} has only {pickled[0]}, which is not safe to load; "
            "convert it with `save_pretrained(safe_serialization=True)`"
        )
    raise MissingError(f"method negopt: checkpoint={spec}: {WEIGHTS} is missing; {remedy}")


def _check_vocabulary(folder: Path, config: dict[str, Any], *, spec: str) -> None:
    """A tokenizer with ids beyond the model's embedding would fail on the first such word."""
    size, path = config.get("vocab_size"), folder / "tokenizer.json"
    if not isinstance(size, int) or not path.is_file():
        return
    described = _json(path)
    model, added = described.get("model"), described.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids: list[Any] = []
    if isinstance(vocabulary, dict):
        ids += vocabulary.values()
    elif isinstance(vocabulary, list):
        ids.append(len(vocabulary) - 1)
    if isinstance(added, list):
        ids += [token.get("id") for token in added if isinstance(token, dict)]
    largest = max((i for i in ids if isinstance(i, int)), default=-1)
    if largest >= size:
        raise ConfigError(
            f"method negopt: checkpoint={spec}: the tokenizer has token ids up to {largest} but "
            f"the model only {size} tokens; they do not belong together"
        )


def _json(path: Path) -> dict[str, Any]:
    return read_description(path, owner="method negopt", limit=MAX_JSON)


def fetch(spec: str) -> Path:
    """Download a hub repo's config, tokenizer and safetensors, never pickles or code.

    Raises:
        MissingError: the repo, the revision or its safetensors cannot be reached.
    """
    repo = hub.parse(spec)
    if spec in SHIPPED or repo is None or Path(spec).expanduser().exists():
        return locate(spec)

    def choose(names: list[str]) -> list[str]:
        single = WEIGHTS in names
        shard = re.compile(r"model-\d+-of-\d+\.safetensors")
        chosen = [name for name in names if name in FILES]
        chosen += [n for n in names if n == (WEIGHTS if single else INDEX)]
        chosen += [n for n in names if not single and shard.fullmatch(n)]
        if not any(name.endswith(".safetensors") for name in chosen):
            raise MissingError(
                f"method negopt: {spec} has no {WEIGHTS}; other formats are not loaded; choose "
                "another repo, or convert it into a folder of your own"
            )
        return chosen

    hub.fetch(repo, choose, owner=f"method negopt: checkpoint={spec}")
    return locate(spec)
