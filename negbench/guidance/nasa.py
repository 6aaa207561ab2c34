"""Negative-away steer attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from negbench.guidance.attention import Steer, Steered, Stop, attend
from negbench.guidance.base import Neutral

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class NasaSteer(Steer):
    """Subtract what the negative adds; see `Nasa`."""

    weight: float = 0.1

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        away_key: torch.Tensor,
        away_value: torch.Tensor,
    ) -> torch.Tensor:
        """Z+ - a Z-."""
        return attend(query, key, value) - self.weight * attend(query, away_key, away_value)


class Nasa(Steered):
    r"""Z+ - a Z- in every cross-attention layer.

    Negative-away steer attention (arXiv 2412.02687). Z+ and Z- are what the layer makes of prompt
    and negative under the same query, before the output projection. The paper's a is 0.1 for Stable
    Diffusion 1.5, 0.2 for 2.1 and 0.5 for PixArt. No code of the authors is known.

    Several negatives are one text joined by commas. At scale 1 the steered branch is drawn alone,
    as the paper does with one-step models; at any other scale it takes the prompt's place in plain
    guidance from the empty prompt. Any prediction space and scheduler; U-Nets with cross-attention.
    Cost: one prediction with the cross-attention computed twice (the paper: 1.89 % more
    operations), counted as one evaluation.
    """

    neutral: ClassVar[tuple[Neutral, ...]] = (
        Neutral(equals="positive", params={"weight": 0.0}, scale=1.0),
        Neutral(equals="empty_negative", params={"weight": 0.0}),
    )

    class Config(BaseModel):
        """How strongly the negative is subtracted."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(
            default=0.1, ge=0, le=10, description="a: 0.1 for SD 1.5, 0.2 for SD 2.1"
        )
        stop: Stop = 1.0

    def steer(self) -> Steer | None:
        """The formula, unless nothing is subtracted."""
        assert isinstance(self.config, Nasa.Config)
        return NasaSteer(weight=self.config.weight) if self.config.weight else None
