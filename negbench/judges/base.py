"""What a judge is: an image and a concept to the probability that the concept is visible.

A judge answers with a `Verdict`: a probability or the reason why there is none, and where it can
say so the region it saw the concept in. Judges that read a network's features name the network in
`Judge.networks`, so that one pass over an image serves every judge and metric; judges that are
dear to ask (`negbench.judges.kept.KeptJudge`) have each verdict kept as it comes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from negbench.metrics.base import Features, Network, Pixels
from negbench.types import Ref, Score

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, each in [0, 1] of the picture's width or height."""

Mask = npt.NDArray[np.bool_]
"""bool (height, width), True where the concept is seen."""

PRESENT_FROM = 0.5
"""A concept counts as visible where its probability is greater than this."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a judge says of one concept in one image.

    Attributes:
        probability: that the concept is visible, in [0, 1]; None if `unscored` says why.
        unscored: the reason why there is no probability.
        boxes: where the concept is seen; none if the judge does not say where, or sees none.
        mask: the same pixel by pixel, of the image's own size.
    """

    probability: float | None = None
    unscored: str | None = None
    boxes: tuple[Box, ...] = ()
    mask: Mask | None = None

    def __post_init__(self) -> None:
        if (self.probability is None) == (self.unscored is None):
            raise ValueError("a verdict is a probability or a reason, exactly one of them")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"a probability lies between 0 and 1, got {self.probability}")
        for box in self.boxes:
            left, top, right, bottom = box
            if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
                raise ValueError(f"a box is (left, top, right, bottom) in [0, 1], got {box}")

    @classmethod
    def of(
        cls, probability: float, *, boxes: Sequence[Box] = (), mask: Mask | None = None
    ) -> Verdict:
        """The verdict `probability`; one that is not finite becomes a reason."""
        number = float(probability)
        if not math.isfinite(number):
            return cls.missing(f"the judge's probability is not finite: {number}")
        return cls(probability=min(max(number, 0.0), 1.0), boxes=tuple(boxes), mask=mask)

    @classmethod
    def missing(cls, reason: str) -> Verdict:
        """No probability, and why."""
        return cls(unscored=reason)

    @property
    def present(self) -> bool | None:
        """Whether the concept is visible, None where there is no probability."""
        return None if self.probability is None else self.probability > PRESENT_FROM

    @property
    def box(self) -> Box | None:
        """The smallest box around all boxes, or None."""
        if not self.boxes:
            return None
        lefts, tops, rights, bottoms = zip(*self.boxes, strict=True)
        return min(lefts), min(tops), max(rights), max(bottoms)

    def score(self) -> Score:
        """The probability as a metric's score."""
        if self.probability is None:
            return Score.missing(self.unscored or "no verdict")
        return Score.of(self.probability)

    def region(self, height: int, width: int) -> Mask | None:
        """The mask, or all boxes as one: bool (height, width), or None if there is neither."""
        if self.mask is not None:
            return self.mask if self.mask.shape == (height, width) else None
        if not self.boxes:
            return None
        region = np.zeros((height, width), dtype=np.bool_)
        for left, top, right, bottom in self.boxes:
            rows = slice(math.floor(top * height), math.ceil(bottom * height))
            columns = slice(math.floor(left * width), math.ceil(right * width))
            region[rows, columns] = True
        return region


@dataclass(frozen=True, eq=False)
class Question:
    """Is this concept visible in this image?

    Attributes:
        image: digest of the image's pixels (`negbench.store.pixel_digest`).
        pixels: uint8 (height, width, 3), RGB.
        concept: a word or phrase, as a case names it.
        features: network spec -> this image's features, for the judge's own networks.
        text_features: (network spec, text) -> unit-length text features, for the judge's texts.
    """

    image: str
    pixels: Pixels
    concept: str
    features: Mapping[str, Features] = field(default_factory=dict)
    text_features: Mapping[tuple[str, str], Features] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Which of two images is closer to a reference.

    Attributes:
        first: 1 if the first is closer, 0 if the second is, 1/2 where the verdict flips with the
            order of asking (or names neither); None if `unscored` says why.
        unscored: the reason why there is no answer.
        flipped: the two orders of asking gave opposite answers.
    """

    first: float | None = None
    unscored: str | None = None
    flipped: bool = False


class Judge(ABC):
    """Says whether a concept is visible in an image.

    Attributes:
        version: goes up when the code changes what the judge says.
        gives_region: verdicts on visible concepts have a box or a mask.
        compares: the judge can say which of two images is closer to a reference.
        network_fields: names of the config fields that choose weights, places or ways of asking.
            They may hold a path or an address, so the identity has the weights' digests instead.
    """

    version: ClassVar[int] = 1
    gives_region: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    network_fields: ClassVar[tuple[str, ...]] = ()

    class Config(BaseModel):
        """The judge's parameters."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, config: BaseModel | None = None) -> None:
        self.config = config if config is not None else self.Config()
        self.name = "judge"
        self.device = "auto"
        self.cache: Path | None = None

    def prepare(self, *, device: str = "auto", cache: Path | None = None) -> None:
        """Choose where to compute and where to keep verdicts, before the first question.

        A run-time choice: it is not part of the identity.

        Args:
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
            cache: negbench's cache, or None for the default one.
        """
        self.device, self.cache = device, cache

    def networks(self) -> Mapping[str, Network]:
        """The networks whose features `Question.features` has to hold, by spec."""
        return {}

    def texts(self, concept: str) -> Sequence[tuple[str, str]]:
        """(network spec, text) pairs whose features `Question.text_features` has to hold."""
        return ()

    def check(self) -> None:
        """Refuse while planning if weights, packages, a key or a file are not at hand."""
        for network in self.networks().values():
            network.check()

    def prefetch(self) -> None:
        """Fetch what `check` would miss (``negbench prefetch --judge``); nothing by default."""

    def ref(self) -> Ref:
        """The judge's identity: parameters and the digests of its weights."""
        params = self.config.model_dump(mode="json", exclude=set(self.network_fields))
        digests = sorted(network.ref().digest() for network in self.networks().values())
        return Ref(
            name=self.name,
            version=self.version,
            params={**params, "weights": [*digests, *self.weight_digests()]},
        )

    def weight_digests(self) -> Sequence[str]:
        """sha256 of weights that are the judge's own, beside those of its networks."""
        return ()

    def cost(self) -> Mapping[str, float]:
        """What asking has cost in this process, by name; nothing where nothing is counted."""
        return {}

    def vocabulary(self) -> Sequence[str] | None:
        """All concepts that the judge knows, or None if it may be asked for any."""
        return None

    @abstractmethod
    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """One verdict a question, in order."""

    def list_concepts(self, images: Sequence[Pixels]) -> list[Verdict | tuple[str, ...]]:
        """For each image the prominent concepts a judge sees without being told any, or a reason.

        Raises:
            NotImplementedError: the judge only answers questions; ask its `vocabulary` instead.
        """
        raise NotImplementedError(f"judge {self.name} lists no concepts of its own accord")

    def compare(self, triples: Sequence[tuple[Pixels, Pixels, Pixels]]) -> list[Comparison]:
        """For each (reference, first, second) which of two images is closer to the reference.

        Asked in both orders, so that a liking for a place among the pictures decides nothing.

        Raises:
            NotImplementedError: the judge does not compare (`compares` is False).
        """
        raise NotImplementedError(f"judge {self.name} does not compare images")
