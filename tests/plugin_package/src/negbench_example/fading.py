"""A guidance rule whose negative fades out over the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from negbench.guidance.base import EMPTY, POSITIVE, Branch, Neutral, Rule, Step, negative

if TYPE_CHECKING:
    import torch


class Fading(Rule):
    """u + s (c - u - f (n - u)), f falling evenly from `strength` to 0; one negative counts."""

    neutral: ClassVar[tuple[Neutral, ...]] = (
        Neutral(equals="empty_negative", params={"strength": 0.0}),
    )

    class Config(BaseModel):
        """How strongly the negative begins."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        strength: float = Field(default=1.0, ge=0, le=10, description="f in the first model call")

    def needs(self, step: Step) -> tuple[Branch, ...]:
        """Empty prompt, negative, prompt; no negative where it has no weight."""
        if self._factor(step) == 0:
            return (EMPTY, POSITIVE)
        return (EMPTY, negative(0), POSITIVE)

    def combine(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """The formula above; it remembers nothing, so the state stays as it is."""
        base = predictions[EMPTY]
        direction = predictions[POSITIVE] - base
        factor = self._factor(step)
        if factor:
            direction = direction - factor * (predictions[negative(0)] - base)
        return base + self.scale * direction, state

    def _factor(self, step: Step) -> float:
        assert isinstance(self.config, Fading.Config)
        if not self.weights:
            return 0.0
        return self.config.strength * self.weights[0] * (1 - step.index / step.total)
