"""The most frequent tags of the training split, for every prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from negbench.methods.base import Method
from negbench.methods.texts import joined, tags_of, training_pairs, treatment
from negbench.types import Case, Treatment


class Popular(Method):
    """The k tags that most negative prompts of the training split hold, most frequent first.

    A tag counts once a negative prompt; equal counts stand in alphabetical order.
    """

    uses_training = True
    cacheable = True

    class Config(BaseModel):
        """How many tags."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        k: int = Field(default=10, ge=1, le=100, description="how many tags")

    def check(self) -> None:
        """Refuse a benchmark without training pairs."""
        training_pairs(self, name="popular")

    def tags(self) -> list[str]:
        """The k most frequent tags."""
        assert isinstance(self.config, Popular.Config)
        counts = Counter(
            tag
            for pair in training_pairs(self, name="popular")
            for tag in set(tags_of(pair.negative))
        )
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [tag for tag, _ in ranked[: self.config.k]]

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """The same tags for every case."""
        text = joined(self.tags())
        return [treatment(case, text) for case in cases]
