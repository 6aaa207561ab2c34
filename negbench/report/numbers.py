"""The numbers of a report, laid out: estimates, paired differences, breakdowns, by metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from negbench.numbers import number, p_value, signed, signed_interval, with_interval
from negbench.record import Record, Sample
from negbench.report.between import between
from negbench.report.breakdown import breakdowns
from negbench.report.charts import (
    Chart,
    Matrix,
    direction,
    find_estimate,
    make_bar,
    subtitle,
    unit_of,
    verdict,
)
from negbench.report.scale import Scale
from negbench.report.text import visible
from negbench.report.words import BASELINES, SHORT_ARMS, about_metric, is_removal, split_arm
from negbench.types import Estimate, PairedDifference

TWIN_LABEL = "twin"


@dataclass(frozen=True)
class Chip:
    """A paired difference at a glance."""

    metric: str
    text: str
    verdict: str


@dataclass
class Numbers:
    """All numbers of comparable runs."""

    glance: list[tuple[str, str, list[Chip]]] = field(default_factory=list)
    estimates: list[Chart] = field(default_factory=list)
    removal: list[Chart] = field(default_factory=list)
    paired: list[Chart] = field(default_factory=list)
    breakdown: list[Matrix] = field(default_factory=list)
    family: int = 0
    between: list[Chart] = field(default_factory=list)
    between_family: int = 0
    between_note: str | None = None


def lay_out(
    records: Sequence[Record], labels: Sequence[str], samples: Sequence[Sequence[Sample]]
) -> Numbers:
    """Lay out the numbers of runs on the same cases.

    Args:
        records: runs with the same benchmark, cases and generator.
        labels: a name for each.
        samples: the samples of each.
    """
    shown = [visible(label, limit=60) for label in labels]
    numbers = Numbers()
    names = dict.fromkeys(e.metric for r in records for e in r.estimates)
    for base in dict.fromkeys(split_arm(name)[0] for name in names):
        own = [name for name in names if split_arm(name)[0] == base]
        chart = _estimates(base, own, records, shown)
        (numbers.removal if is_removal(base) else numbers.estimates).append(chart)
    corrected = _holm(records)
    numbers.family = len(corrected)
    keys = dict.fromkeys((p.metric, p.baseline) for r in records for p in r.paired)
    numbers.paired = [_paired(key, records, shown, corrected) for key in keys]
    numbers.glance = [
        (label, _about_run(record), _chips(record))
        for label, record in zip(shown, records, strict=True)
    ]
    numbers.breakdown = breakdowns(records, shown, samples)
    numbers.between, numbers.between_family, numbers.between_note = between(records)
    return numbers


def _estimates(
    base: str, metrics: Sequence[str], records: Sequence[Record], labels: Sequence[str]
) -> Chart:
    """A metric of all runs, with the metrics of further arms (``rsr_placebo``) beside its own."""
    twins = [find_estimate(record.twin_estimates, base) for record in records]
    twin = next((estimate for estimate in twins if estimate is not None), None)
    if base == "clip_to_negative":
        twin = None  # each run's twins were held against another negative prompt
    rows = [(TWIN_LABEL, twin, True)] if twin is not None else []
    for label, record in zip(labels, records, strict=True):
        for metric in metrics:
            arm = split_arm(metric)[1]
            if (estimate := find_estimate(record.estimates, metric)) is not None:
                name = label if arm is None else f"{label} · {SHORT_ARMS[arm]}"
                rows.append((name, estimate, arm in ("empty", "placebo")))
    scale = Scale.over(
        end for _, e, _ in rows if e is not None for end in (e.value, *(e.ci95 or ()))
    )
    about = next(e for _, e, _ in rows if e is not None)
    bars = [
        make_bar(
            label,
            estimate.value,
            estimate.ci95,
            scale,
            text=with_interval(estimate.value, estimate.ci95, estimate.unit).replace("-", "−"),
            note=estimate.note or "",
            detail=_counted(estimate),
            twin=is_twin,
        )
        for label, estimate, is_twin in rows
        if estimate is not None
    ]
    return Chart(
        metric=visible(base, limit=60),
        subtitle=subtitle(unit_of(about.unit), direction(about.higher_is_better)),
        about=about_metric(base),
        zero=scale.x(0.0) if scale.low < 0 < scale.high else None,
        ticks=scale.ticks(),
        bars=bars,
    )


def _counted(estimate: Estimate) -> str:
    text = f"n {estimate.n_scored:,}"
    if estimate.n_unscored:
        text += f" (+{estimate.n_unscored:,} unscored)"
    customary = ", ".join(
        f"{name.replace('_', ' ')} {number(v)}" for name, v in estimate.customary.items()
    )
    customary = customary.replace("mean of 10 splits ", "10 splits ")
    customary = customary.replace(", sd of 10 splits ", " ± ")
    return f"{text}; {customary}" if customary else text


def _find_pair(record: Record, metric: str, baseline: str) -> PairedDifference | None:
    chosen = (p for p in record.paired if (p.metric, p.baseline) == (metric, baseline))
    return next(chosen, None)


def _holm(records: Sequence[Record]) -> dict[tuple[int, str, str], float]:
    """Holm's p over all paired differences of the runs, without those that are certain."""
    from negbench.stats import holm

    tests = {
        (run, p.metric, p.baseline): p.p
        for run, record in enumerate(records)
        for p in record.paired
        if p.p is not None and p.ci95 is not None
    }
    adjusted = holm(list(tests.values()))
    return {key: p for key, p in zip(tests, adjusted, strict=True) if p is not None}


def _paired(
    key: tuple[str, str],
    records: Sequence[Record],
    labels: Sequence[str],
    corrected: dict[tuple[int, str, str], float],
) -> Chart:
    metric, baseline = key
    found = [
        (run, label, paired)
        for run, (label, record) in enumerate(zip(labels, records, strict=True))
        if (paired := _find_pair(record, metric, baseline)) is not None
    ]
    about = found[0][2]
    scale = Scale.over((end for _, _, p in found for end in (p.delta, *(p.ci95 or ()))), zero=True)
    bars = []
    for run, label, paired in found:
        p = p_value(paired.p if paired.ci95 is not None else None)
        holm_p = p_value(corrected.get((run, metric, baseline)))
        details = [f"n {paired.n:,}", f"p {p}" if p else "", f"Holm {holm_p}" if holm_p else ""]
        bars.append(
            make_bar(
                label,
                paired.delta,
                paired.ci95,
                scale,
                text=signed_interval(paired.delta, paired.ci95, paired.unit),
                verdict=_verdict(paired),
                note=paired.note or "",
                detail=subtitle(*details),
            )
        )
    base = BASELINES.get(baseline, f"minus {visible(baseline, limit=40)}")
    return Chart(
        metric=visible(metric, limit=60),
        subtitle=subtitle(base, unit_of(about.unit), direction(about.higher_is_better)),
        about=about_metric(metric),
        zero=scale.x(0.0),
        ticks=scale.ticks(),
        bars=bars,
    )


def _verdict(paired: PairedDifference) -> str:
    return verdict(paired.delta, paired.ci95, paired.higher_is_better)


def _about_run(record: Record) -> str:
    plan = record.plan
    text = visible(plan.method.name, limit=60)
    if plan.treatment_guidance.kind != "cfg":
        text += f" carried by {visible(plan.treatment_guidance.kind, limit=40)}"
    if record.status != "complete":
        text += f"; {record.status}: {record.n_samples:,} of {record.n_expected:,} samples"
    return text


def _chips(record: Record) -> list[Chip]:
    """The paired differences that have a direction and are not certain; removal's headline."""
    return [
        Chip(
            metric=visible(paired.metric, limit=40),
            text=signed(paired.delta, paired.unit),
            verdict=_verdict(paired) or "cannot tell",
        )
        for paired in record.paired
        if paired.delta is not None
        and paired.higher_is_better is not None
        and paired.ci95 is not None
        and (paired.baseline == "twin" or is_removal(paired.metric))
    ]
