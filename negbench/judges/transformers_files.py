"""Models of transformers for judges: found without going online, safetensors only, by digest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from negbench import hub
from negbench.errors import ConfigError, MissingError, NegbenchError, one_line
from negbench.types import canonical_json, sha256_hex
from negbench.weight_files import file_digest, read_header

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DESCRIPTIONS = ("*.json", "*.txt", "*.jinja", "*.model")
"""Everything beside the weights that a model, its tokenizer and its image processor read."""

MAX_JSON = 32 << 20


@dataclass(frozen=True)
class ModelFiles:
    """A model in a folder or in the hub's cache.

    Attributes:
        spec: a folder, or ``org/name[@revision]``.
        owner: begins every message, for example ``judge detector``.
        command: what fetches the model.
    """

    spec: str
    owner: str
    command: str

    @classmethod
    def of_judge(cls, name: str, model: str) -> ModelFiles:
        """The files of the parameter ``model`` of a judge, by the judge's name."""
        return cls(
            spec=model,
            owner=f"judge {name}",
            command=f"negbench prefetch --judge {name} -p model={model}",
        )

    @cached_property
    def folder(self) -> Path:
        """Where the files lie.

        Raises:
            MissingError: they are not on this machine.
            ConfigError: the name can be neither a folder nor a repo.
        """
        path = Path(self.spec).expanduser()
        if path.is_dir():
            return path
        repo = hub.parse(self.spec)
        if repo is None:
            raise ConfigError(
                f"{self.owner}: {one_line(self.spec, limit=120)!r} is neither a folder nor a repo; "
                "write org/name[@revision] or the path of a folder"
            )
        cached = hub.cached_snapshot(repo, owner=self.owner)
        if cached is None:
            raise MissingError(
                f"{self.owner}: {self.spec} is not at hand; fetch it with `{self.command}`"
            )
        return cached

    def weights(self) -> list[Path]:
        """The files of weights, sorted.

        Raises:
            MissingError: there are none, or one that the index names is missing.
        """
        whole, index = self.folder / WEIGHTS, self.folder / INDEX
        if whole.is_file():
            return [whole]
        if not index.is_file():
            raise MissingError(
                f"{self.owner}: {self.folder} has no {WEIGHTS} (weights are read from safetensors "
                f"only); fetch it with `{self.command}` or choose another model"
            )
        names = set(self._json(index).get("weight_map", {}).values())
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ConfigError(f"{self.owner}: {index} names files outside its folder")
        files = sorted(self.folder / name for name in names)
        lacking = [file.name for file in files if not file.is_file()]
        if lacking or not files:
            raise MissingError(
                f"{self.owner}: {self.folder} lacks {', '.join(lacking[:3]) or 'all weights'}; "
                f"fetch it with `{self.command}`"
            )
        return files

    def _json(self, path: Path) -> dict[str, Any]:
        try:
            if path.stat().st_size > MAX_JSON:
                raise ValueError(f"larger than {MAX_JSON} bytes")
            value = json.loads(path.read_bytes())
            if not isinstance(value, dict):
                raise ValueError("not an object")
        except FileNotFoundError as error:
            raise MissingError(
                f"{self.owner}: {path} does not exist; fetch it with `{self.command}`"
            ) from error
        except (ValueError, OSError, RecursionError) as error:
            raise ConfigError(f"{self.owner}: {path} cannot be used ({error})") from error
        return value

    def model_type(self) -> str:
        """The architecture that config.json names, for example ``owlv2``."""
        return str(self._json(self.folder / "config.json").get("model_type", ""))

    def check(self, families: tuple[str, ...] | None = None) -> None:
        """Refuse if files are missing or torn, or if the model is of another family."""
        kind = self.model_type()
        if families is not None and kind not in families:
            raise ConfigError(
                f"{self.owner}: {self.spec} is a {kind or 'model without a type'}; it has to be "
                f"one of {', '.join(families)}"
            )
        for path in self.weights():
            read_header(path)

    def digest(self) -> str:
        """sha256 over names and contents of weights, configs and tokenizer."""
        paths = {file for pattern in DESCRIPTIONS for file in self.folder.glob(pattern)}
        files = [*(path for path in paths if path.name != INDEX), *self.weights()]
        parts = {path.name: file_digest(path) for path in files if path.is_file()}
        return sha256_hex(canonical_json(parts))

    def load(self, cls: Any, **options: Any) -> Any:
        """``cls.from_pretrained`` on the folder, offline, and without running any of its code."""
        return self._guarded(
            lambda: cls.from_pretrained(
                str(self.folder), local_files_only=True, trust_remote_code=False, **options
            )
        )

    def _guarded(self, load: Callable[[], Any]) -> Any:
        try:
            return load()
        except NegbenchError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{self.owner}: {self.spec} cannot be loaded: {type(error).__name__}: "
                f"{one_line(str(error), limit=240)}"
            ) from error

    def fetch(self) -> Path:
        """Fetch the model into the Hugging Face cache (``negbench prefetch``).

        Raises:
            MissingError: no connection, no such repo, or no safetensors in it.
        """
        if Path(self.spec).expanduser().is_dir():
            return self.folder
        repo = hub.parse(self.spec)
        if repo is None:
            return self.folder
        hub.fetch(repo, _wanted, owner=self.owner)
        self.check()
        return self.folder


def _wanted(names: list[str]) -> list[str]:
    """The files of a repo that a judge reads: nothing in folders, no pickles."""
    from fnmatch import fnmatch

    top = [name for name in names if "/" not in name]
    shards = [WEIGHTS] if WEIGHTS in top else [n for n in top if fnmatch(n, "model-*.safetensors")]
    described = [n for n in top if any(fnmatch(n, pattern) for pattern in DESCRIPTIONS)]
    return [*shards, *described]


def choose_device(device: str) -> str:
    """``auto`` to ``cuda`` if there is one, else ``cpu``; anything else as it is."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
