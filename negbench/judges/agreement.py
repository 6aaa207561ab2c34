"""How far a judge agrees with people, clustered by prompt.

With the people's verdict as the truth and the judge's "visible" as a probability above one half:

    sensitivity        P(judge sees it | people see it)
    specificity        P(judge does not | people do not)
    balanced accuracy  their mean; 1/2 is a coin, however rare the concept
    kappa              (agreement - agreement by chance) / (1 - agreement by chance)
                       (Cohen, Educ. Psychol. Meas. 20, 1960, eq. 1)
    ece                expected calibration error, sum_b n_b / n |share seen_b - mean probability_b|
                       over ten bins of equal width (Guo et al. 1706.04599, eq. 3)

Sensitivity and specificity have Wilson's interval at the effective sample size, the others a BCa
bootstrap of prompts. A calibration error can only be positive, so with few labels it is too large.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from negbench.judges.base import PRESENT_FROM
from negbench.stats.bootstrap import cluster_bootstrap
from negbench.stats.functional import Statistic, prompt_index, totals_by_prompt
from negbench.stats.proportions import share_summary
from negbench.stats.summary import Array

BINS = 10
DRAWS = 3_999


class Figure(BaseModel):
    """A number with a 95 % interval by prompt, or the reason why there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float | None
    ci95: tuple[float, float] | None = None
    n: int = 0
    n_prompts: int = 0
    note: str | None = None


class Agreement(BaseModel):
    """A judge against people.

    Attributes:
        n: labelled pictures that the judge has a verdict on.
        n_unscored: labelled pictures on which it has none.
        n_present: those of `n` in which people see the concept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    n_unscored: int
    n_prompts: int
    n_present: int
    balanced_accuracy: Figure
    sensitivity: Figure
    specificity: Figure
    kappa: Figure
    ece: Figure


def agreement(
    probabilities: Sequence[float | None], truth: Sequence[bool], prompts: Sequence[str]
) -> Agreement:
    """Compare a judge with people on the same pictures.

    Args:
        probabilities: the judge's, None where it has no verdict.
        truth: whether people see the concept.
        prompts: the prompt of each picture, the clusters.
    """
    rows = [
        (float(p), t, prompt)
        for p, t, prompt in zip(probabilities, truth, prompts, strict=True)
        if p is not None
    ]
    unscored = len(truth) - len(rows)
    p = np.array([row[0] for row in rows], dtype=np.float64)
    y = np.array([row[1] for row in rows], dtype=np.bool_)
    names = [row[2] for row in rows]
    seen = p > PRESENT_FROM
    n, clusters = len(rows), len(set(names))

    def figure(columns: Array, statistic: Statistic) -> Figure:
        if n == 0:
            return Figure(value=None, note="no labelled picture has a verdict")
        index, _ = prompt_index(names)
        totals = totals_by_prompt(columns, index, clusters)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(totals.sum(axis=0)))
        if not np.isfinite(value):
            return Figure(value=None, n=n, n_prompts=clusters, note="the labels are all alike")
        interval, note = cluster_bootstrap(totals, statistic, draws=DRAWS)
        return Figure(value=value, ci95=interval, n=n, n_prompts=clusters, note=note)

    def share(of: Sequence[bool], wanted: Sequence[bool], none: str) -> Figure:
        hits = [float(w) if o else None for o, w in zip(of, wanted, strict=True)]
        summary = share_summary(hits, names)
        if summary.value is None:
            return Figure(value=None, note=none)
        return Figure(
            value=summary.value,
            ci95=summary.ci95,
            n=summary.n_scored,
            n_prompts=summary.n_prompts,
            note=summary.note,
        )

    table = np.stack([y & seen, y & ~seen, ~y & seen, ~y & ~seen], axis=1).astype(np.float64)
    return Agreement(
        n=n,
        n_unscored=unscored,
        n_prompts=clusters,
        n_present=int(y.sum()),
        balanced_accuracy=figure(table, balanced_accuracy),
        sensitivity=share(list(y), list(seen), "people see the concept in no labelled picture"),
        specificity=share(
            list(~y), list(~seen), "people see the concept in every labelled picture"
        ),
        kappa=figure(table, kappa),
        ece=figure(calibration_columns(p, y.astype(np.float64)), calibration_error),
    )


def balanced_accuracy(table: Array) -> Array:
    """Mean of sensitivity and specificity from counts (..., 4): tp, fn, fp, tn."""
    tp, fn, fp, tn = (table[..., i] for i in range(4))
    return np.asarray((tp / (tp + fn) + tn / (fp + tn)) / 2)


def kappa(table: Array) -> Array:
    """Cohen's kappa from counts (..., 4): tp, fn, fp, tn; NaN where chance explains all."""
    tp, fn, fp, tn = (table[..., i] for i in range(4))
    n = tp + fn + fp + tn
    agree = (tp + tn) / n
    chance = ((tp + fn) * (tp + fp) + (fp + tn) * (fn + tn)) / n**2
    return np.asarray((agree - chance) / (1 - chance))


def calibration_columns(p: Array, y: Array) -> Array:
    """For each picture, by bin: 1, its probability, its truth; (n, 3 * BINS)."""
    columns = np.zeros((len(p), BINS, 3))
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    columns[np.arange(len(p)), bins] = np.stack([np.ones_like(p), p, y], axis=1)
    return columns.reshape(len(p), 3 * BINS)


def calibration_error(sums: Array) -> Array:
    """Expected calibration error from sums (..., 3 * BINS) of `calibration_columns`."""
    by_bin = sums.reshape(*sums.shape[:-1], BINS, 3)
    gaps = np.abs(by_bin[..., 1] - by_bin[..., 2]).sum(axis=-1)
    return np.asarray(gaps / by_bin[..., 0].sum(axis=-1))
