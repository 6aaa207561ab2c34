"""From samples to estimates: every headline number with n, unit, direction and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from negbench.metrics.base import Features, Metric, SetMetric
from negbench.types import Estimate, PairedDifference

if TYPE_CHECKING:
    from negbench.protocols.benchmark import RemovalSpec
    from negbench.record import Breakdown, Sample
    from negbench.stats import Contrast, Summary
    from negbench.store import FeatureStore

Side = Literal["treated", "twin"]
BASELINE = "twin"
"""The baseline of paired differences: the same prompt and noise without a negative prompt."""


@dataclass
class RunSummary:
    """Estimates of the treated images and of their twins, and the paired differences."""

    estimates: list[Estimate] = field(default_factory=list)
    twin_estimates: list[Estimate] = field(default_factory=list)
    paired: list[PairedDifference] = field(default_factory=list)
    breakdown: list[Breakdown] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def summarise(
    metrics: Mapping[str, Metric],
    samples: Sequence[Sample],
    rows: Mapping[str, FeatureStore],
    *,
    removal: RemovalSpec | None = None,
) -> RunSummary:
    """Estimates and paired differences of a run.

    Args:
        metrics: the run's metrics by name.
        samples: in the plan's order, all scored by all metrics.
        rows: for each set metric, what each image adds, by image digest.
        removal: for a removal protocol, how it counts; its numbers come first.

    Returns:
        A metric that says nothing of twins (a distance to the twin) has no twin estimate and no
        paired difference. A run whose every image equals its twin has no paired differences.
    """
    summary = RunSummary()
    if removal is not None:
        from negbench.protocols.removal import summarise_removal

        found = summarise_removal(samples, spec=removal, metrics=metrics)
        summary.estimates += found.estimates
        summary.paired += found.paired
        summary.breakdown += found.breakdown
        summary.notes += found.notes
    same = all(sample.treated.key == sample.twin.key for sample in samples)
    if same:
        summary.notes.append("every image is its own twin, so there are no paired differences")
    truncated = sum("truncated_tokens" in s.treated.facts and _cut(s) > 0 for s in samples)
    if truncated:
        summary.notes.append(
            f"{truncated} of {len(samples)} samples had a text cut at the generator's context"
        )
    for name, metric in metrics.items():
        summary.estimates.append(_estimate(name, metric, samples, rows, side="treated"))
        if metric.needs_twin:
            continue
        summary.twin_estimates.append(_estimate(name, metric, samples, rows, side="twin"))
        if not same:
            contrast = _contrast(name, metric, samples, rows)
            summary.paired.append(_difference(name, metric, contrast))
    return summary


def _cut(sample: Sample) -> int:
    value = sample.treated.facts.get("truncated_tokens")
    return int(value) if isinstance(value, (int, float)) else 0


def _values(name: str, samples: Sequence[Sample], side: Side) -> list[float | None]:
    images = (sample.treated if side == "treated" else sample.twin for sample in samples)
    return [image.scores[name].value for image in images]


def _rows(store: FeatureStore, samples: Sequence[Sample], side: Side) -> Features:
    import numpy as np

    images = (sample.treated if side == "treated" else sample.twin for sample in samples)
    return np.stack([store[image.image] for image in images])


def _summary(
    name: str,
    metric: Metric,
    samples: Sequence[Sample],
    rows: Mapping[str, FeatureStore],
    *,
    side: Side,
) -> Summary:
    from negbench.stats import mean_summary, share_summary

    prompts = [sample.prompt for sample in samples]
    if isinstance(metric, SetMetric):
        return metric.summary(_rows(rows[name], samples, side), prompts)
    values = _values(name, samples, side)
    return (
        share_summary(values, prompts) if metric.unit == "share" else mean_summary(values, prompts)
    )


def _contrast(
    name: str, metric: Metric, samples: Sequence[Sample], rows: Mapping[str, FeatureStore]
) -> Contrast:
    from negbench.stats import paired_contrast

    prompts = [sample.prompt for sample in samples]
    sides: tuple[Side, Side] = ("treated", "twin")
    if isinstance(metric, SetMetric):
        treated, twins = (_rows(rows[name], samples, side) for side in sides)
        return metric.contrast(treated, twins, prompts)
    scores, baseline = (_values(name, samples, side) for side in sides)
    return paired_contrast(scores, baseline, prompts)


def _estimate(
    name: str,
    metric: Metric,
    samples: Sequence[Sample],
    rows: Mapping[str, FeatureStore],
    *,
    side: Side,
) -> Estimate:
    summary = _summary(name, metric, samples, rows, side=side)
    customary: Mapping[str, float] = {}
    if isinstance(metric, SetMetric):
        customary = metric.customary(_rows(rows[name], samples, side))
    return Estimate(
        metric=name,
        value=summary.value,
        ci95=_within(metric, summary.ci95),
        n_scored=summary.n_scored,
        n_unscored=summary.n_unscored,
        n_prompts=summary.n_prompts,
        higher_is_better=metric.higher_is_better,
        unit=metric.unit,
        note=summary.note,
        customary=dict(customary),
    )


def _within(metric: Metric, ci95: tuple[float, float] | None) -> tuple[float, float] | None:
    """An interval cut to the values that the metric can have."""
    if ci95 is None or metric.bounds is None:
        return ci95
    low, high = metric.bounds
    return max(ci95[0], low), min(ci95[1], high)


def _difference(name: str, metric: Metric, contrast: Contrast) -> PairedDifference:
    return PairedDifference(
        metric=name,
        baseline=BASELINE,
        delta=contrast.delta,
        ci95=contrast.ci95,
        p=contrast.p,
        n=contrast.n,
        n_unscored=contrast.n_dropped,
        n_prompts=contrast.n_prompts,
        higher_is_better=metric.higher_is_better,
        unit=metric.unit,
        note=contrast.note,
    )
