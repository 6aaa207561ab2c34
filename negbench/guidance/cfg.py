"""Plain classifier-free guidance away from the negative prompt."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from negbench.guidance.base import EMPTY, POSITIVE, Branch, Neutral, Plain, Rule, Step, negative
from negbench.types import Negative, join_negatives

if TYPE_CHECKING:
    import torch


class Cfg(Rule):
    r"""n + s (c - n): the negative takes the place of the empty prompt.

    Ho and Salimans, Classifier-Free Diffusion Guidance (arXiv 2207.12598), equation 6, in the
    scale of diffusers (s = 1 is no guidance), with the negative prompt in the unconditional
    branch as users' programs have it since 2022.

    Without negatives n is the prediction under the empty prompt. Several negatives of weight 1 are
    one text, joined by commas, as people write them. With any other weight each negative w_i is
    predicted alone and n = e + sum_i w_i (n_i - e), where e is the empty prompt: weight 0 is no
    negative, weight 1 of a single one is the plain rule. At scale 1 only c is predicted, at scale
    0 only n.
    """

    neutral: ClassVar[tuple[Neutral, ...]] = (Neutral(equals="positive", params={}, scale=1.0),)

    @classmethod
    def read(cls, negatives: Sequence[Negative]) -> tuple[Negative, ...]:
        """Blank and weightless negatives left out, the others joined if they are plain."""
        kept = tuple(item for item in super().read(negatives) if item.weight != 0)
        if len(kept) > 1 and all(item.weight == 1 for item in kept):
            return (join_negatives(kept),)
        return kept

    def needs(self, step: Step) -> tuple[Branch, ...]:
        """The negative's branches unless the scale is 1, the prompt's unless it is 0."""
        if self.scale == 1:
            return (POSITIVE,)
        away = self._away()
        return away if self.scale == 0 else (*away, POSITIVE)

    def phase(self, step: Step) -> Hashable:
        """Plain, unless negatives are weighted."""
        if self.scale == 1 or self.weights in ((), (1.0,)):
            return Plain(self.scale)
        return Cfg, self.scale, self.weights

    def combine(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """The formula above."""
        if self.scale == 1:
            return predictions[POSITIVE], state
        base = self._base(predictions)
        if self.scale == 0:
            return base, state
        return base + self.scale * (predictions[POSITIVE] - base), state

    def _away(self) -> tuple[Branch, ...]:
        if not self.weights:
            return (EMPTY,)
        if self.weights == (1.0,):
            return (negative(0),)
        return (EMPTY, *(negative(i) for i in range(len(self.weights))))

    def _base(self, predictions: Mapping[Branch, torch.Tensor]) -> torch.Tensor:
        branches = self._away()
        base = predictions[branches[0]]
        if len(branches) == 1:
            return base
        shift = sum(
            weight * (predictions[negative(i)] - base) for i, weight in enumerate(self.weights)
        )
        return base + shift
