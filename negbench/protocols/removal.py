r"""Removal: does a negative prompt take a concept out, no more than that, and not by chance.

A unit is a triple (case, seed, concept); its pictures are the twin and the arms
(`negbench.requests.ARMS`). A concept is present in a picture if its `presence` there is greater
than the protocol's threshold. With N the triples whose twin shows the concept,

    rsr(arm) = P(absent in the arm | N)                       Ban et al. (arXiv 2406.02965)
    rrsr     = rsr(treated) / rsr(all_steps)                  the same
    cr       = P(d(treated, twin) < d(all_steps, twin) | N),  the same, ties one half
    net_removal = rsr(treated) - rsr(placebo)                 paired over N; the headline

`rsr`, `rrsr` and `cr` are what the authors' code computes (they are not written down in the paper);
`net_removal` is ours: a concept also goes by chance when anything is changed, and the placebo, the
same rule with an unrelated word, shows how often. Beside them stand

    base_rate          = P(the twin shows the concept), over all triples
    absent_rate        = P(absent in the treated picture), over all triples
    reverse_activation = P(present in the arm | absent in the twin)
    cr_both_removed    = cr among triples that treatment and all_steps both removed: alone, cr
                         rewards the picture in which nothing was changed; never ranked
    alignment_lost     = clip_alignment of the twin minus that of the picture
    <metric>_<arm>     = each distance to the twin, whole picture, over all triples, by arm

**Intervals** are clustered by prompt: Wilson's at the effective sample size for shares, so that
those at 0 and 100 % are not empty; cluster-robust t for differences of paired shares, and Wilson's
again where all differences are equal; for `rrsr` a BCa bootstrap of prompts, whose ends, being
quantiles, are those of the log ratio. The test of `net_removal` flips signs by prompt
(`negbench.stats.sign_flip`); Holm's correction is for whoever puts several methods into one table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from negbench.errors import one_line
from negbench.metrics.base import Metric, SetMetric
from negbench.protocols.benchmark import RemovalSpec
from negbench.requests import ARMS
from negbench.types import Estimate, PairedDifference

if TYPE_CHECKING:
    from negbench.record import Breakdown, Sample
    from negbench.stats import Contrast, Summary

PRESENCE = "presence"
HEADLINE = "net_removal"
GROUPS = ("category", "entangled")
"""Kinds of tags by which the numbers are broken down."""

TREATED = ("treated", *ARMS)
SAME_ARM = "the treatment is the negative prompt at every step"
IS_TWIN = "the rule without a negative draws the twin, so this is so by construction"
NO_TWIN_SHOWS = "no twin shows its concept"
ALL_TWINS_SHOW = "every twin shows its concept"

Values = list[float | None]


@dataclass
class RemovalSummary:
    """The protocol's numbers, the headline first."""

    estimates: list[Estimate] = field(default_factory=list)
    paired: list[PairedDifference] = field(default_factory=list)
    breakdown: list[Breakdown] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def summarise_removal(
    samples: Sequence[Sample], *, spec: RemovalSpec, metrics: Mapping[str, Metric]
) -> RemovalSummary:
    """All numbers of the protocol, over all cases and by category; see the module's text.

    Args:
        samples: scored by all metrics, each with all arms.
        spec: the threshold and the distance.
        metrics: the run's metrics by name; without ``presence`` there is nothing to count.
    """
    from negbench.record import Breakdown

    summary = RemovalSummary()
    if PRESENCE not in metrics:
        summary.notes.append(
            "the metric presence was not asked for, so there are no numbers of removal"
        )
        return summary
    whole = _Part(samples, spec, metrics)
    summary.estimates, summary.paired = whole.numbers()
    for by in GROUPS:
        for group in whole.groups(by):
            chosen = [sample for sample in samples if f"{by}:{group}" in sample.tags]
            estimates, paired = _Part(chosen, spec, metrics).numbers(whole=False)
            summary.breakdown.append(
                Breakdown(
                    by=by,
                    group=group,
                    n_cases=len({sample.case for sample in chosen}),
                    estimates=estimates,
                    paired=paired,
                )
            )
    summary.notes += whole.notes()
    return summary


def present(sample: Sample, side: str, *, threshold: float) -> bool | None:
    """Whether the concept is visible in a side's picture, None where the judge gave no answer."""
    score = sample.images()[side].scores[PRESENCE]
    return None if score.value is None else score.value > threshold


class _Part:
    """The numbers of some samples."""

    def __init__(
        self, samples: Sequence[Sample], spec: RemovalSpec, metrics: Mapping[str, Metric]
    ) -> None:
        self.samples = list(samples)
        self.spec = spec
        self.metrics = metrics
        self.shown = [s for s in self.samples if self._present(s, "twin") is True]
        self.lacking = [s for s in self.samples if self._present(s, "twin") is False]
        self.found: list[Estimate] = []
        self.paired: list[PairedDifference] = []

    def numbers(self, *, whole: bool = True) -> tuple[list[Estimate], list[PairedDifference]]:
        """The estimates and paired differences; only the chief ones if not `whole`."""
        self._net_removal()
        for arm in TREATED:
            if whole or arm != "empty":
                self._rsr(arm)
        self._ratio()
        self._closeness()
        for arm in TREATED:
            if whole or arm == "treated":
                self._reverse(arm)
        self._rates()
        self._damage(TREATED if whole else ("treated", "all_steps"), paired=whole)
        self._alignment(TREATED if whole else ("treated",))
        return self.found, self.paired

    def groups(self, by: str) -> list[str]:
        """What the samples' tags of this kind say, sorted."""
        tags = {tag for sample in self.samples for tag in sample.tags}
        return sorted(tag[len(by) + 1 :] for tag in tags if tag.startswith(f"{by}:"))

    def notes(self) -> list[str]:
        """What a reader should know of the presence scores."""
        notes = []
        missing = Counter(
            one_line(image.scores[PRESENCE].unscored or "", limit=120)
            for sample in self.samples
            for image in sample.images().values()
            if image.scores[PRESENCE].value is None
        )
        if missing:
            reason, count = missing.most_common(1)[0]
            notes.append(f"{missing.total()} pictures have no presence ({count}: {reason})")
        if not self.shown:
            notes.append(f"{NO_TWIN_SHOWS}: nothing could be removed")
        elif len(self.shown) < len(self.samples) / 20:
            notes.append(
                f"only {len(self.shown)} of {len(self.samples)} triples have a twin that shows the "
                "concept: the prompts hardly imply it here"
            )
        return notes

    # One number each ----------------------------------------------------------------------------

    def _net_removal(self) -> None:
        from negbench.stats import (
            agreeing_interval,
            minimum_detectable_difference,
            paired_contrast,
            variance_components,
        )

        ours, placebo = (self._removed(self.shown, side) for side in ("treated", "placebo"))
        prompts = _prompts(self.shown)
        contrast = paired_contrast(ours, placebo, prompts)
        ci95, note = contrast.ci95, contrast.note
        if ci95 is None and contrast.n_prompts > 1 and contrast.delta is not None:
            ci95 = agreeing_interval(contrast.delta, n=contrast.n, prompts=contrast.n_prompts)
            note = "all triples agree: each prompt counts once in the interval"
        differences = _differences(ours, placebo)
        parts = variance_components(differences, prompts)
        customary = {}
        if parts is not None and contrast.n:
            smallest = minimum_detectable_difference(
                parts, prompts=contrast.n_prompts, replicates=contrast.n / contrast.n_prompts
            )
            if smallest:
                customary["smallest_detectable"] = smallest
        self.found.append(
            Estimate(
                metric=HEADLINE,
                value=contrast.delta,
                ci95=_within(ci95, (-1.0, 1.0)),
                n_scored=contrast.n,
                n_unscored=contrast.n_dropped,
                n_prompts=contrast.n_prompts,
                higher_is_better=True,
                unit="share",
                note=note if self.shown else NO_TWIN_SHOWS,
                customary=customary,
            )
        )
        self._pair(HEADLINE, "placebo", contrast, higher=True, unit="share", ci95=ci95)

    def _rsr(self, arm: str) -> None:
        name = "rsr" if arm == "treated" else f"rsr_{arm}"
        better = True if arm in ("treated", "all_steps") else None
        self._share(name, arm, self.shown, absent=True, better=better, why_none=NO_TWIN_SHOWS)

    def _reverse(self, arm: str) -> None:
        name = "reverse_activation" if arm == "treated" else f"reverse_activation_{arm}"
        better = False if arm in ("treated", "all_steps") else None
        self._share(name, arm, self.lacking, absent=False, better=better, why_none=ALL_TWINS_SHOW)

    def _share(
        self,
        name: str,
        arm: str,
        samples: Sequence[Sample],
        *,
        absent: bool,
        better: bool | None,
        why_none: str,
    ) -> None:
        from dataclasses import replace

        from negbench.stats import share_summary

        gone = self._removed(samples, arm)
        values = gone if absent else [None if v is None else 1 - v for v in gone]
        summary = share_summary(values, _prompts(samples))
        if not samples:
            summary = replace(summary, note=why_none)
        elif arm != "treated" and _same(samples, arm, "twin"):
            summary = replace(summary, ci95=None, note=IS_TWIN)
        self._estimate(name, summary, better=better, unit="share")

    def _ratio(self) -> None:
        from negbench.stats import ratio_summary

        ours, theirs = (self._removed(self.shown, side) for side in ("treated", "all_steps"))
        if self.shown and _same(self.shown, "treated", "all_steps"):
            self._none("rrsr", SAME_ARM, better=True, unit="1")
            return
        summary = ratio_summary(ours, theirs, _prompts(self.shown))
        self._estimate("rrsr", summary, better=True, unit="1")

    def _closeness(self) -> None:
        from negbench.stats import share_summary

        both = [
            s
            for s in self.shown
            if self._present(s, "treated") is False and self._present(s, "all_steps") is False
        ]
        for name, samples in (("cr", self.shown), ("cr_both_removed", both)):
            better = True if name == "cr" else None
            if self.spec.distance not in self.metrics:
                why = f"the distance {self.spec.distance} was not among the metrics"
                self._none(name, why, better=better, unit="share")
            elif samples and _same(samples, "treated", "all_steps"):
                self._none(name, SAME_ARM, better=better, unit="share")
            else:
                closer = [self._closer(sample) for sample in samples]
                summary = share_summary(closer, _prompts(samples))
                self._estimate(
                    name, summary, better=better, unit="share", note=f"by {self.spec.distance}"
                )

    def _closer(self, sample: Sample) -> float | None:
        """1 where the treated picture is closer to the twin, 0 where all_steps is, 1/2 for ties."""
        metric = self.metrics[self.spec.distance]
        name = self.spec.distance
        ours = sample.treated.scores[name].value
        if metric.needs_rival:
            return ours
        theirs = sample.arms["all_steps"].scores[name].value
        if ours is None or theirs is None:
            return None
        if ours == theirs:
            return 0.5
        return float((ours > theirs) == bool(metric.higher_is_better))

    def _rates(self) -> None:
        from negbench.stats import share_summary

        prompts = _prompts(self.samples)
        for name, side, shows in (("base_rate", "twin", True), ("absent_rate", "treated", False)):
            seen = [self._present(sample, side) for sample in self.samples]
            values = [None if s is None else float(s is shows) for s in seen]
            self._estimate(name, share_summary(values, prompts), better=None, unit="share")

    def _damage(self, arms: Iterable[str], *, paired: bool) -> None:
        """Distances to the twin; the treated picture's own stand among the run's other metrics."""
        from negbench.stats import mean_summary, paired_contrast, share_summary

        prompts = _prompts(self.samples)
        for name, metric in self.metrics.items():
            if not metric.needs_twin or metric.needs_rival or isinstance(metric, SetMetric):
                continue
            summarise = share_summary if metric.unit == "share" else mean_summary
            for arm in arms:
                if arm == "treated" and paired:
                    continue
                shown = name if arm == "treated" else f"{name}_{arm}"
                summary = summarise(self._scores(name, arm), prompts)
                better = metric.higher_is_better if arm in ("treated", "all_steps") else None
                self._estimate(
                    shown, summary, better=better, unit=metric.unit, bounds=metric.bounds
                )
            if paired and not _same(self.samples, "treated", "all_steps"):
                contrast = paired_contrast(
                    self._scores(name, "treated"), self._scores(name, "all_steps"), prompts
                )
                better = metric.higher_is_better
                self._pair(name, "all_steps", contrast, higher=better, unit=metric.unit)

    def _alignment(self, arms: Iterable[str]) -> None:
        from negbench.stats import paired_contrast
        from negbench.stats.summary import Summary

        name = "clip_alignment"
        if name not in self.metrics:
            return
        for arm in arms:
            contrast = paired_contrast(
                self._scores(name, "twin"), self._scores(name, arm), _prompts(self.samples)
            )
            summary = Summary(
                contrast.delta,
                contrast.ci95,
                contrast.n,
                contrast.n_dropped,
                contrast.n_prompts,
                contrast.note,
            )
            self._estimate(
                "alignment_lost" if arm == "treated" else f"alignment_lost_{arm}",
                summary,
                better=False if arm in ("treated", "all_steps") else None,
                unit=self.metrics[name].unit,
            )

    # Pieces -------------------------------------------------------------------------------------

    def _present(self, sample: Sample, side: str) -> bool | None:
        return present(sample, side, threshold=self.spec.threshold)

    def _removed(self, samples: Sequence[Sample], side: str) -> Values:
        seen = [self._present(sample, side) for sample in samples]
        return [None if s is None else float(not s) for s in seen]

    def _scores(self, name: str, side: str) -> Values:
        return [sample.images()[side].scores[name].value for sample in self.samples]

    def _estimate(
        self,
        name: str,
        summary: Summary,
        *,
        better: bool | None,
        unit: str,
        bounds: tuple[float, float] | None = None,
        note: str | None = None,
    ) -> None:
        said = [text for text in (note, summary.note) if text]
        self.found.append(
            Estimate(
                metric=name,
                value=summary.value,
                ci95=_within(summary.ci95, bounds),
                n_scored=summary.n_scored,
                n_unscored=summary.n_unscored,
                n_prompts=summary.n_prompts,
                higher_is_better=better,
                unit=unit,
                note="; ".join(said) or None,
            )
        )

    def _none(self, name: str, why: str, *, better: bool | None, unit: str) -> None:
        from negbench.stats.summary import Summary

        self._estimate(name, Summary(None, None, 0, 0, 0, why), better=better, unit=unit)

    def _pair(
        self,
        name: str,
        baseline: str,
        contrast: Contrast,
        *,
        higher: bool | None,
        unit: str,
        ci95: tuple[float, float] | None = None,
    ) -> None:
        self.paired.append(
            PairedDifference(
                metric=name,
                baseline=baseline,
                delta=contrast.delta,
                ci95=ci95 or contrast.ci95,
                p=contrast.p,
                n=contrast.n,
                n_unscored=contrast.n_dropped,
                n_prompts=contrast.n_prompts,
                higher_is_better=higher,
                unit=unit,
                note=contrast.note,
            )
        )


def _differences(first: Values, second: Values) -> Values:
    pairs = zip(first, second, strict=True)
    return [None if a is None or b is None else a - b for a, b in pairs]


def _prompts(samples: Sequence[Sample]) -> list[str]:
    return [sample.prompt for sample in samples]


def _same(samples: Sequence[Sample], side: str, other: str) -> bool:
    """Whether two sides of all samples are the same pictures by request."""
    images = [sample.images() for sample in samples]
    return all(found[side].key == found[other].key for found in images)


def _within(
    ci95: tuple[float, float] | None, bounds: tuple[float, float] | None
) -> tuple[float, float] | None:
    if ci95 is None or bounds is None:
        return ci95
    return max(ci95[0], bounds[0]), min(ci95[1], bounds[1])
