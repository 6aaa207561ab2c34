"""Removal metrics from recorded judgements (`negbench.protocols.verdicts`).

The definitions are those that the code of Ban et al. (arXiv 2406.02965) computes; a unit is a
(case, seed, concept) triple, and its twin is the picture without a negative prompt:

    rsr(arm) = P(concept absent in the arm's picture | the twin shows it)
    rrsr     = rsr(window) / rsr(all_steps)
    cr       = P(the window's picture is closer to the twin than the all-steps picture), ties 1/2

**Condition.** With case and seed in the file and an arm `none`, only triples count whose twin
shows the concept; triples without a verdict on the twin are left out, and those whose twin lacks
the concept give `reverse_activation` = P(present in the arm's picture | absent in the twin).
Without the arm `none` all triples count: right where, as in Ban et al., the concepts were read off
the twin. Without case and seed a verdict on a twin cannot be matched with its triple: then all
triples count too, and where some twins lack their concept this overstates rsr, so
`conditioned_on_twin` is false and a note says so.

**Intervals.** With a column case they are clustered by case: Wilson's interval at the effective
sample size for shares, a bootstrap of cases for the ratio (its ends are quantiles, so they are
those of the log ratio, exponentiated). Without it the counts say neither which triples share a
prompt or noise nor how the two arms came out on the same triple, so `independence_assumed` is
true: triples are taken as independent of one another, which makes all intervals too narrow where
triples of a prompt are alike, and for rrsr the arms are taken as independent samples (Koopman's
score interval), which makes it too wide where, as one would expect, a concept that one arm removes
is more easily removed by the other. Nothing says that the two cancel.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from negbench.protocols.concept_lists import ConceptList
from negbench.protocols.verdicts import TREATMENTS, Comparison, Comparisons, Verdict, Verdicts
from negbench.stats.bootstrap import cluster_bootstrap
from negbench.stats.proportions import share_interval, wilson
from negbench.stats.share_ratio import share_ratio_interval
from negbench.stats.summary import Array, t_quantile

Totals = Mapping[str | None, tuple[float, float]]
"""Hits and trials by case; one entry under None where the file does not say the case."""

INDEPENDENT = (
    "without the columns case and seed, triples are taken as independent of one another "
    "(intervals are too narrow where triples of one prompt are alike)"
)
INDEPENDENT_ARMS = (
    "for rrsr the two arms are taken as independent samples, since counts do not say how they "
    "came out on the same triple (its interval is too wide where what one arm removes is more "
    "easily removed by the other)"
)
NONE_LACKING = "no triple whose twin lacks the concept"


class Rate(BaseModel):
    """A share between 0 and 1, or a ratio of two, or the reason why there is none.

    Attributes:
        value: None if `unscored` says why.
        ci95: 95 % interval, None where there is none (`note` says why).
        n: judgements behind it; for a ratio the smaller number of the two.
        n_cases: cases they belong to, the clusters of the interval; None if the file has none.
        independence_assumed: the interval takes judgements as independent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float | None
    ci95: tuple[float, float] | None
    n: int
    n_cases: int | None
    independence_assumed: bool
    unscored: str | None = None
    note: str | None = None


class Closeness(Rate):
    """How often the window's picture is the closer one; `ties` count one half each."""

    ties: int


class Kept(BaseModel):
    """What a list of concepts kept.

    Attributes:
        name: of the list.
        n_listed: concepts on the list.
        n_dropped: triples whose concept is not on it.
        near_misses: dropped concepts that differ from a listed one by case, spaces or
            underscores only, with their number of triples, largest first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    n_listed: int
    n_dropped: int
    near_misses: dict[str, int]


class RemovalScores(BaseModel):
    """All metrics of a file of verdicts.

    Attributes:
        n: triples that were judged (and are on the list, and are shown by the twin, where these
            conditions are set).
        rsr: by treatment arm.
        cr_both_removed: `cr` among the triples that both arms removed: a picture in which nothing
            was changed is the closest of all, so `cr` alone rewards doing nothing.
        twin_presence: P(the twin shows the concept), where the file has the arm `none`.
        reverse_activation: by treatment arm, where verdicts on twins can be matched.
        assumptions: what the intervals take for granted.
        notes: what a reader should know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdicts: str
    comparisons: str | None
    concepts: Kept | None
    n: int
    n_cases: int | None
    rsr: dict[str, Rate]
    rrsr: Rate
    cr: Closeness
    cr_both_removed: Closeness
    twin_presence: Rate | None
    reverse_activation: dict[str, Rate]
    conditioned_on_twin: bool
    independence_assumed: bool
    assumptions: list[str]
    notes: list[str]


def score_verdicts(
    verdicts: Verdicts,
    *,
    comparisons: Comparisons | None = None,
    concepts: ConceptList | None = None,
) -> RemovalScores:
    """Removal metrics with 95 % intervals; see the module's text for definitions.

    Args:
        verdicts: of the arms all_steps and window, and of none where there are some.
        comparisons: for `cr`. A list of concepts applies to them only if they name concepts.
        concepts: the only concepts to score, letter by letter; None for all.
    """
    notes = list(verdicts.notes)
    rows = [row for row in verdicts.rows if row.count]
    kept = None
    if concepts is not None:
        kept = _kept(rows, concepts)
        rows = [row for row in rows if row.concept in concepts.concepts]
    twin_rows = [row for row in rows if row.arm == "none"]
    treated = [row for row in rows if row.arm != "none"]
    reverse: dict[str, Rate] = {}
    conditioned = bool(twin_rows) and verdicts.has_seed
    if conditioned:
        shows = {row.triple: row.present for row in twin_rows}
        unmatched = len({row.triple for row in treated} - shows.keys())
        if unmatched:
            notes.append(f"triples without a verdict on the twin, left out: {unmatched}")
        lacking = [row for row in treated if shows.get(row.triple) is False]
        reverse = {
            arm: _share(_totals(lacking, arm, present=True), verdicts, NONE_LACKING)
            for arm in TREATMENTS
        }
        treated = [row for row in treated if shows.get(row.triple)]
    elif any(not row.present for row in twin_rows):
        notes.append(
            "rsr is over all triples, though some twins lack their concept: without case and "
            "seed the arm none cannot be matched, so rsr is too high"
        )
    totals = {arm: _totals(treated, arm) for arm in TREATMENTS}
    sizes = {arm: int(_sum(totals[arm])[1]) for arm in TREATMENTS}
    if len(set(sizes.values())) > 1:
        notes.append(
            "the arms were not judged on the same number of triples: "
            + ", ".join(f"{arm} {size}" for arm, size in sizes.items())
        )
    removed = {row.triple for row in treated if row.arm == "window" and not row.present} & {
        row.triple for row in treated if row.arm == "all_steps" and not row.present
    }
    if comparisons is not None:
        notes.extend(comparisons.notes)
    cr, cr_both = _closeness(verdicts, comparisons, concepts, removed, notes)
    independent = not verdicts.has_case
    return RemovalScores(
        verdicts=verdicts.source,
        comparisons=comparisons.source if comparisons else None,
        concepts=kept,
        n=len({row.triple for row in treated}) if verdicts.has_seed else max(sizes.values()),
        n_cases=len({row.case for row in treated}) if verdicts.has_case else None,
        rsr={
            arm: _share(totals[arm], verdicts, f"no verdict of arm {arm} to score")
            for arm in TREATMENTS
        },
        rrsr=_ratio(treated, verdicts),
        cr=cr,
        cr_both_removed=cr_both,
        twin_presence=_share(_totals(twin_rows, "none", present=True), verdicts, "")
        if twin_rows
        else None,
        reverse_activation=reverse,
        conditioned_on_twin=conditioned,
        independence_assumed=independent,
        assumptions=[INDEPENDENT, INDEPENDENT_ARMS] if independent else [],
        notes=notes,
    )


def _kept(rows: Iterable[Verdict], concepts: ConceptList) -> Kept:
    by_arm: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.concept not in concepts.concepts:
            by_arm[row.arm][row.concept] += row.count
    dropped = max((counts.total() for counts in by_arm.values()), default=0)
    most: Counter[str] = Counter()
    for counts in by_arm.values():
        most |= counts
    near = {concept: most[concept] for concept in concepts.near_misses(most)}
    return Kept(
        name=concepts.name,
        n_listed=len(concepts.concepts),
        n_dropped=dropped,
        near_misses=dict(sorted(near.items(), key=lambda item: (-item[1], item[0]))),
    )


def _totals(rows: Iterable[Verdict], arm: str, *, present: bool = False) -> Totals:
    """Verdicts of `arm` that say absent (or `present`), and all its verdicts, by case."""
    sums: dict[str | None, tuple[float, float]] = {}
    for row in rows:
        if row.arm == arm:
            hits, n = sums.get(row.case, (0, 0))
            sums[row.case] = (hits + row.count * (row.present == present), n + row.count)
    return sums


def _sum(totals: Totals) -> tuple[float, float]:
    return sum(hits for hits, _ in totals.values()), sum(n for _, n in totals.values())


def _share(totals: Totals, verdicts: Verdicts, why_none: str) -> Rate:
    return Rate(**_share_fields(totals, clustered=verdicts.has_case, why_none=why_none))


def _share_fields(totals: Totals, *, clustered: bool, why_none: str) -> dict[str, object]:
    """The fields of a `Rate`: hits over trials with Wilson's interval."""
    hits, n = _sum(totals)
    fields: dict[str, object] = {
        "value": None,
        "ci95": None,
        "n": int(n),
        "n_cases": len(totals) if clustered else None,
        "independence_assumed": not clustered,
    }
    if n == 0:
        return fields | {"unscored": why_none}
    fields["value"] = hits / n
    if not clustered:
        low, high = wilson(np.array(hits / n), np.array(n), quantile=t_quantile(np.inf))
    elif len(totals) == 1:
        return fields | {"note": "one case only: no interval over cases"}
    else:
        columns = _columns(totals)
        _, low, high = share_interval(columns[:, 0], columns[:, 1])
        if hits in (0, n):
            fields["note"] = "all judgements agree: each case counts once in the interval"
    return fields | {"ci95": (float(low), float(high))}


def _columns(*by_case: Totals) -> Array:
    """Hits and trials of each of `by_case` side by side, a row a case in sorted order."""
    cases = sorted({case for totals in by_case for case in totals}, key=str)
    rows = [[x for totals in by_case for x in totals.get(case, (0, 0))] for case in cases]
    return np.array(rows, dtype=np.float64)


def _ratio(rows: list[Verdict], verdicts: Verdicts) -> Rate:
    """The ratio of the arms' rsr, on triples judged in both arms where that is known."""
    note = None
    if verdicts.has_seed:
        arms = [{row.triple for row in rows if row.arm == arm} for arm in TREATMENTS]
        both = arms[0] & arms[1]
        left = len(arms[0] | arms[1]) - len(both)
        if left:
            note = f"triples judged in one arm only, left out: {left}"
        rows = [row for row in rows if row.triple in both]
    window, base = _totals(rows, "window"), _totals(rows, "all_steps")
    (hits, n), (base_hits, base_n) = _sum(window), _sum(base)
    cases = len({*window, *base}) if verdicts.has_case else None
    value: float | None = None
    interval: tuple[float, float] | None = None
    unscored = None
    if not (n and base_n):
        unscored = "no triple was judged in both arms" if verdicts.has_seed else "an arm is missing"
    elif base_hits == 0:
        unscored = "all_steps removed nothing: the denominator is 0"
    else:
        value = (hits / n) / (base_hits / base_n)
        if verdicts.has_case:
            interval, why = cluster_bootstrap(_columns(window, base), _ratio_of_sums)
            why = why.replace("prompt", "case") if why else None
            note = "; ".join(filter(None, (note, why))) or None
        else:
            interval = share_ratio_interval(int(hits), int(n), int(base_hits), int(base_n))
    return Rate(
        value=value,
        ci95=interval,
        n=int(min(n, base_n)),
        n_cases=cases,
        independence_assumed=not verdicts.has_case,
        unscored=unscored,
        note=note,
    )


def _ratio_of_sums(sums: Array) -> Array:
    return np.asarray((sums[..., 0] / sums[..., 1]) / (sums[..., 2] / sums[..., 3]))


def _closeness(
    verdicts: Verdicts,
    comparisons: Comparisons | None,
    concepts: ConceptList | None,
    removed: set[tuple[str | None, str | None, str]],
    notes: list[str],
) -> tuple[Closeness, Closeness]:
    """`cr` over all comparisons, and over the triples that both arms removed."""
    if comparisons is None:
        none = _closer([], "no comparisons were given")
        return none, none
    rows = [row for row in comparisons.rows if row.count]
    if concepts is not None:
        if all(row.concept is None for row in rows):
            notes.append("cr is over all comparisons: they do not name concepts to be filtered")
        else:
            rows = [row for row in rows if row.concept in concepts.concepts]
    cr = _closer(rows, "no comparison to score")
    if not (verdicts.has_seed and comparisons.has_triples):
        why = (
            "cr counts pictures from which nothing was removed; to leave them out, both files "
            "need the columns case, seed and concept"
        )
        return cr, _closer([], why)
    both = [row for row in rows if row.triple in removed]
    return cr, _closer(both, "no comparison of a triple that both arms removed")


def _closer(rows: Iterable[Comparison], why_none: str) -> Closeness:
    worth = {"window": 1.0, "tie": 0.5, "all_steps": 0.0}
    sums: dict[str | None, tuple[float, float]] = {}
    ties = 0
    for row in rows:
        hits, n = sums.get(row.case, (0.0, 0.0))
        sums[row.case] = (hits + worth[row.closer] * row.count, n + row.count)
        ties += row.count * (row.closer == "tie")
    return Closeness(**_share_fields(sums, clustered=True, why_none=why_none), ties=ties)
