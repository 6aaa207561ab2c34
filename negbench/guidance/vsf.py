"""Value sign flip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from negbench.guidance.attention import Steer, Steered, Stop
from negbench.guidance.base import Neutral

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class VsfSteer(Steer):
    """One attention over both texts, the negative's values flipped; see `Vsf`."""

    weight: float = 1.0
    bias: float = 0.0

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        away_key: torch.Tensor,
        away_value: torch.Tensor,
    ) -> torch.Tensor:
        """softmax([Q K+^T, Q K-^T - b]) [V+; -a V-]."""
        import torch

        mask = query.new_zeros((1, 1, 1, key.shape[2] + away_key.shape[2]))
        mask[..., key.shape[2] :] = -self.bias
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query,
            torch.cat([key, away_key], dim=2),
            torch.cat([value, -self.weight * away_value], dim=2),
            attn_mask=mask.expand(*query.shape[:3], -1),
        )
        return mixed.transpose(1, 2).flatten(2)


class Vsf(Steered):
    r"""softmax([Q K+^T, Q K-^T - b]) [V+; -a V-] in every cross-attention layer.

    Value sign flip (arXiv 2508.10931): prompt and negative compete in one softmax, and
    the negative's values are taken with the opposite sign. Where code and paper disagree: the
    authors' code for Wan multiplies the negative's values by 1 - a and the prompt's by a. The paper
    has no U-Net; this is its cross-attention formula with all token positions of both texts, begin
    marks and padding too, and its defaults (a 3.5, b 0.1 in Stable Diffusion 3.5) belong to another
    kind of model. So a is 1 by default, and results say nothing about the published ones.

    Several negatives are one text joined by commas. At scale 1, as the authors ask for, the steered
    branch is drawn alone; at any other scale it takes the prompt's place in plain guidance from the
    empty prompt. Even at a = 0 the negative takes part in the softmax; only a large b turns it off.
    Any prediction space and scheduler; U-Nets with cross-attention. Cost: one prediction with
    cross-attention over twice the tokens, counted as one evaluation.
    """

    neutral: ClassVar[tuple[Neutral, ...]] = (
        Neutral(equals="positive", params={"bias": 10000.0}, scale=1.0),
        Neutral(equals="empty_negative", params={"bias": 10000.0}),
    )

    class Config(BaseModel):
        """How strongly the flipped values act."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(default=1.0, ge=0, le=20, description="a: factor of flipped values")
        bias: float = Field(
            default=0.0, ge=0, le=10_000, description="b: taken off the negative's logits"
        )
        stop: Stop = 1.0

    def steer(self) -> Steer | None:
        """The formula."""
        assert isinstance(self.config, Vsf.Config)
        return VsfSteer(weight=self.config.weight, bias=self.config.bias)
