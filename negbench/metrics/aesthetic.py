"""How much people would like the look of an image: a head over CLIP's image embedding.

For real pictures the head is LAION's improved aesthetic predictor, version 2 (an MLP without
activations over the unit-length embedding of OpenAI's ViT-L/14, about 1 to 10 points,
github.com/christophschuhmann/improved-aesthetic-predictor). The head reads unit-length embeddings
and the CLIP has the activation its weights were trained with (QuickGELU): with either of them
wrong the same pictures score 4.0, 4.4 or 5.0 points.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from negbench.errors import ConfigError, MissingError, one_line
from negbench.metrics import networks, weights
from negbench.metrics.base import ImageMetric, Item, Network
from negbench.types import Score
from negbench.weight_files import file_digest, read_header

if TYPE_CHECKING:
    from negbench.metrics.heads import AestheticHead

BATCH = 32


class HeadConfig(BaseModel):
    """``config.json`` of a head.

    Attributes:
        input_dim: length of the CLIP's image embedding.
        hidden: widths of the hidden layers.
        dropout: rate after each hidden layer, () for none; decides only how layers are numbered.
        activation: between the layers.
        clip: the CLIP whose embedding the head reads.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    input_dim: int = Field(ge=1)
    hidden: tuple[int, ...] = ()
    dropout: tuple[float, ...] = ()
    activation: Literal["none", "relu", "gelu"] = "none"
    clip: str = "miniature"


LAION_V2 = HeadConfig(
    input_dim=768,
    hidden=(1024, 128, 64, 16),
    dropout=(0.2, 0.2, 0.1, 0.0),
    clip="ViT-L-14/openai",
)


@dataclass(frozen=True)
class Located:
    """A head's description and the file of its weights."""

    config: HeadConfig
    weights: Path


def _miniature_folder() -> Path:
    from negbench import miniature

    return miniature.aesthetic_path().parent


def _in_folder(folder: Path) -> Located:
    config, file = folder / "config.json", folder / "model.safetensors"
    for path in (config, file):
        if not path.is_file():
            raise MissingError(
                f"aesthetic head: {path} does not exist; a head is a folder with config.json and "
                "model.safetensors"
            )
    read_header(file)
    try:
        return Located(HeadConfig.model_validate(json.loads(config.read_bytes())), file)
    except (ValueError, ValidationError) as error:
        raise ConfigError(
            f"aesthetic head: {config} describes no head: {one_line(str(error), limit=240)}"
        ) from error


class Aesthetic(ImageMetric):
    """Points of a head over the unit-length CLIP image embedding; higher is better."""

    unit: ClassVar[str] = "points"
    network_fields: ClassVar[tuple[str, ...]] = ("head",)

    class Config(BaseModel):
        """Which head."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        head: str = Field(
            default="miniature",
            description="miniature, laion-v2 (LAION's improved aesthetic predictor) or "
            "local-dir:<folder> with config.json and model.safetensors",
        )

    @cached_property
    def located(self) -> Located:
        """The head's description and weights.

        Raises:
            MissingError: the weights are not at hand.
            ConfigError: the head is not known, or its description cannot be used.
        """
        assert isinstance(self.config, Aesthetic.Config)
        head = self.config.head
        if head == "miniature":
            return _in_folder(_miniature_folder())
        if head == "laion-v2":
            return Located(LAION_V2, weights.find("laion-v2"))
        if head.startswith("local-dir:"):
            return _in_folder(Path(head.removeprefix("local-dir:")).expanduser())
        raise ConfigError(
            f"aesthetic: unknown head {head!r}; write miniature, laion-v2 or local-dir:<folder>"
        )

    def _spec(self) -> str:
        assert isinstance(self.config, Aesthetic.Config)
        # Known without the weights, so that planning can say all that is missing.
        known = {"miniature": "miniature", "laion-v2": LAION_V2.clip}
        clip = known.get(self.config.head)
        return f"clip:{clip if clip is not None else self.located.config.clip}"

    def networks(self) -> Mapping[str, Network]:
        """The CLIP whose embedding the head reads."""
        return {self._spec(): networks.get(self._spec())}

    def weight_digests(self) -> Sequence[str]:
        """Sha256 of the head's weights."""
        return (file_digest(self.located.weights),)

    def check(self) -> None:
        """Refuse while planning if the head or its CLIP is not at hand."""
        self.weight_digests()
        super().check()

    @cached_property
    def head(self) -> AestheticHead:
        """The head in evaluation mode, float32, on the CPU."""
        from negbench.metrics.heads import AestheticHead

        at = self.located
        module = AestheticHead(
            at.config.input_dim,
            hidden=at.config.hidden,
            dropout=at.config.dropout,
            activation=at.config.activation,
        )
        state: dict[str, Any]
        if at.weights.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = {key: value.float() for key, value in load_file(at.weights).items()}
        else:
            state = weights.load_pickle("laion-v2")
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise ConfigError(
                f"aesthetic head: {at.weights} does not fit its description: "
                f"{one_line(str(error), limit=240)}"
            ) from error
        return module.eval().requires_grad_(False)

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Points of each image."""
        head, width = self.head, self.located.config.input_dim
        rows = [item.features[self._spec()] for item in items]
        for row in rows:
            if row.shape != (width,):
                raise ConfigError(
                    f"aesthetic: the head reads {width} numbers, the CLIP {self._spec()} gives "
                    f"{row.shape[-1]}; they do not belong together"
                )
        made = networks.in_fixed_batches(
            [np.asarray(row, dtype=np.float32) for row in rows], size=BATCH, run=head
        )
        return [Score.of(float(value)) for value in made.reshape(-1)]
