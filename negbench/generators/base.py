"""What a generator is: it turns requests into images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, JsonValue

from negbench.errors import ConfigError
from negbench.types import Guidance, ImageRequest, Negative, Ref

if TYPE_CHECKING:
    from negbench.embedding import Embedding


@dataclass(frozen=True)
class RunOptions:
    """Run-time choices: they decide speed, not identity.

    Attributes:
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``auto``.
        batch_size: rows in a batch, or None for the generator's own choice.
        compile: compile the denoiser first (``torch.compile``): minutes before the first image,
            faster from then on. Its sums round otherwise, so on the CPU pictures equal those drawn
            without it within a grey level, no longer to the bit.
        ray: address of a Ray cluster that draws (``local``, ``auto``, ``ray://...``), or None.
        ray_workers: copies of the generator there, or None for one a GPU.
    """

    device: str = "auto"
    batch_size: int | None = None
    compile: bool = False
    ray: str | None = None
    ray_workers: int | None = None


@dataclass(frozen=True)
class Drawn:
    """One finished image.

    Attributes:
        key: the request's key.
        pixels: uint8, (height, width, 3), RGB.
        evaluations: denoiser predictions (rows of network calls) that this image costs alone.
        facts: what else is worth keeping, for example ``truncated_tokens``.
        shared: those of the evaluations that were made for another image of the same call of
            `draw`, too, and are counted there.
    """

    key: str
    pixels: npt.NDArray[np.uint8]
    evaluations: int
    facts: dict[str, JsonValue] = field(default_factory=dict)
    shared: int = 0


class Generator(ABC):
    """Draws images. Built while planning; loads heavy parts on the first `draw`.

    A plug-in is built as ``cls(config, options=options)`` with its own `Config` and `RunOptions`.
    """

    version: ClassVar[int] = 1

    class Config(BaseModel):
        """What determines pixels: weights' digest, dtype, scheduler, steps, size."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def ref(self) -> Ref:
        """The generator's identity: weights and configs by digest, never by path or repo name."""

    @abstractmethod
    def default_guidance(self) -> Guidance:
        """Plain CFG at the scale this generator is meant to be used with."""

    def check_guidance(self, guidance: Guidance) -> None:
        """Refuse, with a NegbenchError, a rule that this generator cannot carry out."""

    def refuse_ignored(self, guidance: Guidance, negatives: Sequence[Negative]) -> None:
        """Refuse, with a NegbenchError, guidance under which `negatives` would do nothing.

        A generator that knows its schedule asks `negbench.guidance.effect`; this one does not.
        """

    def take_embedding(self, embedding: Embedding) -> None:
        """Check and keep an embedding that negatives of later requests name.

        Raises:
            ConfigError: it does not fit, or this generator takes none.
        """
        raise ConfigError(
            f"embedding {embedding.source}: generator {self.ref().name} takes no embeddings; "
            "choose one of Stable Diffusion 1.x, 2.x or XL"
        )

    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width of its images, in pixels."""

    @abstractmethod
    def evaluations(self, request: ImageRequest) -> int:
        """Denoiser predictions that `request` needs, for forecasts."""

    def needed(self, requests: Sequence[ImageRequest]) -> int:
        """Predictions that one call of `draw` makes for `requests`, which may share some."""
        return sum(self.evaluations(request) for request in requests)

    @abstractmethod
    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Drawn]:
        """Draw each request once; results come as they are finished, in any order."""

    def describe(self) -> dict[str, JsonValue]:
        """Provenance for people: where it was loaded from, family, device, library versions."""
        return {}
