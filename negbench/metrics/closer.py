"""Which picture is closer to the twin: the treated one or that of the negative at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from negbench.errors import ConfigError
from negbench.metrics.base import Item
from negbench.metrics.damage import NO_TWIN
from negbench.metrics.presence import TwinJudgedMetric
from negbench.types import Score

NO_RIVAL = "no picture of the negative at every step to compare with"


class CloserToTwin(TwinJudgedMetric):
    """1 if a judge calls the treated picture the closer one, 0 if the other, 1/2 if neither.

    Ban et al. (arXiv 2406.02965) ask a language model once, in a fixed order; here it is asked in
    both orders, and a verdict that flips counts one half. Equal pictures tie unasked. As the
    distance of a removal protocol (`[removal] distance = "closer_to_twin"`) it gives `cr`. Needs a
    judge that compares: ``vlm``.
    """

    unit: ClassVar[str] = "share"
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    needs_rival: ClassVar[bool] = True

    def check(self) -> None:
        """Refuse a judge that cannot be asked, or that compares no pictures."""
        super().check()
        if not self.judge.compares:
            raise ConfigError(
                f"metric closer_to_twin: judge {self.judge.name} does not compare pictures; choose "
                "one that does, for example judge=vlm"
            )

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Ask about each treated picture that has a twin and a rival, all at once."""
        triples = {
            at: (item.twin, item.pixels, item.rival)
            for at, item in enumerate(items)
            if item.twin is not None
            and item.rival is not None
            and not np.array_equal(item.pixels, item.rival)
        }
        answers = self.judge.compare(list(triples.values())) if triples else []
        said = dict(zip(triples, answers, strict=True))
        scores = []
        for at, item in enumerate(items):
            if item.twin is None:
                scores.append(Score.missing(NO_TWIN))
            elif item.rival is None:
                scores.append(Score.missing(NO_RIVAL))
            elif at not in said:
                scores.append(Score.of(0.5))
            else:
                first = said[at].first
                why = said[at].unscored or "no answer"
                scores.append(Score.missing(why) if first is None else Score.of(first))
        return scores
