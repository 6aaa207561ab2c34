"""Fidelity of one image: its own contribution to the Inception Score.

The Inception Score (1606.03498) is the exponential of the mean over images x of

    KL( p(y|x) || p(y) ) = sum_y p(y|x) ( ln p(y|x) - ln p(y) )

and the fidelity of one image is read here as its own summand. This is negbench's reading of the
third term of NegOpt's reward (2403.07605): the paper's own definition could not be found.

p(y) is measured once, on images of many prompts, and frozen: a policy cannot move it. The summand
alone pays for rare classes (it is ln 1/p(y) for a certain picture of class y) and for garbage of
which the classifier is certain. Therefore it ends at a bound, a quantile of what images without a
negative prompt reach: beyond ordinary certainty there is nothing to earn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from negbench.metrics import networks
from negbench.metrics.base import ImageMetric, Item, Network
from negbench.metrics.inception import probabilities
from negbench.types import Score

TINY = 1e-12


def divergence(
    chances: npt.NDArray[np.floating[Any]], marginal: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float64]:
    """KL(p(y|x) || p(y)) in nats.

    Args:
        chances: p(y|x), (n, classes).
        marginal: p(y), (classes,), positive.

    Returns:
        float64 (n,), not negative.
    """
    p = np.asarray(chances, dtype=np.float64)
    q = np.maximum(np.asarray(marginal, dtype=np.float64), TINY)
    terms = np.where(p > 0, p * (np.log(np.maximum(p, TINY)) - np.log(q)), 0.0)
    result: npt.NDArray[np.float64] = np.maximum(terms.sum(axis=1), 0.0)
    return result


class Fidelity(ImageMetric):
    """KL(p(y|x) || p(y)) of one image with a frozen p(y), at most `bound`; higher is better."""

    unit: ClassVar[str] = "nats"
    network_fields: ClassVar[tuple[str, ...]] = ("network",)

    class Config(BaseModel):
        """Which classifier, and what was measured before."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        network: Literal["miniature", "inception-v3"] = "miniature"
        marginal: tuple[float, ...] = Field(default=(), description="p(y); uniform if left out")
        bound: float | None = Field(default=None, gt=0, description="largest value; none if None")

        @model_validator(mode="after")
        def _a_distribution(self) -> Fidelity.Config:
            total = sum(self.marginal)
            fair = math.isclose(total, 1.0, abs_tol=1e-4)
            if self.marginal and not (fair and min(self.marginal) >= 0):
                raise ValueError("marginal must be a distribution")
            return self

    @property
    def spec(self) -> str:
        """The classifier's spec."""
        assert isinstance(self.config, Fidelity.Config)
        return f"inception:{self.config.network}"

    def networks(self) -> Mapping[str, Network]:
        """The classifier."""
        return {self.spec: networks.get(self.spec)}

    def score(self, items: Sequence[Item]) -> list[Score]:
        """The bounded divergence of each image."""
        assert isinstance(self.config, Fidelity.Config)
        if not items:
            return []
        chances = probabilities(np.stack([item.features[self.spec] for item in items]))
        marginal = np.asarray(self.config.marginal or [1.0 / chances.shape[1]] * chances.shape[1])
        if marginal.shape != chances.shape[1:]:
            return [Score.missing("p(y) is of another classifier")] * len(items)
        values = divergence(chances, marginal)
        if self.config.bound is not None:
            values = np.minimum(values, self.config.bound)
        return [Score.of(float(value)) for value in values]
