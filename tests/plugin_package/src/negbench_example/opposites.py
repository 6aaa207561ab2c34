"""A method that forbids the opposite of what the prompt asks for."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from negbench.methods import Method
from negbench.types import Case, Negative, Treatment

OPPOSITES = {"day": "night", "night": "day", "small": "large", "old": "new", "sketch": "photo"}


class Opposites(Method):
    """Forbid the opposites of the prompt's words."""

    class Config(BaseModel):
        """How strongly."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        strength: float = Field(default=1.0, gt=0, le=10, description="weight of the negative")

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """The opposites of each prompt's words; none where it has no word with an opposite."""
        assert isinstance(self.config, Opposites.Config)
        treatments = []
        for case in cases:
            text = ", ".join(OPPOSITES[w] for w in case.prompt.lower().split() if w in OPPOSITES)
            negatives = (Negative(text=text, weight=self.config.strength),) if text else ()
            treatments.append(Treatment(prompt=case.prompt, negatives=negatives))
        return treatments
