"""Negation of composable diffusion: away from the negative as seen from the empty prompt."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from negbench.guidance.arithmetic import FromEmpty
from negbench.guidance.base import EMPTY, POSITIVE, Branch, Neutral, Plain, Step

if TYPE_CHECKING:
    import torch


class ComposableNot(FromEmpty):
    r"""u + s ((c - u) - sum_i w_i (n_i - u)).

    Liu et al., Compositional Visual Generation with Composable Diffusion Models (arXiv 2206.01714):
    conjunction sums w_i (d_i - u) over the concepts, and negation is a concept of negative weight;
    for one concept that is u + w (c - n), this rule at w_1 = 1. The same formula is known as the
    signed or reformulated negative prompt, u + a (c - u) - b (n - u): a is the scale s and b = s w.
    Where code and paper disagree: the community pipeline ``composable_stable_diffusion`` of
    diffusers takes absolute weights of all concepts ("7.5 | -7.5") in place of one scale; divide
    the negative one by the positive one to get w.

    Several negatives add up; the weight of negative i is its own weight times ``weight``. Without
    negatives it is plain guidance from the empty prompt. The formula is linear and its coefficients
    add up to 1, so it means the same in every prediction space. Any family, any scheduler.
    """

    neutral: ClassVar[tuple[Neutral, ...]] = (
        Neutral(equals="empty_negative", params={"weight": 0.0}),
    )

    class Config(BaseModel):
        """How strongly the negatives act."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        weight: float = Field(
            default=1.0,
            ge=0,
            le=100,
            description="strength of all negatives against the prompt's; 1 is the paper's negation",
        )

    def phase(self, step: Step) -> Hashable:
        """Plain guidance where no negative acts."""
        if self.scale == 0 or not self.acting():
            return Plain(self.scale)
        return ComposableNot, self.scale, tuple(self.acting().items())

    def blend(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """The formula above."""
        base = predictions[EMPTY]
        direction = predictions[POSITIVE] - base
        for branch, weight in self.acting().items():
            direction = direction - weight * (predictions[branch] - base)
        return base + self.scale * direction, state
