"""What an image cost to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from negbench.metrics.base import ImageMetric, Item
from negbench.types import Score


class Evaluations(ImageMetric):
    """Denoiser predictions spent on the image: rows of network calls; lower is better.

    Plain CFG spends two a step, a distilled model one, rules with a third prediction three.
    """

    unit: ClassVar[str] = "predictions"
    higher_is_better: ClassVar[bool | None] = False
    bounds: ClassVar[tuple[float, float] | None] = (0.0, math.inf)

    def score(self, items: Sequence[Item]) -> list[Score]:
        """The count of each image."""
        return [Score.of(item.evaluations) for item in items]
