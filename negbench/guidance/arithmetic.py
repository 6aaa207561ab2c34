"""What several rules share: lengths by row, and how far apart two predictions are in noise."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from negbench.guidance.base import EMPTY, POSITIVE, Branch, Rule, Step, negative
from negbench.types import Negative

if TYPE_CHECKING:
    import torch


def epsilon_factor(step: Step) -> float:
    """What a difference of two predictions is to be multiplied by to be one of predicted noise.

    At one x_t the noise is an affine function of the prediction, so a difference of noise is a
    number times a difference of predictions. With r the noise to signal ratio `Step.sigma`:
    1 for epsilon; 1 / sqrt(1 + r^2) for v (Salimans and Ho, arXiv 2202.00512, appendix D:
    eps = alpha v + sigma x_t); -1 / r for the clean picture; 1 / (1 + r) for a flow (x_t = (1 - t)
    x_0 + t eps, v = eps - x_0, r = t / (1 - t)). It is 0 where no signal is left.

    Raises:
        ValueError: the clean picture is predicted from a picture without noise.
    """
    ratio = step.sigma
    if step.space == "epsilon":
        return 1.0
    if step.space == "v_prediction":
        return 1 / math.hypot(1.0, ratio)
    if step.space == "flow":
        return 1 / (1 + ratio)
    if ratio <= 0:
        raise ValueError(
            "a prediction of the clean picture has no noise left to compare at sigma 0"
        )
    return -1 / ratio


def full(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in float32 at least."""
    import torch

    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def row_sums(tensor: torch.Tensor) -> torch.Tensor:
    """Sum of each row of (rows, channels, height, width), as (rows, 1, 1, 1).

    Rows are summed one at a time, so that the order of additions, and with it the last bit, does
    not depend on how many rows there are.
    """
    import torch

    sums = torch.stack([row.sum() for row in tensor])
    return sums.view(-1, *(1 for _ in tensor.shape[1:]))


class FromEmpty(Rule):
    """A rule that starts from the empty prompt u and knows the prompt c and negatives n_i apart.

    Each negative has the weight ``Negative.weight`` times the rule's parameter ``weight``; those
    without weight are never predicted.
    """

    scale_one_is_positive: ClassVar[bool] = True
    """Whether scale 1 without negatives is the prediction of the prompt alone."""

    @classmethod
    def read(cls, negatives: Sequence[Negative]) -> tuple[Negative, ...]:
        """Blank and weightless negatives left out; the others stay apart."""
        return tuple(item for item in super().read(negatives) if item.weight != 0)

    def acting(self) -> dict[Branch, float]:
        """The negatives that act, with their weights."""
        factor = float(getattr(self.config, "weight", 1.0))
        weights = {negative(i): factor * weight for i, weight in enumerate(self.weights)}
        return {branch: weight for branch, weight in weights.items() if weight != 0}

    def needs(self, step: Step) -> tuple[Branch, ...]:
        """Empty prompt, negatives, prompt; without negatives what plain guidance needs."""
        if self.scale == 0:
            return (EMPTY,)
        acting = self.acting()
        if not acting and self.scale == 1 and self.scale_one_is_positive:
            return (POSITIVE,)
        return (EMPTY, *acting, POSITIVE)

    def combine(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """A prediction that is needed alone as it is, several by the rule's formula."""
        needed = self.needs(step)
        if len(needed) == 1:
            return predictions[needed[0]], state
        return self.blend(predictions, x_t, step, state)

    @abstractmethod
    def blend(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """The rule's formula, as `combine`, where the empty prompt and the prompt are needed."""

    def differences(
        self, predictions: Mapping[Branch, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, list[tuple[float, torch.Tensor]]]:
        """u, c - u, and weight and n_i - u of each negative, in float32 at least."""
        base = full(predictions[EMPTY])
        away = [
            (weight, full(predictions[branch]) - base) for branch, weight in self.acting().items()
        ]
        return base, full(predictions[POSITIVE]) - base, away
