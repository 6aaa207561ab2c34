"""A CLIP of open_clip as a network: which one, where its weights lie, images and texts to vectors.

Weights come from safetensors only. Nothing is downloaded here but by `fetch_clip`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from negbench import hub
from negbench.errors import (
    ConfigError,
    MissingError,
    NegbenchError,
    UnknownNameError,
    did_you_mean,
    one_line,
)
from negbench.metrics.base import Features, Network, Pixels
from negbench.metrics.long_text import windows
from negbench.metrics.networks import check_pixels, in_fixed_batches
from negbench.types import Ref, canonical_json, sha256_hex
from negbench.weight_files import file_digest, read_header

if TYPE_CHECKING:
    import torch

CONFIG = "open_clip_config.json"
SAFETENSORS = "open_clip_model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
_PREPROCESS = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class Located:
    """Where a CLIP's parts lie.

    Attributes:
        weights: the safetensors file.
        model_cfg: open_clip's description of the two towers.
        preprocess_cfg: mean, std, interpolation and resize mode of its images.
        quick_gelu: the activation the weights were trained with is QuickGELU.
        folder: a folder with config and tokenizer, for models that are folders.
        arch: open_clip's name of the architecture, for built-in models.
        tokenizer: the tokenizer's own files; none for open_clip's built-in byte-pair encoding.
    """

    weights: Path
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    quick_gelu: bool
    folder: Path | None = None
    arch: str | None = None
    tokenizer: tuple[Path, ...] = field(default=())


def _miniature_folder() -> Path:
    from negbench import miniature

    return miniature.clip_dir()


def _in_folder(folder: Path, spec: str, *, fetch: str) -> Located:
    """A CLIP in a folder as open_clip's ``local-dir:`` expects it."""
    config = folder / CONFIG
    if not config.is_file():
        raise MissingError(f"CLIP {spec}: {config} does not exist; {fetch}")
    try:
        described = json.loads(config.read_text(encoding="utf-8"))
        model_cfg = described["model_cfg"]
        preprocess_cfg = described.get("preprocess_cfg", {})
        text_cfg = model_cfg["text_cfg"]
        if not isinstance(preprocess_cfg, dict) or not isinstance(text_cfg, dict):
            raise TypeError("not an object")
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ConfigError(
            f"CLIP {spec}: {config} is no open_clip config ({type(error).__name__}: {error})"
        ) from error
    if not (folder / SAFETENSORS).is_file():
        raise MissingError(
            f"CLIP {spec}: {folder / SAFETENSORS} does not exist (weights are read from "
            f"safetensors only); {fetch}"
        )
    tokenizer = {file for pattern in TOKENIZER_FILES for file in folder.glob(pattern)}
    return Located(
        weights=folder / SAFETENSORS,
        model_cfg=model_cfg,
        preprocess_cfg={k: preprocess_cfg[k] for k in _PREPROCESS if k in preprocess_cfg},
        quick_gelu=bool(model_cfg.get("quick_gelu", False)),
        folder=folder,
        tokenizer=tuple(sorted(tokenizer)) if text_cfg.get("hf_tokenizer_name") else (),
    )


def _split_revision(repo: str) -> tuple[str, str | None]:
    name, _, revision = repo.partition("@")
    return name, revision or None


def _built_in(choice: str) -> tuple[str, dict[str, Any], dict[str, Any], str]:
    """Architecture, its config, its pretrained config and hub repo of ``<model>/<tag>``."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    arch, _, tag = choice.partition("/")
    if arch not in open_clip.list_models():
        hint = did_you_mean(arch, open_clip.list_models())
        raise UnknownNameError(
            f"unknown CLIP {choice!r}; {hint}; write miniature, <model>/<tag>, hf-hub:<repo> or "
            "local-dir:<folder>"
        )
    pretrained = get_pretrained_cfg(arch, tag) if tag else None
    if not pretrained:
        from open_clip.pretrained import list_pretrained_tags_by_model

        hint = did_you_mean(tag, list_pretrained_tags_by_model(arch))
        raise UnknownNameError(f"open_clip has no weights {tag!r} of {arch}; {hint}")
    repo = str(pretrained.get("hf_hub", "")).strip("/")
    if repo.count("/") != 1:
        raise ConfigError(
            f"CLIP {choice}: open_clip names no Hugging Face repo with safetensors for it; "
            "choose another tag, or give hf-hub:<repo>"
        )
    return arch, dict(open_clip.get_model_config(arch)), dict(pretrained), repo


def locate(choice: str) -> Located:
    """Find a CLIP without going online.

    Raises:
        UnknownNameError: open_clip knows no such model or tag.
        MissingError: its files are not at hand; the message has the command that fetches them.
        ConfigError: its folder or description cannot be used.
    """
    if choice == "miniature":
        return _in_folder(
            _miniature_folder(), choice, fetch="reinstall negbench, its weights come with it"
        )
    if choice.startswith("local-dir:"):
        return _in_folder(
            Path(choice.removeprefix("local-dir:")).expanduser(),
            choice,
            fetch="give a folder that open_clip has saved",
        )
    command = f"fetch it with `negbench prefetch clip:{choice}`"
    if choice.startswith("hf-hub:"):
        repo, revision = _split_revision(choice.removeprefix("hf-hub:"))
        config = _cached(repo, CONFIG, revision)
        if config is None or _cached(repo, SAFETENSORS, revision) is None:
            raise MissingError(f"CLIP {choice} is not at hand; {command}")
        return _in_folder(config.parent, choice, fetch=command)
    arch, model_cfg, pretrained, repo = _built_in(choice)
    path = _cached(repo, SAFETENSORS, None)
    if path is None:
        raise MissingError(f"CLIP {choice} (from {repo}) is not at hand; {command}")
    return Located(
        weights=path,
        model_cfg=model_cfg,
        preprocess_cfg={k: pretrained[k] for k in _PREPROCESS if k in pretrained},
        # The activation belongs to the weights: ViT-L-14 with plain GELU and OpenAI's weights is a
        # well known source of wrong aesthetic scores.
        quick_gelu=bool(pretrained.get("quick_gelu", model_cfg.get("quick_gelu", False))),
        arch=arch,
    )


def _cached(repo: str, filename: str, revision: str | None) -> Path | None:
    from huggingface_hub.errors import HFValidationError

    try:
        return hub.cached_file(repo, filename, revision=revision)
    except HFValidationError as error:
        raise ConfigError(
            f"{repo!r} is no Hugging Face repo; write hf-hub:<organisation>/<name>"
        ) from error


def fetch_clip(choice: str) -> Path:
    """Fetch a CLIP's files into the Hugging Face cache (`negbench prefetch`); its weights' path.

    Raises:
        MissingError: no connection, no such repo, or no safetensors in it.
        UnknownNameError: open_clip knows no such model or tag.
    """
    if choice == "miniature" or choice.startswith("local-dir:"):
        return locate(choice).weights
    owner = f"CLIP {choice}"
    if choice.startswith("hf-hub:"):
        repo, revision = _split_revision(choice.removeprefix("hf-hub:"))
        hub.fetch(hub.Repo(repo, revision), [CONFIG, SAFETENSORS, *TOKENIZER_FILES], owner=owner)
    else:
        _, model_cfg, _, repo = _built_in(choice)
        hub.fetch(hub.Repo(repo), [SAFETENSORS], owner=owner)
        tokenizer = model_cfg["text_cfg"].get("hf_tokenizer_name")
        if tokenizer:
            hub.fetch(hub.Repo(tokenizer), ["config.json", *TOKENIZER_FILES], owner=owner)
    try:
        return locate(choice).weights
    except MissingError as error:
        raise MissingError(
            f"CLIP {choice}: {repo} gives no {SAFETENSORS}; weights are read from "
            "safetensors only, choose another model"
        ) from error


class ClipNetwork(Network):
    """Unit-length image and text vectors of a CLIP (2103.00020), float32.

    Images go through the model's own preprocessing (PIL resize, crop, normalisation), texts through
    its own tokenizer; a text longer than its context is embedded in windows (`long_text`).

    Args:
        choice: ``miniature``, ``<model>/<tag>``, ``hf-hub:<repo>[@revision]`` or
            ``local-dir:<folder>``.
    """

    LONG_TEXT = 1
    """Version of the rule for long texts; a part of the identity."""

    def __init__(self, choice: str) -> None:
        super().__init__()
        self.choice = choice

    @cached_property
    def located(self) -> Located:
        """Where the parts lie; see `locate` for what it raises."""
        return locate(self.choice)

    def check(self) -> None:
        """Refuse if the model's files are not at hand, torn, or cannot be used."""
        read_header(self.located.weights)
        self.ref()

    @cached_property
    def _ref(self) -> Ref:
        at = self.located
        described = {
            "model": at.model_cfg,
            "preprocess": at.preprocess_cfg,
            "quick_gelu": at.quick_gelu,
        }
        return Ref(
            name="clip",
            params={
                "config": sha256_hex(canonical_json(described)),
                "weights": file_digest(at.weights),
                "tokenizer": {file.name: file_digest(file) for file in at.tokenizer},
                "long_text": self.LONG_TEXT,
            },
        )

    def ref(self) -> Ref:
        """Identity: towers, weights, preprocessing, tokenizer and the rule for long texts."""
        return self._ref

    @cached_property
    def model(self) -> Any:
        """The open_clip model in evaluation mode, float32, on `device`."""
        import open_clip

        at = self.located
        try:
            if at.folder is not None:
                model = open_clip.create_model(f"local-dir:{at.folder}", precision="fp32")
            else:
                model = open_clip.create_model(
                    str(at.arch),
                    pretrained=str(at.weights),
                    precision="fp32",
                    force_quick_gelu=at.quick_gelu,
                    force_preprocess_cfg=at.preprocess_cfg,
                )
        except NegbenchError:
            raise
        except Exception as error:
            raise self._unusable(error) from error
        return model.eval().requires_grad_(False).to(self.device)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer: a callable on a list of texts, (n, context) token ids."""
        import open_clip

        at = self.located
        try:
            name = f"local-dir:{at.folder}" if at.folder is not None else str(at.arch)
            return open_clip.get_tokenizer(name)
        except Exception as error:
            raise self._unusable(error) from error

    @cached_property
    def _transform(self) -> Any:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        return image_transform_v2(PreprocessCfg(**self.model.visual.preprocess_cfg), is_train=False)

    def _unusable(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"CLIP {self.choice} cannot be loaded: {type(error).__name__}: "
            f"{one_line(str(error), limit=240)}"
        )

    def preprocess(self, image: Pixels) -> Any:
        """uint8 (height, width, 3) to the model's input, float32 (3, size, size)."""
        from PIL import Image

        return self._transform(Image.fromarray(np.ascontiguousarray(check_pixels(image)))).numpy()

    def embed_images(self, images: Sequence[Pixels]) -> Features:
        """Unit-length image vectors, float32 (n, d)."""
        for image in images:
            check_pixels(image)
        model = self.model
        return in_fixed_batches(
            images,
            size=self.batch_size,
            prepare=self.preprocess,
            run=lambda batch: model.encode_image(batch, normalize=True),
            device=self.device,
        )

    def token_count(self, text: str) -> int:
        """Tokens of `text`, start and end tokens not counted."""
        tokenizer = self.tokenizer
        if hasattr(tokenizer, "encode"):
            return len(tokenizer.encode(text))
        cleaned = tokenizer.clean_fn(text) if hasattr(tokenizer, "clean_fn") else text
        ids = tokenizer.tokenizer(cleaned, add_special_tokens=False, verbose=False)["input_ids"]
        return len(ids)

    @cached_property
    def capacity(self) -> int:
        """Tokens of text that fit into the context beside start and end tokens."""
        tokenizer = self.tokenizer
        if hasattr(tokenizer, "encode"):
            special = 2
        elif getattr(tokenizer, "tokenizer_mode", "") == "clips":
            special = 3
        else:
            special = int(tokenizer.tokenizer.num_special_tokens_to_add())
        return int(tokenizer.context_length) - special

    def text_windows(self, text: str) -> list[tuple[str, int]]:
        """The windows `text` is embedded in, each with its number of tokens."""
        return windows(text, count=self.token_count, capacity=self.capacity)

    def embed_texts(self, texts: Sequence[str]) -> Features:
        """Unit-length text vectors, float32 (n, d), of texts of any length."""
        cut = {text: self.text_windows(text) for text in dict.fromkeys(texts)}
        parts = list(dict.fromkeys(part for pieces in cut.values() for part, _ in pieces))
        rows = self._embed_windows(parts)
        place = {part: i for i, part in enumerate(parts)}
        if not texts:
            return rows
        return np.stack([_joined([(rows[place[p]], n) for p, n in cut[text]]) for text in texts])

    def _embed_windows(self, parts: Sequence[str]) -> Features:
        model = self.model

        def run(tokens: torch.Tensor) -> torch.Tensor:
            encoded: torch.Tensor = model.encode_text(tokens, normalize=True)
            return encoded

        ids = [row for part in parts for row in self.tokenizer([part]).numpy()]
        return in_fixed_batches(ids, size=self.batch_size, run=run, device=self.device)


def _joined(parts: Sequence[tuple[Features, int]]) -> Features:
    """One unit vector from windows' unit vectors: mean weighted by tokens, at unit length again."""
    if len(parts) == 1:
        return parts[0][0]
    total = np.zeros(parts[0][0].shape, dtype=np.float64)
    for row, tokens in parts:
        total += row.astype(np.float64) * tokens
    length = float(np.linalg.norm(total))
    return (total / length if length > 0 else total).astype(np.float32)
