"""Perp-Neg: away from the part of a negative that is perpendicular to the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from negbench.guidance.arithmetic import FromEmpty, row_sums
from negbench.guidance.base import Branch, Neutral, Step

if TYPE_CHECKING:
    import torch


class PerpNeg(FromEmpty):
    r"""u + s (d - sum_i w_i (d_i - (d_i . d / d . d) d)) with d = c - u and d_i = n_i - u.

    Armandpour et al., Re-imagine the Negative Prompt Algorithm (arXiv 2304.04968): what a negative
    shares with the prompt is kept. Where code and paper disagree: the authors' pipeline and
    ComfyUI's node sum the scalar products over the whole tensor, so that pictures drawn together
    would change one another; here, as in the paper, each picture has its own. Where d is 0 nothing
    is projected out. Inner products are taken in float32 or better.

    Several negatives add up, each projected alone; the weight of negative i is its own weight times
    ``weight``. The authors' examples take 1.5 for one negative, which is the default; ComfyUI takes
    1. Without negatives, or at weight 0, it is plain guidance from the empty prompt.

    The projection does not change when d and d_i are multiplied by one number, and a difference of
    noise is a number times a difference of v, of flow or of clean pictures: the rule means the same
    in every prediction space. Any family, any scheduler.
    """

    neutral: ClassVar[tuple[Neutral, ...]] = (
        Neutral(equals="empty_negative", params={"weight": 0.0}),
    )

    class Config(BaseModel):
        """How strongly the perpendicular parts act."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(
            default=1.5,
            ge=0,
            le=100,
            description="strength of all negatives' perpendicular parts against the prompt's",
        )

    def blend(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """The formula above."""
        base, towards, away = self.differences(predictions)
        length = row_sums(towards * towards)
        safe = length.where(length > 0, length.new_ones(()))
        direction = towards
        for weight, difference in away:
            share = row_sums(difference * towards) / safe
            direction = direction - weight * (difference - share * towards)
        return (base + self.scale * direction).to(x_t.dtype), state
