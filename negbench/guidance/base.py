"""What a guidance rule is: it says which predictions a step needs, and how to combine them.

A rule never calls a network. At each model call the loop asks `Rule.needs` for branches, predicts
them for every row that shares the rule, and hands the predictions to `Rule.combine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, JsonValue

from negbench.errors import ConfigError
from negbench.types import Negative

if TYPE_CHECKING:
    import torch

    from negbench.guidance.attention import Steer

Space = Literal["epsilon", "v_prediction", "sample", "flow"]
"""What the network predicts: the noise, the velocity, the clean picture, the flow."""


class Branch(NamedTuple):
    """One prediction that a rule can ask for: the network under one text.

    Attributes:
        role: ``positive``, ``negative`` or ``empty``.
        number: which of the row's negatives, from 0; 0 for the other roles.
        steer: what cross-attention does beside looking at the text; None for nothing.
    """

    role: Literal["positive", "negative", "empty"]
    number: int = 0
    steer: Steer | None = None

    def texts(self) -> tuple[Branch, ...]:
        """The branches, not steered, whose texts the prediction needs; its own comes first."""
        own = self._replace(steer=None)
        return (own,) if self.steer is None else (own, self.steer.away)


POSITIVE = Branch("positive")
EMPTY = Branch("empty")


def negative(number: int) -> Branch:
    """The branch of a row's negative `number`, from 0."""
    return Branch("negative", number)


@dataclass(frozen=True)
class Step:
    """One model call of the schedule.

    Attributes:
        index: counts model calls from 0; PNDM with 30 steps makes 31.
        total: model calls in all.
        timestep: what the network is told.
        sigma: noise to signal ratio of the row at this call, sqrt((1 - abar) / abar).
        space: what the network predicts.
    """

    index: int
    total: int
    timestep: float
    sigma: float
    space: Space = "epsilon"


@dataclass(frozen=True)
class Neutral:
    """A setting at which a rule must equal something simpler, within 1e-5.

    Attributes:
        equals: ``positive`` (the conditional prediction alone), ``empty_negative`` (plain guidance
            away from the empty prompt) or ``cfg`` (plain guidance away from the negatives), both
            at the rule's own scale.
        params: the parameters that make it neutral, beside defaults.
        scale: the scale that makes it neutral, or None if any scale does.
    """

    equals: Literal["positive", "empty_negative", "cfg"]
    params: Mapping[str, JsonValue]
    scale: float | None = None


class Plain(NamedTuple):
    """The phase of plain guidance: b + scale (p - b) of the two branches asked for, in that order.

    Of one branch alone it is that branch's prediction, as it is. The sum is made in the precision
    of the predictions, and what a rule keeps from call to call stays as it was.
    """

    scale: float


class Rule(ABC):
    """HOW a negative prompt acts, bound to one scale, one set of parameters, one list of weights.

    Rows of a batch that agree in all of these share one instance and one call of `combine`. The
    result of a row may not depend on the other rows, so sums and norms run over a row alone.
    """

    version: ClassVar[int] = 1
    families: ClassVar[frozenset[str] | None] = None
    """Model families that the rule can steer, or None for all."""

    spaces: ClassVar[frozenset[Space]] = frozenset({"epsilon", "v_prediction", "sample", "flow"})
    """Prediction spaces in which the formula holds; a rule that is linear holds in all."""

    neutral: ClassVar[tuple[Neutral, ...]] = ()
    """Settings at which the rule must equal something simpler."""

    class Config(BaseModel):
        """The rule's parameters beside the scale, which every rule has."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(
        self, config: BaseModel | None = None, *, scale: float, weights: Sequence[float] = ()
    ) -> None:
        self.config = config if config is not None else self.Config()
        self.scale = float(scale)
        self.weights = tuple(float(weight) for weight in weights)

    @classmethod
    def read(cls, negatives: Sequence[Negative]) -> tuple[Negative, ...]:
        """The negatives as this rule takes them; blank texts are no negatives."""
        return tuple(item for item in negatives if item.text.strip())

    def check(self, *, family: str, space: Space, total: int) -> None:
        """Refuse, with a ConfigError, what this rule cannot do on a model or schedule.

        Args:
            family: the model family, for example ``sd`` or ``sdxl``.
            space: what its network predicts.
            total: model calls of the schedule.
        """
        name = type(self).__name__
        if self.families is not None and family not in self.families:
            known = ", ".join(sorted(self.families))
            raise ConfigError(f"guidance rule {name} does not support {family}; only {known}")
        if space not in self.spaces:
            known = ", ".join(sorted(self.spaces))
            raise ConfigError(
                f"guidance rule {name} does not support {space} prediction; only {known}"
            )

    @abstractmethod
    def needs(self, step: Step) -> tuple[Branch, ...]:
        """The branches to predict at `step`, each once; nothing else is computed.

        Depends on ``index``, ``total`` and ``space`` of the step alone: while planning, timestep
        and sigma are 0.
        """

    def phase(self, step: Step) -> Hashable:
        """What `combine` computes at `step`, apart from the texts, as a value to compare.

        Two rules of equal phase at a step, of whatever kind and settings, must give the same result
        to the bit from the same predictions in the order of `needs` and the same state, and leave
        the same state. Pictures of one noise then share the calls up to the first whose phases or
        texts differ: one with the negative from call 5 on begins as the one without. `Plain` is
        the phase of plain guidance. By default it is the whole rule, which is always true.

        Like `needs`, it depends on ``index``, ``total`` and ``space`` of the step alone.
        """
        return type(self), self.config.model_dump_json(), self.scale, self.weights

    @abstractmethod
    def combine(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """The guided prediction.

        Args:
            predictions: a tensor (rows, channels, height, width) for each branch of `needs`.
            x_t: what the network saw, the same shape.
            step: the model call.
            state: what the rule returned at the call before, None at the first; tensors in it
                have one entry a row in their first dimension.

        Returns:
            The prediction, of the same shape and dtype, and the state for the next call.
        """

    def count(self, total: int, space: Space = "epsilon") -> int:
        """Predictions over a schedule of `total` model calls, if all texts differ."""
        return sum(len(self.needs(Step(i, total, 0.0, 0.0, space))) for i in range(total))
