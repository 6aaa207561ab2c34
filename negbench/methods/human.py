"""The negative prompt that the case's own user wrote."""

from __future__ import annotations

from collections.abc import Sequence

from negbench.methods.base import Method
from negbench.methods.texts import treatment
from negbench.types import Case, Treatment


class Human(Method):
    """The negative prompt that came with the prompt in the data set; none where none came."""

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """Each case's own negative prompt."""
        return [treatment(case, case.negative or "") for case in cases]

    def notes(self, cases: Sequence[Case]) -> list[str]:
        """How many cases have no negative prompt of their own."""
        without = sum(not (case.negative or "").strip() for case in cases)
        if not without:
            return []
        return [f"human: {without} of {len(cases)} cases have no negative prompt of their own"]
