"""What each tag of a negative prompt adds to the whole: full list minus the list without the tag.

Every list is a run of the method ``static`` on the same cases and noises, so images are drawn once
and shared with all other runs. The difference is paired by case and noise and clustered by prompt;
p values are adjusted by Holm over all tests of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from negbench.ablate.tags import shown, split_tags, without
from negbench.errors import ConfigError
from negbench.evaluate import evaluate
from negbench.metrics.base import Metric, SetMetric
from negbench.plan import Resolved, make_plan
from negbench.progress import Progress, silent
from negbench.protocols import load_benchmark
from negbench.record import Record, Sample
from negbench.store import FeatureStore
from negbench.types import Case

Verdict = Literal["helps", "harms", "changes", "does nothing", "cannot tell"]
LEVEL = 0.05
MARGIN = 0.2
"""Default share of the whole list's effect that counts as nothing."""


class TagEffect(BaseModel):
    """What one tag adds, by one metric.

    Attributes:
        tag: the tag.
        metric: name of the metric.
        effect: full list minus the list without the tag, in the metric's unit.
        ci95: its 95 % interval, clustered by prompt.
        p: two-sided p of a randomisation test by prompt.
        p_holm: the same adjusted over all tests of the table.
        n: pairs of pictures.
        n_unscored: pairs left out because a side has no score.
        n_prompts: prompts.
        unchanged: share of pictures that are the same, pixel by pixel, without the tag.
        verdict: ``helps`` or ``harms`` where `p_holm` is at most 0.05 (``changes`` for a metric
            without a direction), ``does nothing`` where all pictures are the same or the interval
            lies within the margin, else ``cannot tell``.
        note: what a reader should know.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    tag: str
    metric: str
    effect: float | None
    ci95: tuple[float, float] | None
    p: float | None
    p_holm: float | None
    n: int
    n_unscored: int
    n_prompts: int
    unchanged: float
    verdict: Verdict
    note: str | None = None


class Whole(BaseModel):
    """What the full list does beside no negative prompt, by one metric."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    metric: str
    unit: str
    higher_is_better: bool | None
    effect: float | None
    ci95: tuple[float, float] | None
    p: float | None
    margin: float | None


class Ablation(BaseModel):
    """All tags by all metrics.

    Attributes:
        benchmark: name and version.
        negative: the full list.
        tags: its tags in order.
        prompts: cases.
        replicates: noises a case.
        margin_share: share of the whole list's effect that counts as nothing.
        tests: how many tests Holm's adjustment counted.
        whole: the full list beside no negative prompt.
        effects: metric by metric, in the order of the tags.
        folders: label -> folder of the run.
        notes: of the runs.
    """

    benchmark: str
    negative: str
    tags: list[str]
    prompts: int
    replicates: int
    margin_share: float
    tests: int
    whole: list[Whole]
    effects: list[TagEffect]
    folders: dict[str, str]
    notes: list[str]


def plan_ablation(
    negative: str,
    *,
    benchmark: str = "miniature-quality",
    metrics: Sequence[str] | None = None,
    **options: Any,
) -> tuple[Resolved, list[str]]:
    """The runs that an ablation needs: the full list first, then one without each tag.

    Args:
        negative: the list, comma separated.
        benchmark: whose cases, generator and metrics.
        metrics: names; None for those of the benchmark that can compare two negative prompts.
        options: of `make_plan`: generator, limit, replicates, out, cache, ...

    Returns:
        The resolved runs and the tags.

    Raises:
        ConfigError: no tag, or no metric that can compare.
        NegbenchError: anything that would fail later.
    """
    tags = split_tags(negative)
    names = list(metrics) if metrics else _comparing(benchmark)
    labels = ["full", *(f"without{number}" for number in range(len(tags)))]
    texts = [", ".join(tags), *(without(tags, number) for number in range(len(tags)))]
    resolved = make_plan(
        benchmark=benchmark,
        methods=[f"{label}=static" for label in labels],
        method_params={f"{label}.text": text for label, text in zip(labels, texts, strict=True)},
        metrics=names,
        **options,
    )
    for name, metric in resolved.metrics.items():
        if not _compares(metric):
            raise ConfigError(
                f"--metric {name} cannot compare two negative prompts: it measures the distance to "
                "the twin, the cost, or the fit to the negative prompt itself"
            )
    for job, name in zip(resolved.jobs[1:], shown(tags), strict=True):
        job.label = f"without {name}"
    return resolved, tags


def _comparing(benchmark: str) -> list[str]:
    """Metrics of a benchmark by which pictures with two negative prompts can be compared."""
    from negbench.metrics import metrics
    from negbench.params import build_config

    bench = load_benchmark(benchmark)
    names = []
    for name, params in bench.metrics.items():
        cls = metrics.get(name)
        metric = cls(build_config(cls.Config, params, owner=f"metric {name}"))
        if _compares(metric):
            names.append(name)
    if not names:
        raise ConfigError(f"benchmark {benchmark} has no metric that can compare; name some")
    return names


def _compares(metric: Metric) -> bool:
    """Whether a metric means the same whatever the negative prompt was."""
    case = Case(id="x", prompt="a", concept="b")
    reads_negative = list(metric.texts(case, "c")) != list(metric.texts(case, "d"))
    return not (metric.needs_twin or reads_negative or metric.unit == "predictions")


def ablate(
    resolved: Resolved,
    tags: Sequence[str],
    *,
    margin: float = MARGIN,
    progress: Progress = silent,
    command: str = "",
) -> Ablation:
    """Draw and score what is missing, and compare.

    Args:
        resolved: the runs, from `plan_ablation`.
        tags: the tags, likewise.
        margin: share of the whole list's effect that counts as nothing, at least 0.
        progress: called with a label and a total for each stage.
        command: for provenance.

    Raises:
        NegbenchError: a run failed; what was drawn and scored is kept.
    """
    if not 0 <= margin < 1:
        raise ConfigError(f"--margin must be at least 0 and below 1, got {margin}")
    records = evaluate(resolved, progress=progress, command=command)
    full, others = records[0], records[1:]
    names = shown(tags)
    whole = [_whole(full, name, metric, margin) for name, metric in resolved.metrics.items()]
    by_metric = {item.metric: item for item in whole}
    effects = []
    for name, metric in resolved.metrics.items():
        rows = _Rows(resolved, name)
        for tag, other in zip(names, others, strict=True):
            effects.append(_effect(tag, name, metric, full, other, rows))
    from negbench.stats import holm

    adjusted = holm([effect.p for effect in effects])
    effects = [
        effect.model_copy(
            update={"p_holm": p, "verdict": _verdict(effect, p, by_metric[effect.metric])}
        )
        for effect, p in zip(effects, adjusted, strict=True)
    ]
    plan = full.plan
    return Ablation(
        benchmark=f"{plan.benchmark.name}@{plan.benchmark.version}",
        negative=", ".join(tags),
        tags=names,
        prompts=len({sample.prompt for sample in full.samples()}),
        replicates=plan.replicates,
        margin_share=margin,
        tests=sum(p is not None for p in adjusted),
        whole=whole,
        effects=effects,
        folders={record.label: str(record.folder) for record in records},
        notes=list(dict.fromkeys(note for record in records for note in record.notes)),
    )


def _whole(full: Record, name: str, metric: Metric, margin: float) -> Whole:
    paired = next((item for item in full.paired if item.metric == name), None)
    effect = None if paired is None else paired.delta
    return Whole(
        metric=name,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        effect=effect,
        ci95=None if paired is None else paired.ci95,
        p=None if paired is None else paired.p,
        margin=None if effect is None else abs(effect) * margin,
    )


class _Rows:
    """Rows of a set metric by image, gathered from the runs' own folders."""

    def __init__(self, resolved: Resolved, name: str) -> None:
        self._ref = resolved.metric_refs[name]
        self._stores: dict[Path, FeatureStore] = {}

    def of(self, record: Record, samples: Sequence[Sample]) -> Any:
        import numpy as np

        assert record.folder is not None
        if record.folder not in self._stores:
            self._stores[record.folder] = FeatureStore(record.folder, self._ref, kind="rows")
        store = self._stores[record.folder]
        return np.stack([store[sample.treated.image] for sample in samples])


def _effect(
    tag: str, name: str, metric: Metric, full: Record, other: Record, rows: _Rows
) -> TagEffect:
    from negbench.stats import paired_contrast

    mine: Mapping[tuple[str, int], Sample] = {sample.id: sample for sample in full.samples()}
    theirs = {sample.id: sample for sample in other.samples()}
    shared = [key for key in mine if key in theirs]
    with_tag, no_tag = [mine[key] for key in shared], [theirs[key] for key in shared]
    prompts = [sample.prompt for sample in with_tag]
    if isinstance(metric, SetMetric):
        contrast = metric.contrast(rows.of(full, with_tag), rows.of(other, no_tag), prompts)
    else:
        contrast = paired_contrast(
            [sample.treated.scores[name].value for sample in with_tag],
            [sample.treated.scores[name].value for sample in no_tag],
            prompts,
        )
    same = sum(a.treated.image == b.treated.image for a, b in zip(with_tag, no_tag, strict=True))
    return TagEffect(
        tag=tag,
        metric=name,
        effect=contrast.delta,
        ci95=contrast.ci95,
        p=contrast.p,
        p_holm=None,
        n=contrast.n,
        n_unscored=contrast.n_dropped,
        n_prompts=contrast.n_prompts,
        unchanged=same / len(shared) if shared else 0.0,
        verdict="cannot tell",
        note=contrast.note,
    )


def _verdict(effect: TagEffect, p_holm: float | None, whole: Whole) -> Verdict:
    if effect.unchanged == 1.0:
        return "does nothing"
    if effect.effect is not None and p_holm is not None and p_holm <= LEVEL:
        if whole.higher_is_better is None:
            return "changes"
        return "helps" if (effect.effect > 0) == whole.higher_is_better else "harms"
    if effect.ci95 is not None and whole.margin:
        low, high = effect.ci95
        if -whole.margin <= low and high <= whole.margin:
            return "does nothing"
    return "cannot tell"
