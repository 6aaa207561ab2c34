"""Inception Score (Salimans et al., 1606.03498, section 4) over all images in one split.

    IS = exp( H(mean_i p_i) - mean_i H(p_i) )

with p_i the classifier's probabilities for image i and entropies in nats. IS grows with the number
of images, so values compare at equal n only; intervals and differences are made on log IS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from negbench.errors import DataError
from negbench.metrics import networks
from negbench.metrics.base import Features, Item, Network, SetMetric

if TYPE_CHECKING:
    from negbench.stats import Contrast, Summary


def probabilities(logits: npt.NDArray[np.floating]) -> Features:
    """Softmax of logits (n, classes), made in double precision, float32 (n, classes)."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    weights /= weights.sum(axis=1, keepdims=True)
    made: Features = weights.astype(np.float32)
    return made


class InceptionScore(SetMetric):
    """Inception Score: how certain a classifier is of each picture, and how varied its answers are.

    In natural scale, from 1 to the number of classes; higher is better.
    """

    bounds: ClassVar[tuple[float, float] | None] = (1.0, math.inf)
    network_fields: ClassVar[tuple[str, ...]] = ("network",)

    class Config(BaseModel):
        """Which classifier."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        network: Literal["miniature", "inception-v3"] = Field(
            default="miniature",
            description="miniature (subjects of the drawn world) or inception-v3 (ImageNet, as "
            "torch-fidelity has it, for real pictures)",
        )

    def _spec(self) -> str:
        assert isinstance(self.config, InceptionScore.Config)
        return f"inception:{self.config.network}"

    def networks(self) -> Mapping[str, Network]:
        """The classifier."""
        return {self._spec(): networks.get(self._spec())}

    def rows(self, items: Sequence[Item]) -> Features:
        """Class probabilities, float32 (n, classes)."""
        if not items:
            return np.zeros((0, 0), dtype=np.float32)
        rows = probabilities(np.stack([item.features[self._spec()] for item in items]))
        if not np.isfinite(rows).all():
            bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise DataError(f"inception_score: no finite answer for image {items[bad].image[:12]}")
        return rows

    def log_value(self, rows: Features) -> float:
        """The logarithm of IS, H(mean p) - mean H(p), of probabilities (n, classes).

        NaN without images.
        """
        from negbench.stats.inception import inception_terms, log_inception

        if len(rows) == 0:
            return math.nan
        return float(log_inception(inception_terms(rows).mean(axis=0)))

    def value(self, rows: Features) -> float:
        """IS of probabilities (n, classes); NaN without images."""
        return math.exp(self.log_value(rows))

    def summary(self, rows: Features, prompts: Sequence[str]) -> Summary:
        """IS with a jackknife interval by prompt made on its logarithm."""
        from negbench.stats import inception_summary

        return inception_summary(rows, prompts)

    def contrast(self, rows: Features, twins: Features, prompts: Sequence[str]) -> Contrast:
        """Difference of IS at equal n; p of exchanging images and twins by prompt."""
        from negbench.stats import inception_contrast

        return inception_contrast(rows, twins, prompts)

    def customary(self, rows: Features) -> Mapping[str, float]:
        """Mean and deviation over ten shuffled parts, as torch-fidelity makes them.

        Its shuffle is ``RandomState(2020).permutation``, its deviation the population's;
        torchmetrics shuffles by torch's global generator and takes the sample's deviation. Nothing
        with fewer than ten images.
        """
        from negbench.stats.inception import inception_splits

        made = inception_splits(rows)
        return {} if made is None else {"mean of 10 splits": made[0], "sd of 10 splits": made[1]}
