"""Whether a ranking of methods survives a change of judge: Kendall's tau between judges.

Runs are ranked by the judge's own rsr of the treatment, P(absent | the twin shows it). Tau-b
(Kendall, Biometrika 33, 1945) is 1 where two judges give one order, -1 where they give opposite
ones, 0 on average where they have nothing to do with one another. Its interval is that of a
percentile bootstrap of prompts, the same prompts drawn for all runs and judges; with few runs tau
takes few values, so `same_order`, the share of resamples in which the two orders are equal, says
more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from negbench.judges.base import Verdict
from negbench.judges.label_file import Pair
from negbench.judges.units import TWIN, Unit
from negbench.stats.summary import Array

DRAWS = 999
TREATED = "treated"


class Agreed(BaseModel):
    """Two judges' orders of the runs.

    Attributes:
        tau: Kendall's tau-b, None where a judge ranks all runs the same.
        ci95: percentile interval over prompts.
        same_order: share of resamples of prompts in which both give one order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    judges: tuple[str, str]
    tau: float | None
    ci95: tuple[float, float] | None
    same_order: float
    note: str | None = None


class Ranking(BaseModel):
    """Runs in order under each judge.

    Attributes:
        measure: what they are ranked by.
        runs: labels, made distinct.
        rsr: judge -> value of each run, in the order of `runs`; None where no twin shows it.
        order: judge -> runs, best first.
        agreed: each pair of judges.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    measure: str
    runs: list[str]
    rsr: dict[str, list[float | None]]
    order: dict[str, list[str]]
    agreed: list[Agreed]


def rankings(
    runs: Sequence[Sequence[Unit]], said: Mapping[str, Mapping[Pair, Verdict]], *, seed: int = 0
) -> Ranking | None:
    """Rank runs by every judge; None for a single run.

    Args:
        runs: the units of each run.
        said: judge -> its verdicts on every picture.
        seed: of the resamples.
    """
    if len(runs) < 2:
        return None
    names = _names(runs)
    prompts = sorted({unit.prompt for units in runs for unit in units})
    sums = {
        judge: np.stack([_sums(units, verdicts, prompts) for units in runs])
        for judge, verdicts in said.items()
    }
    rsr = {judge: _rsr(totals.sum(axis=1)) for judge, totals in sums.items()}
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts)), size=DRAWS)
    drawn = {judge: _rsr(np.tensordot(weights, s, (1, 1))) for judge, s in sums.items()}
    judges = list(said)
    pairs = [(a, b) for i, a in enumerate(judges) for b in judges[i + 1 :]]
    return Ranking(
        measure="rsr/treated",
        runs=names,
        rsr={j: [float(v) if np.isfinite(v) else None for v in row] for j, row in rsr.items()},
        order={
            judge: [names[at] for at in np.argsort(-row, kind="stable") if np.isfinite(row[at])]
            for judge, row in rsr.items()
        },
        agreed=[_agreed((a, b), rsr[a], rsr[b], drawn[a], drawn[b]) for a, b in pairs],
    )


def _names(runs: Sequence[Sequence[Unit]]) -> list[str]:
    labels = [units[0].label for units in runs]
    return [
        label if labels.count(label) == 1 else f"{label} {units[0].run}"
        for label, units in zip(labels, runs, strict=True)
    ]


def _sums(units: Sequence[Unit], verdicts: Mapping[Pair, Verdict], prompts: Sequence[str]) -> Array:
    """By prompt: triples removed, and triples whose twin shows the concept; (prompts, 2)."""
    place = {prompt: at for at, prompt in enumerate(prompts)}
    sums = np.zeros((len(prompts), 2))
    for unit in units:
        twin = verdicts[unit.pictures[TWIN].image, unit.concept].present
        treated = verdicts[unit.pictures[TREATED].image, unit.concept].present
        if twin and treated is not None:
            sums[place[unit.prompt]] += (not treated, 1)
    return sums


def _rsr(sums: Array) -> Array:
    """Removed over shown, from sums (..., 2); NaN where nothing is shown."""
    shown = sums[..., 1]
    return np.asarray(
        np.divide(sums[..., 0], shown, out=np.full(shown.shape, np.nan), where=shown > 0)
    )


def kendall_tau(one: Array, other: Array) -> Array:
    """Tau-b along the last axis, (..., runs) twice to (...); NaN where all runs tie.

    sum_ij s_ij t_ij / sqrt(sum_ij s_ij^2 sum_ij t_ij^2) with s_ij, t_ij the signs of the
    differences of runs i and j (Kendall 1945).
    """
    signs = [np.sign(x[..., :, None] - x[..., None, :]) for x in (one, other)]
    both, first, second = (
        (signs[i] * signs[j]).sum(axis=(-2, -1)) for i, j in ((0, 1), (0, 0), (1, 1))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(both / np.sqrt(first * second))


def _agreed(
    judges: tuple[str, str], one: Array, other: Array, drawn: Array, drawn_other: Array
) -> Agreed:
    tau = float(kendall_tau(one, other))
    taus = kendall_tau(drawn, drawn_other)
    orders = [np.argsort(values, axis=-1, kind="stable") for values in (drawn, drawn_other)]
    same = (orders[0] == orders[1]).all(axis=-1)
    known = taus[np.isfinite(taus)]
    interval = None
    if len(known) >= 0.95 * DRAWS:
        low, high = np.quantile(known, [0.025, 0.975])
        interval = (float(low), float(high))
    finite = bool(np.isfinite(tau))
    return Agreed(
        judges=judges,
        tau=tau if finite else None,
        ci95=interval if finite else None,
        same_order=float(same.mean()),
        note=None if finite else "a judge puts all runs on one rank: no tau",
    )
