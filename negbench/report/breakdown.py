"""The numbers of a report by part of the cases: the protocol's own parts, and tags."""

from __future__ import annotations

from collections.abc import Sequence

from negbench.numbers import signed_interval, with_interval
from negbench.record import Record, Sample
from negbench.report.charts import (
    Bar,
    Matrix,
    direction,
    find_estimate,
    make_bar,
    subtitle,
    unit_of,
    verdict,
)
from negbench.report.gallery import tag_kinds
from negbench.report.scale import Scale
from negbench.report.text import visible
from negbench.types import Estimate, PairedDifference

MAX_TAGS = 40
"""Tags of a kind that are shown, the commonest first."""

_Value = tuple[float | None, tuple[float, float] | None, int, str | None]
_Row = tuple[str, int, list[_Value]]


def breakdowns(
    records: Sequence[Record], labels: Sequence[str], samples: Sequence[Sequence[Sample]]
) -> list[Matrix]:
    """All breakdowns of runs on the same cases; runs of twins alone have none."""
    chosen = [n for n, record in enumerate(records) if record.paired or record.breakdown]
    own = [records[n] for n in chosen]
    names = [labels[n] for n in chosen]
    return [*_of_protocol(own, names), *_by_tag(own, names, [samples[n] for n in chosen])]


def _by_tag(
    records: Sequence[Record], labels: Sequence[str], samples: Sequence[Sequence[Sample]]
) -> list[Matrix]:
    """Paired differences to the twin by tag, for metrics that score single pictures."""
    from negbench.stats import mean_summary

    kinds = tag_kinds(sample for found in samples for sample in found)
    told = {b.by for record in records for b in record.breakdown}
    found = []
    metrics = {
        p.metric: p
        for record in records
        for p in record.paired
        if p.baseline == "twin" and p.higher_is_better is not None and p.ci95 is not None
    }
    for metric, about in metrics.items():
        for kind, tags in kinds.items():
            if kind in told or kind == "related" or len(tags) < 2:
                continue
            rows: list[_Row] = []
            for tag in tags[:MAX_TAGS]:
                summaries = []
                for own in samples:
                    chosen = [s for s in own if tag in s.tags]
                    gaps = [_gap(sample, metric) for sample in chosen]
                    summaries.append(mean_summary(gaps, [s.prompt for s in chosen]))
                if any(s.value is not None for s in summaries):
                    cells = [(s.value, s.ci95, s.n_scored, s.note) for s in summaries]
                    rows.append(
                        (tag.removeprefix(f"{kind}:"), max(s.n_prompts for s in summaries), cells)
                    )
            if rows:
                title = f"{visible(metric, limit=60)} by {visible(kind, limit=40)}"
                found.append(_matrix(title, about, labels, rows, paired=True))
    return found


def _gap(sample: Sample, metric: str) -> float | None:
    one, two = sample.treated.scores.get(metric), sample.twin.scores.get(metric)
    if one is None or two is None or one.value is None or two.value is None:
        return None
    return one.value - two.value


def _of_protocol(records: Sequence[Record], labels: Sequence[str]) -> list[Matrix]:
    """What the protocol itself breaks down: its chief numbers by category."""
    parts = dict.fromkeys((b.by, b.group) for record in records for b in record.breakdown)
    every = [e for record in records for b in record.breakdown for e in b.estimates]
    found = []
    for metric in dict.fromkeys(e.metric for e in every if e.higher_is_better is not None):
        about = next(e for e in every if e.metric == metric)
        for by in dict.fromkeys(by for by, _ in parts):
            groups = [group for part, group in parts if part == by]
            rows = [_protocol_row(records, metric, by, group) for group in groups]
            if any(cell[0] is not None for _, _, cells in rows for cell in cells):
                title = f"{visible(metric, limit=60)} by {visible(by, limit=40)}"
                found.append(_matrix(title, about, labels, rows, paired=metric == "net_removal"))
    return found


def _protocol_row(records: Sequence[Record], metric: str, by: str, group: str) -> _Row:
    cells: list[_Value] = []
    cases = 0
    for record in records:
        part = next((b for b in record.breakdown if (b.by, b.group) == (by, group)), None)
        estimate = None if part is None else find_estimate(part.estimates, metric)
        cases = max(cases, 0 if part is None else part.n_cases)
        if estimate is None:
            cells.append((None, None, 0, None))
        else:
            cells.append((estimate.value, estimate.ci95, estimate.n_scored, estimate.note))
    return group, cases, cells


def _matrix(
    title: str,
    about: Estimate | PairedDifference,
    labels: Sequence[str],
    rows: Sequence[tuple[str, int, Sequence[_Value]]],
    *,
    paired: bool,
) -> Matrix:
    values = [cell for _, _, cells in rows for cell in cells]
    scale = Scale.over((end for v, ci95, _, _ in values for end in (v, *(ci95 or ()))), zero=True)
    show = signed_interval if paired else with_interval
    laid = []
    for name, cases, cells in rows:
        bars: list[Bar | None] = []
        for label, (value, ci95, n, note) in zip(labels, cells, strict=True):
            if value is None:
                bars.append(None)
                continue
            bars.append(
                make_bar(
                    label,
                    value,
                    ci95,
                    scale,
                    text=show(value, ci95, about.unit),
                    verdict=verdict(value, ci95, about.higher_is_better) if paired else "",
                    note=note or "",
                    detail=f"n {n:,}",
                )
            )
        laid.append((visible(name, limit=60), cases, bars))
    base = "minus twin" if isinstance(about, PairedDifference) else ""
    return Matrix(
        title=title,
        subtitle=subtitle(base, unit_of(about.unit), direction(about.higher_is_better)),
        columns=labels,
        rows=laid,
        zero=scale.x(0.0),
    )
