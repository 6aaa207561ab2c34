"""How well an image fits its prompt, and how much it fits what it should not show.

Both are the cosine in the space of a CLIP (2103.00020) between the image and a text. CLIPScore
(2104.08718), as torchmetrics gives it, is 100 times that cosine, with the mean over images cut off
at zero; nothing is cut off here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from negbench.metrics import networks
from negbench.metrics.base import Features, ImageMetric, Item, Network
from negbench.types import Case, Score, holds_embedding


def is_blank(text: str) -> bool:
    """True if `text` has nothing a person could see."""
    return not any(c.isprintable() and not c.isspace() for c in text)


def cosine(first: Features, second: Features) -> float:
    """Cosine of two vectors (d,), in double precision; NaN if one has no direction."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    if not length > 0:
        return float("nan")
    return float(np.clip(a @ b / length, -1.0, 1.0))


class _ClipCosine(ImageMetric):
    """Cosine of the image and one text of the item."""

    unit: ClassVar[str] = "cosine"
    bounds: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)
    network_fields: ClassVar[tuple[str, ...]] = ("clip",)
    no_text: ClassVar[str]

    class Config(BaseModel):
        """Which CLIP."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        clip: str = Field(
            default="miniature",
            description="miniature, <model>/<tag> of open_clip such as ViT-L-14/openai, "
            "hf-hub:<repo>[@revision] or local-dir:<folder>",
        )

    def _spec(self) -> str:
        assert isinstance(self.config, _ClipCosine.Config)
        return f"clip:{self.config.clip}"

    def _text(self, case: Case, negative: str) -> str:
        raise NotImplementedError

    def networks(self) -> Mapping[str, Network]:
        """The CLIP."""
        return {self._spec(): networks.get(self._spec())}

    def texts(self, case: Case, negative: str) -> Sequence[tuple[str, str]]:
        """The one text to embed, or none if it is blank."""
        text = self._text(case, negative)
        return () if self._why_none(text) else ((self._spec(), text),)

    def _why_none(self, text: str) -> str | None:
        """Why there is nothing to embed, or None."""
        return self.no_text if is_blank(text) else None

    def score(self, items: Sequence[Item]) -> list[Score]:
        """The cosine of each image and its text."""
        scores = []
        for item in items:
            text = self._text(item.case, item.negative)
            why = self._why_none(text)
            if why is not None:
                scores.append(Score.missing(why))
                continue
            image = item.features[self._spec()]
            scores.append(Score.of(cosine(image, item.text_features[self._spec(), text])))
        return scores


class ClipAlignment(_ClipCosine):
    """Cosine of the image and the case's prompt, in [-1, 1]; higher is better.

    The prompt is the benchmark's own, whatever a method made of it.
    """

    no_text: ClassVar[str] = "the prompt is empty"

    def _text(self, case: Case, negative: str) -> str:
        return case.prompt


class ClipToNegative(_ClipCosine):
    """Cosine of the image and the negative prompt applied to it, in [-1, 1]; lower is better."""

    higher_is_better: ClassVar[bool | None] = False
    no_text: ClassVar[str] = "no negative prompt was applied"

    def _text(self, case: Case, negative: str) -> str:
        return negative

    def _why_none(self, text: str) -> str | None:
        if holds_embedding(text):
            return "the negative prompt holds a learned embedding, which no text stands for"
        return super()._why_none(text)
