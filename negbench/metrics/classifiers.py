"""Classifiers as networks: Inception v3, the miniature's subject classifier, the presence judge."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from negbench.errors import ConfigError, MissingError, UnknownNameError, did_you_mean, one_line
from negbench.metrics import weights
from negbench.metrics.base import Features, Network, Pixels
from negbench.metrics.networks import check_pixels, in_fixed_batches
from negbench.types import Ref, canonical_json, sha256_hex
from negbench.weight_files import file_digest, read_header

if TYPE_CHECKING:
    import torch


def build_inception(choice: str) -> Network:
    """The network of ``inception:<choice>``.

    Raises:
        UnknownNameError: there is no such choice.
    """
    if choice == "inception-v3":
        return InceptionV3()
    if choice == "miniature":
        return SmallClassifier(miniature_folder("inception"), name="inception-miniature")
    hint = did_you_mean(choice, ("miniature", "inception-v3"))
    raise UnknownNameError(f"unknown Inception network {choice!r}; {hint}")


class InceptionV3(Network):
    """Inception v3 as the Inception Score's authors used it, through torch-fidelity.

    Weights converted from the TensorFlow graph of 2015-12-05, resize to 299 as TensorFlow 1 does
    it, and the 1008 logits without their bias (``logits_unbiased``), as torch-fidelity and
    torchmetrics have it. Images keep their size until then: a batch holds images of one size.
    """

    batch_size = 16
    LAYER = "logits_unbiased"

    def ref(self) -> Ref:
        """Identity: weights, layer and resize."""
        return Ref(
            name="inception-v3",
            params={
                "weights": weights.FILES["inception-v3"].sha256,
                "layer": self.LAYER,
                "resize": "tensorflow-1-bilinear-299",
            },
        )

    def check(self) -> None:
        """Refuse if the weights are not at hand."""
        weights.find("inception-v3")

    @cached_property
    def module(self) -> Any:
        """torch-fidelity's extractor, float32, on `device`."""
        import torch
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # The extractor reads its file as an unrestricted pickle. It gets one that was written
        # here, from tensors alone.
        clean = io.BytesIO()
        torch.save(weights.load_pickle("inception-v3"), clean)
        clean.seek(0)
        module = FeatureExtractorInceptionV3("inception-v3", [self.LAYER], clean)
        return module.eval().requires_grad_(False).to(self.device)

    def embed_images(self, images: Sequence[Pixels]) -> Features:
        """Logits, float32 (n, 1008)."""
        module = self.module

        def run(batch: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = module(batch)[0]
            return logits

        return in_fixed_batches(
            [check_pixels(image) for image in images],
            size=self.batch_size,
            prepare=lambda image: np.ascontiguousarray(image.transpose(2, 0, 1)),
            run=run,
            device=self.device,
        )


class SmallClassifier(Network):
    """One of the miniature's own classifiers: a folder with config.json and model.safetensors.

    Pictures of another size than the network's are resized (PIL, bicubic), then normalised as the
    config says.

    Args:
        folder: where the two files lie.
        name: of the network, a part of its identity.
    """

    def __init__(self, folder: Path, *, name: str) -> None:
        super().__init__()
        self.folder = folder
        self.name = name

    @cached_property
    def described(self) -> dict[str, Any]:
        """The network's config.

        Raises:
            MissingError: the folder lacks a file.
            ConfigError: the config cannot be used.
        """
        for name in ("config.json", "model.safetensors"):
            if not (self.folder / name).is_file():
                raise MissingError(
                    f"{self.name}: {self.folder / name} does not exist; reinstall negbench, its "
                    "weights come with it"
                )
        try:
            config = json.loads((self.folder / "config.json").read_bytes())
            size, channels = config["image_size"], (config["mean"], config["std"])
            fits = size >= 1 and all(len(values) == 3 for values in channels)
            if not (fits and config["labels"] and config["kind"] in {"softmax", "sigmoid"}):
                raise ValueError("values out of range")
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.name}: {self.folder / 'config.json'} describes no classifier "
                f"({type(error).__name__}: {error})"
            ) from error
        return dict(config)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(str(label) for label in self.described["labels"])

    @cached_property
    def _ref(self) -> Ref:
        return Ref(
            name=self.name,
            params={
                "config": sha256_hex(canonical_json(self.described)),
                "weights": file_digest(self.folder / "model.safetensors"),
                "resize": "pil-bicubic",
            },
        )

    def ref(self) -> Ref:
        """Identity: config and weights."""
        return self._ref

    def check(self) -> None:
        """Refuse if the weights are not at hand, or torn."""
        self.ref()
        read_header(self.folder / "model.safetensors")

    @cached_property
    def module(self) -> Any:
        """The network in evaluation mode, float32, on `device`."""
        self.check()
        from negbench.miniature.nets import load_classifier

        try:
            module = load_classifier(self.folder)
        except Exception as error:
            raise ConfigError(
                f"{self.name}: weights in {self.folder} cannot be loaded: {type(error).__name__}: "
                f"{one_line(str(error), limit=240)}"
            ) from error
        return module.eval().requires_grad_(False).to(self.device)

    def preprocess(self, image: Pixels) -> Features:
        """uint8 (height, width, 3) to float32 (3, size, size)."""
        size = int(self.described["image_size"])
        if image.shape[:2] != (size, size):
            from PIL import Image

            picture = Image.fromarray(np.ascontiguousarray(image))
            image = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
        mean = np.asarray(self.described["mean"], dtype=np.float32)
        std = np.asarray(self.described["std"], dtype=np.float32)
        scaled = (image.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))

    def embed_images(self, images: Sequence[Pixels]) -> Features:
        """Logits, float32 (n, labels)."""
        return in_fixed_batches(
            [check_pixels(image) for image in images],
            size=self.batch_size,
            prepare=self.preprocess,
            run=self.module,
            device=self.device,
        )


class Judge(SmallClassifier):
    """The presence judge: which parts, attributes and defects a picture shows.

    Its features are probabilities, one a label, each for itself; the order is that of `labels`.

    Args:
        choice: ``miniature``.
    """

    def __init__(self, choice: str) -> None:
        if choice != "miniature":
            raise UnknownNameError(
                f"unknown judge {choice!r}; {did_you_mean(choice, ('miniature',))}"
            )
        super().__init__(miniature_folder("judge"), name="judge-miniature")

    def embed_images(self, images: Sequence[Pixels]) -> Features:
        """Probability of each label, float32 (n, labels)."""
        logits = super().embed_images(images).astype(np.float64)
        with np.errstate(over="ignore"):
            return (1 / (1 + np.exp(-logits))).astype(np.float32)


def miniature_folder(part: Literal["inception", "judge"]) -> Path:
    """Where the miniature's weights of `part` lie."""
    from negbench import miniature

    return miniature.inception_dir() if part == "inception" else miniature.judge_dir()
