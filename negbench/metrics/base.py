"""What a metric is: a number for an image, or for a set of images.

Networks (an Inception, a CLIP, a judge) are parts of their own, so that one pass of a network over
an image serves every metric that uses it. A metric never sees a network's weights: it gets the
features that its networks made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from negbench.types import Case, Ref, Score

if TYPE_CHECKING:
    from negbench.stats import Contrast, Summary

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Item:
    """One image to score, with everything a metric may need.

    Attributes:
        image: digest of the image's pixels (sha256), the key of its features.
        pixels: uint8 (height, width, 3), RGB.
        case: the benchmark's case.
        negative: the negative text that was applied ("" if none).
        twin: pixels of the same prompt and noise without a negative prompt; None if there is none,
            and None for an image that is itself a twin.
        evaluations: denoiser predictions spent on the image.
        rival: for a treated picture of a removal protocol, pixels of the same sample's arm
            ``all_steps``; None everywhere else.
        features: network spec -> this image's features, float32 (d,).
        text_features: (network spec, text) -> unit-length text features, float32 (d,).
    """

    image: str
    pixels: Pixels
    case: Case
    negative: str
    twin: Pixels | None
    evaluations: int
    rival: Pixels | None = None
    features: Mapping[str, Features] = field(default_factory=dict)
    text_features: Mapping[tuple[str, str], Features] = field(default_factory=dict)


class Network(ABC):
    """A frozen network that turns images (and, for a CLIP, texts) into features.

    Every call has one fixed padded shape, so features do not depend on batch-mates.
    """

    batch_size: ClassVar[int] = 32

    def __init__(self) -> None:
        self.device = "cpu"

    def place(self, device: str) -> None:
        """Choose where to compute (``cpu``, ``cuda``, ``cuda:1``), before the first image.

        A run-time choice: it is not part of the identity.
        """
        self.device = device

    @abstractmethod
    def ref(self) -> Ref:
        """Identity: architecture, weights' sha256, preprocessing; never a path or a repo name.

        Raises:
            MissingError: the weights are not at hand.
        """

    @abstractmethod
    def check(self) -> None:
        """Refuse if weights are not at hand.

        Raises:
            MissingError: with the command that fetches them.
        """

    @abstractmethod
    def embed_images(self, images: Sequence[Pixels]) -> Features:
        """Features of uint8 RGB images, float32 (n, d)."""

    def embed_texts(self, texts: Sequence[str]) -> Features:
        """Unit-length features of texts, float32 (n, d), for networks that read text."""
        raise NotImplementedError(f"{type(self).__name__} reads no text")


class Metric(ABC):
    """Common facts of image metrics and set metrics.

    Attributes:
        unit: what the number is in, for example ``cosine``; "1" for a plain ratio.
        higher_is_better: direction, or None where neither is better.
        needs_twin: True if an image without a twin cannot be scored.
        needs_rival: True if only a treated picture with a rival can be scored.
        bounds: smallest and largest value there can be; intervals end there. A metric with bounds
            (0, 1) and unit ``share`` is a proportion.
        network_fields: names of the config fields that choose networks or weights. They may hold a
            path or a repo, so the digests of what they name stand for them in the identity.
    """

    version: ClassVar[int] = 1
    unit: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool | None] = True
    needs_twin: ClassVar[bool] = False
    needs_rival: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float] | None] = None
    network_fields: ClassVar[tuple[str, ...]] = ()

    class Config(BaseModel):
        """The metric's parameters."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, config: BaseModel | None = None) -> None:
        self.config = config if config is not None else self.Config()

    def networks(self) -> Mapping[str, Network]:
        """The networks whose features `Item.features` has to hold, by spec.

        A spec, for example ``clip:miniature``, means the same network in every metric; built-in
        ones come from `negbench.metrics.networks.get`, so that equal specs are one object.
        """
        return {}

    def texts(self, case: Case, negative: str) -> Sequence[tuple[str, str]]:
        """(network spec, text) pairs whose features `Item.text_features` has to hold."""
        return ()

    def check(self) -> None:
        """Refuse while planning if weights or packages are not at hand."""
        for network in self.networks().values():
            network.check()

    def prepare(self, *, device: str, cache: Path) -> None:
        """Told before the first image where to compute and to keep things, beside its networks.

        A run-time choice: it is not part of the identity.

        Args:
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
            cache: negbench's cache.
        """

    def ref(self, name: str) -> Ref:
        """The metric's identity: parameters and the digests of its weights."""
        params = self.config.model_dump(mode="json", exclude=set(self.network_fields))
        digests = sorted(network.ref().digest() for network in self.networks().values())
        return Ref(
            name=name,
            version=self.version,
            params={**params, "weights": [*digests, *self.weight_digests()]},
        )

    def weight_digests(self) -> Sequence[str]:
        """sha256 of weights that are the metric's own, beside those of its networks."""
        return ()


class ImageMetric(Metric):
    """A number for each image."""

    @abstractmethod
    def score(self, items: Sequence[Item]) -> list[Score]:
        """One score an item, in order; a reason where there is no number."""


class SetMetric(Metric):
    """A number for a set of images, with a jackknife over prompts for its interval.

    The set value is a function of per-image rows, so intervals and paired differences can leave
    out one prompt at a time without another pass of any network.
    """

    @abstractmethod
    def rows(self, items: Sequence[Item]) -> Features:
        """What each image adds, float32 (n, d); finite.

        Raises:
            DataError: an image has no usable features.
        """

    @abstractmethod
    def value(self, rows: Features) -> float:
        """The set's value from its rows, (n, d)."""

    def summary(self, rows: Features, prompts: Sequence[str]) -> Summary:
        """The value with its interval by prompt, from rows (n, d).

        Subclasses whose value follows from sums override this and `contrast` with something
        faster, or with an interval on another scale.
        """
        from negbench.stats.functional import rows_summary

        return rows_summary(rows, prompts, self.value)

    def contrast(self, rows: Features, twins: Features, prompts: Sequence[str]) -> Contrast:
        """Images minus twins, with interval and test by prompt, from rows (n, d) of both."""
        from negbench.stats.functional import rows_contrast

        return rows_contrast(rows, twins, prompts, self.value)

    def customary(self, rows: Features) -> Mapping[str, float]:
        """Numbers that people are used to see beside the value, by name, without an interval."""
        return {}
