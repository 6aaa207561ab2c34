"""The case's own concept as the negative prompt: what removal benchmarks ask of a rule."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, field_validator

from negbench.errors import ConfigError, one_line
from negbench.methods.base import Method
from negbench.types import Case, Negative, Treatment

PLACE = "{concept}"


class Concept(Method):
    """The concept that should not be seen, by its bare name, as the negative prompt."""

    class Config(BaseModel):
        """How the concept is put."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        template: str = Field(
            default=PLACE, max_length=1000, description="the text, with {concept} in it"
        )
        weight: float = Field(default=1.0, description="of the negative (1 = plain)")

        @field_validator("template")
        @classmethod
        def _has_place(cls, value: str) -> str:
            if PLACE not in value:
                raise ValueError(f"the text has to hold {PLACE}")
            return value

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """One negative a case: its concept.

        Raises:
            ConfigError: a case has no concept.
        """
        assert isinstance(self.config, Concept.Config)
        treatments = []
        for case in cases:
            concept = (case.concept or "").strip()
            if not concept:
                raise ConfigError(
                    f"method concept: case {one_line(case.id, limit=60)!r} has no concept; take a "
                    "removal benchmark, or a prompts file with a column concept"
                )
            text = self.config.template.replace(PLACE, concept)
            negative = Negative(text=text, weight=self.config.weight)
            treatments.append(Treatment(prompt=case.prompt, negatives=(negative,)))
        return treatments
