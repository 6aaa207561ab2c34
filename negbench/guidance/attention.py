"""Rules that act inside cross-attention: what a text adds to a picture is turned away from another.

Such a rule asks for a branch that carries a `Steer`. The loop predicts it with one call of the
network, whose cross-attention layers then look at both texts; all else in the network sees the
branch's own text. Predictions of one `Steer` make calls of their own, so other pictures of the
batch are not touched.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from negbench.errors import ConfigError
from negbench.guidance.base import EMPTY, POSITIVE, Branch, Plain, Rule, Step, negative
from negbench.types import Negative, join_negatives

if TYPE_CHECKING:
    import torch


FIRST = negative(0)

Stop = Annotated[
    float, Field(ge=0, le=1, description="part of the calls, from the start, that it acts in")
]
"""The parameter ``stop`` of a rule that acts in the first calls only; see `Steered.acts`."""


@dataclass(frozen=True)
class Steer(ABC):
    """How cross-attention is turned away from a text.

    Attributes:
        away: the branch whose text it is turned away from.
    """

    away: Branch = FIRST

    @abstractmethod
    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        away_key: torch.Tensor,
        away_value: torch.Tensor,
    ) -> torch.Tensor:
        """What one layer makes of both texts, before its output projection.

        A row's result may not depend on other rows.

        Args:
            query: of the picture, (rows, heads, positions, width).
            key: of the branch's own text, (rows, heads, tokens, width).
            value: of the branch's own text, the same shape.
            away_key: of the other text, the same shape.
            away_value: of the other text, the same shape.

        Returns:
            (rows, positions, heads * width).
        """


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """softmax(Q K^T / sqrt(width)) V, heads side by side: (rows, positions, heads * width)."""
    import torch

    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2)


class Steered(Rule):
    """u + s (z - u): plain guidance whose prompt branch z is steered inside attention.

    At scale 1, the setting of few-step models, z alone is predicted. Several negatives are one text
    joined by commas; a weight other than 1 has no meaning in attention and is refused.
    """

    families: ClassVar[frozenset[str] | None] = frozenset({"sd", "sdxl"})

    @classmethod
    def read(cls, negatives: Sequence[Negative]) -> tuple[Negative, ...]:
        """Blank and weightless negatives left out, the others joined.

        Raises:
            ConfigError: a weight that is neither 0 nor 1.
        """
        kept = tuple(item for item in super().read(negatives) if item.weight != 0)
        for item in kept:
            if item.weight != 1:
                raise ConfigError(
                    f"guidance rule {cls.__name__} steers attention and takes no weighted "
                    f"negatives, got weight {item.weight:g}; set the rule's own strength with -g"
                )
        if len(kept) > 1:
            return (join_negatives(kept),)
        return kept

    @abstractmethod
    def steer(self) -> Steer | None:
        """What is done in attention, or None where the setting changes nothing."""

    def acts(self, step: Step) -> bool:
        """Whether the negative acts in this call: up to the fraction ``stop`` of the calls."""
        stop = float(getattr(self.config, "stop", 1.0))
        return step.index < math.ceil(stop * step.total - 1e-9)

    def prompt(self, step: Step) -> Branch:
        """The branch of the prompt, steered where the rule acts."""
        steer = self.steer() if self.weights and self.acts(step) else None
        return POSITIVE if steer is None else POSITIVE._replace(steer=steer)

    def needs(self, step: Step) -> tuple[Branch, ...]:
        """The prompt's branch unless the scale is 0, the empty prompt's unless it is 1."""
        if self.scale == 0:
            return (EMPTY,)
        return (self.prompt(step),) if self.scale == 1 else (EMPTY, self.prompt(step))

    def phase(self, step: Step) -> Hashable:
        """Plain guidance throughout: what the rule does is in the branch it asks for."""
        return Plain(self.scale)

    def combine(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """Plain guidance from the empty prompt."""
        if self.scale == 0:
            return predictions[EMPTY], state
        steered = predictions[self.prompt(step)]
        if self.scale == 1:
            return steered, state
        base = predictions[EMPTY]
        return base + self.scale * (steered - base), state
