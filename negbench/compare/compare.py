"""Paired differences between runs, tested exactly and corrected for how many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from negbench.compare.comparison import ComparedRun, Comparison, Comparisons, Verdict
from negbench.compare.removal import NUMBERS, removal_values
from negbench.compare.same import Shared, check_comparable, run_labels, shared_samples
from negbench.compare.sentences import conclude
from negbench.errors import ConfigError, MissingError, did_you_mean
from negbench.record import Record, Sample
from negbench.types import Estimate

if TYPE_CHECKING:
    from negbench.stats import Contrast

ALPHA = 0.05
POWER = 0.8
SAME_SCORE = 1e-5
"""Scores of one picture by one metric that differ by more were made for different texts."""


@dataclass(frozen=True)
class _Raw:
    """A comparison before correction."""

    first: str
    second: str
    about: Estimate
    contrast: Contrast
    values: tuple[float | None, float | None]
    constant: bool
    sd: float | None
    of: Literal["score", "gain"] = "score"


def compare_runs(
    records: Sequence[Record],
    *,
    metrics: Sequence[str] | None = None,
    baseline: str | None = None,
) -> Comparisons:
    """Compare every two runs, or every run with a baseline, metric by metric.

    Args:
        records: at least two runs of one benchmark and generator, with their folders.
        metrics: names; None for all that every run has.
        baseline: label of the run that all others are compared with; None for all pairs.

    Returns:
        First minus second, paired on case and noise, clustered by prompt, Holm over all tests.

    Raises:
        ConfigError: fewer than two runs, or runs that may not be compared, with the difference.
        MissingError: a metric that a run does not have.
    """
    if len(records) < 2:
        raise ConfigError("compare needs at least two runs; give two or more folders of runs")
    names = _metric_names(records, metrics)
    check_comparable(records, metrics=names)
    labels = run_labels(records)
    samples = [record.samples() for record in records]
    raw: list[_Raw] = []
    notes: list[str] = []
    for i, j in _pairs(labels, baseline):
        pair = shared_samples(samples[i], samples[j], labels=(labels[i], labels[j]))
        notes += _pair_notes(pair, labels[i], labels[j])
        for name in names:
            if _says_nothing(name, records[i], records[j], pair):
                continue
            raw.append(
                _compare(name, (records[i], records[j]), pair, labels=(labels[i], labels[j]))
            )
    raw.sort(key=lambda item: names.index(item.about.metric))
    for label, record in zip(labels, records, strict=True):
        if record.status != "complete":
            notes.append(
                f"{label} is {record.status}: {record.n_samples} of {record.n_expected} samples"
            )
    plan = records[0].plan
    comparisons, family = _corrected(raw)
    return Comparisons(
        benchmark=f"{plan.benchmark.name}@{plan.benchmark.version}",
        generator=f"{plan.generator.name} {plan.generator.digest()[:12]}",
        runs=[
            ComparedRun(
                label=label,
                method=record.plan.method.name,
                guidance=record.plan.treatment_guidance.kind,
                plan_digest=record.plan_digest,
                folder=None if record.folder is None else str(record.folder),
                n_samples=record.n_samples,
                status=record.status,
            )
            for label, record in zip(labels, records, strict=True)
        ],
        family=family,
        comparisons=comparisons,
        notes=list(dict.fromkeys(notes)),
    )


def _metric_names(records: Sequence[Record], wanted: Sequence[str] | None) -> list[str]:
    known = [
        [e.metric for e in record.estimates if e.metric in record.metrics or e.metric in NUMBERS]
        for record in records
    ]
    common = [name for name in known[0] if all(name in names for names in known[1:])]
    if wanted is None:
        if not common:
            raise MissingError(
                "the runs have no metric in common; run evaluate again with the same --metric"
            )
        return common
    for name in wanted:
        for record, names in zip(records, known, strict=True):
            if name not in names:
                raise MissingError(
                    f"run {record.folder} has no metric {name!r}; {did_you_mean(name, names)}"
                )
    return list(dict.fromkeys(wanted))


def _pairs(labels: Sequence[str], baseline: str | None) -> list[tuple[int, int]]:
    if baseline is None:
        return list(combinations(range(len(labels)), 2))
    if baseline not in labels:
        raise ConfigError(f"no run is called {baseline!r}; {did_you_mean(baseline, labels)}")
    base = labels.index(baseline)
    return [(i, base) for i in range(len(labels)) if i != base]


def _pair_notes(pair: Shared, first: str, second: str) -> list[str]:
    notes = []
    if pair.n_only_first or pair.n_only_second:
        notes.append(
            f"{first} and {second} share {len(pair.first)} samples; {pair.n_only_first} only in "
            f"{first} and {pair.n_only_second} only in {second} are left out"
        )
    if pair.n_other_twins:
        notes.append(
            f"{first} and {second}: {pair.n_other_twins} of {len(pair.first)} twins are the same "
            "request with other pixels (another machine or other software drew them), so "
            "differences hold some of that too"
        )
    return notes


def _says_nothing(metric: str, first: Record, second: Record, pair: Shared) -> bool:
    """Whether `metric` measures a distance to the twin and one run consists of twins."""
    if any(estimate.metric == metric for estimate in first.twin_estimates):
        return False
    if metric in NUMBERS and metric not in first.metrics:
        return False
    sides = (pair.first, pair.second)
    return any(all(s.treated.key == s.twin.key for s in side) for side in sides)


def _estimate(record: Record, metric: str) -> Estimate:
    return next(estimate for estimate in record.estimates if estimate.metric == metric)


def _compare(
    name: str, records: tuple[Record, Record], pair: Shared, *, labels: tuple[str, str]
) -> _Raw:
    from negbench.metrics import metrics
    from negbench.metrics.base import SetMetric

    about = _estimate(records[0], name)
    if name in NUMBERS and name not in records[0].metrics:
        found = removal_values(name, pair, records[0])
        if found is None:
            raise MissingError(f"run {records[0].folder} has no presence scores for {name}")
        return _compare_values(about, *found, labels=labels)
    in_samples = any(name in s.treated.scores for s in (*pair.first[:1], *pair.second[:1]))
    if in_samples or not issubclass(metrics.get(name), SetMetric):
        return _compare_scores(about, pair, labels=labels)
    return _compare_sets(about, records, pair, labels=labels)


def _compare_scores(about: Estimate, pair: Shared, *, labels: tuple[str, str]) -> _Raw:
    sides = [_scores(about.metric, side) for side in (pair.first, pair.second)]
    twins = [_scores(about.metric, side, twin=True) for side in (pair.first, pair.second)]
    reads_own_text = any(
        a is not None and b is not None and abs(a - b) > SAME_SCORE
        for a, b, one, two in zip(*twins, pair.first, pair.second, strict=True)
        if one.twin.image == two.twin.image
    )
    if reads_own_text:
        sides = [
            [None if a is None or b is None else a - b for a, b in zip(side, twin, strict=True)]
            for side, twin in zip(sides, twins, strict=True)
        ]
    raw = _compare_values(about, sides, pair.prompts, labels=labels)
    return replace(raw, of="gain") if reads_own_text else raw


def _compare_values(
    about: Estimate,
    sides: Sequence[Sequence[float | None]],
    prompts: Sequence[str],
    *,
    labels: tuple[str, str],
) -> _Raw:
    from negbench.stats import mean_summary, paired_contrast, variance_components

    both = [a is not None and b is not None for a, b in zip(*sides, strict=True)]
    kept = [[v if ok else None for v, ok in zip(side, both, strict=True)] for side in sides]
    contrast = paired_contrast(kept[0], kept[1], prompts)
    gaps = [None if a is None or b is None else a - b for a, b in zip(*kept, strict=True)]
    found = [gap for gap in gaps if gap is not None]
    constant = len(found) > 1 and max(found) == min(found)
    parts = variance_components(gaps, prompts)
    replicates = contrast.n / contrast.n_prompts if contrast.n_prompts else 1.0
    return _Raw(
        *labels,
        about=about,
        contrast=contrast,
        values=(mean_summary(kept[0], prompts).value, mean_summary(kept[1], prompts).value),
        constant=constant,
        sd=None if parts is None else parts.mean_sd(replicates),
    )


def _scores(metric: str, samples: Sequence[Sample], *, twin: bool = False) -> list[float | None]:
    images = (sample.twin if twin else sample.treated for sample in samples)
    scores = (image.scores.get(metric) for image in images)
    return [None if score is None else score.value for score in scores]


def _compare_sets(
    about: Estimate, records: tuple[Record, Record], pair: Shared, *, labels: tuple[str, str]
) -> _Raw:
    import numpy as np

    from negbench.metrics import metrics
    from negbench.metrics.base import SetMetric
    from negbench.store import FeatureStore

    name = about.metric
    stores = []
    for record in records:
        assert record.folder is not None
        stores.append(FeatureStore(record.folder, record.metrics[name], kind="rows"))
    shared = [
        (a.treated.image, b.treated.image, a.prompt)
        for a, b in zip(pair.first, pair.second, strict=True)
        if a.treated.image in stores[0] and b.treated.image in stores[1]
    ]
    if not shared:
        raise MissingError(
            f"run {records[0].folder} or {records[1].folder} has lost its rows of {name}; give "
            "its evaluate command again, or leave the metric out with --metric"
        )
    cls = metrics.get(name)
    params = records[0].metrics[name].params
    metric = cls(cls.Config(**{k: v for k, v in params.items() if k in cls.Config.model_fields}))
    assert isinstance(metric, SetMetric)
    first = np.stack([stores[0][a] for a, _, _ in shared])
    second = np.stack([stores[1][b] for _, b, _ in shared])
    prompts = [prompt for _, _, prompt in shared]
    same = bool((first == second).all())
    contrast = metric.contrast(first, second, prompts)
    contrast = replace(contrast, n_dropped=len(pair.first) - len(shared))
    return _Raw(
        *labels,
        about=about,
        contrast=contrast,
        values=(metric.value(first), metric.value(second)),
        constant=same,
        sd=_jackknife_sd(contrast),
    )


def _jackknife_sd(contrast: Contrast) -> float | None:
    """Deviation over prompts that the interval of a set's difference stands for."""
    from negbench.stats.summary import t_quantile

    if contrast.ci95 is None or contrast.n_prompts < 2:
        return None
    half = (contrast.ci95[1] - contrast.ci95[0]) / 2
    return float(half / t_quantile(contrast.n_prompts - 1.0) * contrast.n_prompts**0.5)


def _corrected(raw: Sequence[_Raw]) -> tuple[list[Comparison], int]:
    from negbench.stats import holm

    tests = [None if item.constant else item.contrast.p for item in raw]
    adjusted = holm(tests)
    family = sum(p is not None for p in tests)
    return [
        _comparison(item, p=p, p_holm=p_holm, family=family)
        for item, p, p_holm in zip(raw, tests, adjusted, strict=True)
    ], family


def _comparison(raw: _Raw, *, p: float | None, p_holm: float | None, family: int) -> Comparison:
    from negbench.stats import minimum_detectable_difference, prompts_needed

    contrast, about = raw.contrast, raw.about
    alpha = ALPHA / max(family, 1)
    detectable = needed = None
    if raw.sd and not raw.constant and contrast.n_prompts > 1:
        detectable = minimum_detectable_difference(
            raw.sd, prompts=contrast.n_prompts, power=POWER, alpha=alpha
        )
        if contrast.delta:
            needed = prompts_needed(contrast.delta, raw.sd, power=POWER, alpha=alpha)
    facts: Mapping[str, object] = {
        "first": raw.first,
        "second": raw.second,
        "metric": about.metric,
        "unit": about.unit,
        "higher_is_better": about.higher_is_better,
        "first_value": raw.values[0],
        "second_value": raw.values[1],
        "delta": contrast.delta,
        "ci95": contrast.ci95,
        "p": p,
        "p_holm": p_holm,
        "n": contrast.n,
        "n_unscored": contrast.n_dropped,
        "n_prompts": contrast.n_prompts,
        "detectable": detectable,
        "prompts_needed": needed,
        "note": contrast.note,
        "of": raw.of,
        "verdict": _verdict(raw, p=p, p_holm=p_holm),
        "sentence": "",
    }
    plain = Comparison.model_validate(facts)
    return plain.model_copy(update={"sentence": conclude(plain, family=family)})


def _verdict(raw: _Raw, *, p: float | None, p_holm: float | None) -> Verdict:
    delta, better_up = raw.contrast.delta, raw.about.higher_is_better
    if delta is None:
        return "none"
    if raw.constant and delta == 0:
        return "same"
    if not raw.constant:
        if p is None or p_holm is None:
            return "none"
        if p_holm > ALPHA:
            return "leaning" if p <= ALPHA else "cannot tell"
    if better_up is None:
        return "higher" if delta > 0 else "lower"
    return "better" if (delta > 0) == better_up else "worse"
