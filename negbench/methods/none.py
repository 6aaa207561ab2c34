"""No negative prompt at all: the twin itself."""

from __future__ import annotations

from collections.abc import Sequence

from negbench.methods.base import Method
from negbench.types import Case, Treatment


class NoNegative(Method):
    """Leave every prompt without a negative prompt: what every other method is held against."""

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """The prompts alone."""
        return [Treatment(prompt=case.prompt) for case in cases]
