"""Rates corrected for a judge's errors: prediction-powered ratios of means, clustered by prompt.

Few units have people's verdicts, all have the judge's. With y a unit's outcome by people and f the
same by the judge, the prediction-powered mean (Angelopoulos et al., Science 382, 2023, 2301.09633)
is the judge's mean over all N units plus its mean error on the n labelled ones,

    theta = lambda mean_N(f) + mean_n(y - lambda f),

right on average whatever the judge is, as long as the labelled units are a random part of all.
lambda is tuned as in PPI++ (2311.01453): with the labelled units among the N, the variance is least
at the slope of y on f, here cut to [0, 1]; lambda = 1 is plain PPI, 0 the labelled units alone.

A removal rate is a ratio of two means of a *joint* outcome, with T "the twin shows it" and A "the
arm's picture shows it":

    rsr = mean(T and not A) / mean(T)

so what counts is how wrong the judge is on both pictures of a unit together, which its error rates
on single pictures do not tell. Both means use the same lambda, tuned for the linearised ratio.
The interval is that of the linearised ratio with each prompt's sum of influences as one
observation: Student's quantile, from 30 prompts on corrected for skewness (`negbench.stats`). So
that a judge without a mistake on n labels is not taken as perfect, two labelled units more are
added to the variance, whose errors are +1 and -1 (as Agresti & Coull, Am. Statist. 52, 1998, add
two successes and two failures).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from negbench.stats.functional import prompt_index, totals_by_prompt
from negbench.stats.summary import Array, t_ends, t_quantile

Chosen = npt.NDArray[np.bool_]

PSEUDO = 2.0
"""Labelled units added to the variance, with errors of +1 and -1."""


class Corrected(BaseModel):
    """A rate by the judge, by people, and by both together.

    Attributes:
        value: the corrected rate, None where `note` says why.
        ci95: its 95 % interval by prompt.
        judge: the rate by the judge alone, over all units it has verdicts on; not corrected.
        people: the rate over the labelled units alone.
        n: units, `n_labelled` of them with people's verdicts on all pictures needed.
        power: lambda, how far the judge's verdicts were used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float | None
    ci95: tuple[float, float] | None
    judge: float | None
    people: float | None
    n: int
    n_labelled: int
    n_prompts: int
    power: float | None
    note: str | None = None


def corrected_ratio(
    judge: tuple[Array, Array],
    people: tuple[Array, Array],
    prompts: Sequence[str],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    power: float | None = None,
) -> Corrected:
    """Ratio of two means, by few people's verdicts and a judge's many.

    Args:
        judge: numerator and denominator of each unit by the judge, two arrays (units,); NaN where
            it has no verdict.
        people: the same by people; NaN where nobody labelled. Labelled units have to be a random
            part of all.
        prompts: the prompt of each unit, the clusters.
        bounds: values that the ratio can have; value and interval are cut to them.
        power: lambda, or None to tune it.
    """
    f = np.stack([np.asarray(part, dtype=np.float64) for part in judge], axis=1)
    y = np.stack([np.asarray(part, dtype=np.float64) for part in people], axis=1)
    scored: Chosen = np.isfinite(f.sum(axis=1))
    labelled: Chosen = np.isfinite(y.sum(axis=1))
    count, n = len(f), int(labelled.sum())
    alone = _ratio(f[scored].mean(axis=0)) if scored.any() else None
    by_people = _ratio(y[labelled].mean(axis=0)) if n else None
    names = {name for name, is_labelled in zip(prompts, labelled, strict=True) if is_labelled}

    def result(
        value: float | None,
        ci95: tuple[float, float] | None,
        note: str | None,
        used: float | None = None,
    ) -> Corrected:
        return Corrected(
            value=value,
            ci95=ci95,
            judge=alone,
            people=by_people,
            n=count,
            n_labelled=n,
            n_prompts=len(set(prompts)),
            power=used,
            note=note,
        )

    if n < 2 or len(names) < 2:
        return result(None, None, "fewer than two labelled prompts: nothing to correct by")
    # any prediction will do where the judge has none; the correction takes what it is worth
    f = np.where(scored[:, None], f, 0.0)
    y = np.where(labelled[:, None], y, 0.0)
    start = _ratio(y[labelled].mean(axis=0))
    if start is None:
        return result(None, None, "the denominator is 0 among the labelled units")
    used = _tuned(f[labelled], y[labelled], start) if power is None else power
    theta = used * f.mean(axis=0) + (y - used * f)[labelled].mean(axis=0)
    value = _ratio(theta)
    if value is None or theta[1] < 0:
        return result(None, None, "the corrected denominator is not positive", used)
    quantile = float(t_quantile(len(names) - 1.0))
    parts = _influences(f, y, labelled, prompts, used)
    prompts_part = len(parts) / (len(parts) - 1)
    ends: tuple[float, float] | None = None
    if theta[1] ** 2 > quantile**2 * prompts_part * float((parts[:, 1] ** 2).sum()):
        linear = (parts[:, 0] - value * parts[:, 1]) / theta[1]
        pseudo = PSEUDO / ((n + PSEUDO) * theta[1]) ** 2
        error = math.sqrt(prompts_part * float((linear**2).sum()) + pseudo)
        below, above = t_ends(np.asarray(len(names) - 1.0), linear)
        ends = value - error * float(above), value - error * float(below)
    low, high = bounds
    clipped = min(max(value, low), high)
    if ends is None:
        return result(clipped, None, "the denominator may be 0: the interval has no end", used)
    note = None if clipped == value else f"cut to its bound from {value:.3f}"
    inside = (min(max(ends[0], low), high), min(max(ends[1], low), high))
    return result(clipped, inside, note, used)


def _ratio(means: npt.NDArray[np.floating]) -> float | None:
    above, below = (float(x) for x in means)
    if below == 0 or not math.isfinite(above / below):
        return None
    return above / below


def _tuned(f: Array, y: Array, ratio: float) -> float:
    """The slope of the people's linearised ratio on the judge's, cut to [0, 1]."""
    g, z = f[:, 0] - ratio * f[:, 1], y[:, 0] - ratio * y[:, 1]
    spread = float(((g - g.mean()) ** 2).mean())
    if spread <= 0:
        return 0.0
    return min(max(float(((g - g.mean()) * (z - z.mean())).mean()) / spread, 0.0), 1.0)


def _influences(f: Array, y: Array, labelled: Chosen, prompts: Sequence[str], used: float) -> Array:
    """What each prompt adds to the error of the two means, (prompts, 2)."""
    errors = y - used * f
    influence = used * (f - f.mean(axis=0)) / len(f)
    influence[labelled] += (errors[labelled] - errors[labelled].mean(axis=0)) / labelled.sum()
    index, sizes = prompt_index(prompts)
    return totals_by_prompt(influence, index, len(sizes))
