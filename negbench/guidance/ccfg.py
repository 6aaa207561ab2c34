"""Contrastive guidance: a negative pushes the less, the farther the picture is from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from negbench.guidance.arithmetic import FromEmpty, epsilon_factor, row_sums
from negbench.guidance.base import Branch, Neutral, Step

if TYPE_CHECKING:
    import torch


class Ccfg(FromEmpty):
    r"""u + s (2 d / (1 + exp(-tau |d|^2)) - sum_i w_i 2 d_i / (1 + exp(tau |d_i|^2))).

    Chang et al., Contrastive CFG (arXiv 2411.17077), with d = c - u and d_i = n_i - u: the factor
    of the prompt grows from 1 to 2 and that of a negative falls from 1 to 0 as the squared distance
    of the noises, summed over all elements of a latent, grows. The authors' code writes the
    negative's factor as 2 exp(-r) / (1 + exp(-r)), the same number. It has the option
    ``naive_positive_cfg`` that leaves the prompt's factor at 1, here ``positive=plain``; a scale of
    7.5 and tau 0.2 are its defaults, for latents of 4 x 64 x 64. Because |d|^2 is a sum, tau has to
    grow as latents get smaller for the same effect.

    Several negatives add up, each with its own distance; the weight of negative i is its own weight
    times ``weight`` (the paper has one of weight 1). Without negatives the prompt keeps its factor,
    so the rule is plain guidance only with ``positive=plain``.

    The distance is defined between noises. Where the network predicts something else, differences
    are measured in noise (`epsilon_factor`) and applied to the prediction, which is the same as
    converting everything to noise and back. Any family, any scheduler; the paper uses DDIM.
    """

    scale_one_is_positive: ClassVar[bool] = False
    neutral: ClassVar[tuple[Neutral, ...]] = (
        Neutral(equals="empty_negative", params={"weight": 0.0, "positive": "plain"}),
    )

    class Config(BaseModel):
        """How the factors depend on the distance."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        tau: float = Field(
            default=0.2,
            ge=0,
            le=1e6,
            description="how fast factors change with the squared distance of the noises; at 0 the "
            "rule is composable_not",
        )
        weight: float = Field(
            default=1.0, ge=0, le=100, description="strength of all negatives against the prompt's"
        )
        positive: Literal["contrastive", "plain"] = Field(
            default="contrastive",
            description="whether the prompt's factor grows with its distance or stays 1",
        )

    def blend(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """The formula above."""
        assert isinstance(self.config, Ccfg.Config)
        base, towards, away = self.differences(predictions)
        rate = self.config.tau * epsilon_factor(step) ** 2
        direction = towards
        if self.config.positive == "contrastive":
            direction = 2 * (rate * row_sums(towards * towards)).sigmoid() * towards
        for weight, difference in away:
            factor = 2 * (-rate * row_sums(difference * difference)).sigmoid()
            direction = direction - weight * factor * difference
        return (base + self.scale * direction).to(x_t.dtype), state
