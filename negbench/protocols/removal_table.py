"""Tables of the removal protocol: the headline on top, every arm beside it, then by category."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from negbench.errors import one_line
from negbench.numbers import arrow, p_value, tex, with_interval
from negbench.protocols.removal import HEADLINE
from negbench.requests import ARMS
from negbench.types import Estimate, Guidance

if TYPE_CHECKING:
    from negbench.record import Breakdown, Record

SECTIONS = (
    (HEADLINE,),
    ("rsr", "rsr_all_steps", "rsr_placebo", "rsr_empty", "rrsr"),
    ("cr", "cr_both_removed"),
    ("reverse_activation", "reverse_activation_all_steps", "reverse_activation_placebo"),
    ("base_rate", "absent_rate"),
)
"""Metrics in the order of the table; what else a run has comes after them."""

BY_TREATMENT = ("no_op",)
"""Distances of which only the treated picture's is shown to people."""

ABOUT = {
    HEADLINE: "rsr minus the placebo's, paired: the headline",
    "rsr": "absent, where the twin shows it",
    "rsr_all_steps": "negative at every step, plain CFG",
    "rsr_placebo": "unrelated concept: what goes by chance",
    "rsr_empty": "the rule without a negative",
    "rrsr": "rsr / rsr_all_steps",
    "cr": "closer to the twin than all_steps",
    "cr_both_removed": "the same where both removed it; not ranked",
    "reverse_activation": "present, though the twin lacks it",
    "base_rate": "twins that show it",
    "absent_rate": "treated pictures that lack it",
    "ssim": "whole picture, against the twin",
    "no_op": "pictures equal to their twin",
    "alignment_lost": "the twin's clip_alignment minus the picture's",
}
IN_BREAKDOWN = (HEADLINE, "rsr", "rsr_all_steps", "rsr_placebo", "reverse_activation", "ssim")
IN_LATEX = (HEADLINE, "rsr", "rsr_all_steps", "rsr_placebo", "rrsr", "cr", "reverse_activation")
COLUMNS = (
    "benchmark", "method", "rule", "by", "group", "metric", "unit", "higher_is_better", "value",
    "ci_low", "ci_high", "n_scored", "n_unscored", "n_prompts", "baseline", "p", "p_holm",
    "smallest_detectable", "note", "plan_digest",
)  # fmt: skip


def is_removal(records: Sequence[Record]) -> bool:
    """Whether these are runs of the removal protocol with its headline."""
    return bool(records) and all(
        any(estimate.metric == HEADLINE for estimate in record.estimates) for record in records
    )


def rule_name(guidance: Guidance) -> str:
    """``window(start=5, stop=16)``: a rule with the parameters that differ from its defaults."""
    from negbench.guidance import rules

    defaults: dict[str, Any] = {}
    if guidance.kind in rules:
        fields = rules.get(guidance.kind).Config.model_fields
        defaults = {name: info.get_default() for name, info in fields.items()}
    shown = []
    for name, value in guidance.params.items():
        if name not in defaults or value != defaults[name]:
            short = int(value) if isinstance(value, float) and value.is_integer() else value
            shown.append(f"{name}={short}")
    return f"{guidance.kind}({', '.join(shown)})" if shown else guidance.kind


def labels(records: Sequence[Record]) -> list[str]:
    """A name for each record: its method, and its rule where the records' rules differ."""
    rules = [_rule(record) for record in records]
    if len(set(rules)) == 1:
        return [one_line(record.label, limit=60) for record in records]
    return [
        one_line(f"{r.label}, {rule}", limit=60) for r, rule in zip(records, rules, strict=True)
    ]


def _rule(record: Record) -> str:
    plan = record.plan
    name = rule_name(plan.treatment_guidance)
    if plan.treatment_guidance.scale != plan.guidance.scale:
        name += f" at scale {plan.treatment_guidance.scale:g}"
    return name


def holm_of(records: Sequence[Record]) -> list[float | None]:
    """Holm's adjusted p of the headline over all records of the table."""
    from negbench.stats import holm

    return holm([_headline_p(record) for record in records])


def _headline_p(record: Record) -> float | None:
    return next((pair.p for pair in record.paired if pair.metric == HEADLINE), None)


def as_text(records: Sequence[Record]) -> str:
    """The tables for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    buffer = io.StringIO()
    console = Console(file=buffer, width=170, highlight=False, emoji=False, markup=False)
    plan = records[0].plan
    threshold = plan.benchmark.params.get("threshold", 0.5)
    console.print(
        f"{plan.benchmark.name}@{plan.benchmark.version}: {plan.n_cases} cases, {plan.replicates} "
        f"noises each; a unit is (case, seed, concept); present above {threshold:g}",
        soft_wrap=True,
    )
    if len({_rule(record) for record in records}) == 1:
        console.print(f"rule: {one_line(_rule(records[0]))}", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("metric", "method"):
        table.add_column(name, no_wrap=True)
    for name in ("value [95 % interval]", "p", "Holm", "n", "prompts"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    names, adjusted = labels(records), holm_of(records)
    for metrics in _sections(records):
        for metric in metrics:
            _rows(table, metric, records, names, adjusted)
        table.add_section()
    console.print(table)
    parts = _breakdown(records, names)
    if parts is not None:
        console.print(parts)
    for record, name in zip(records, names, strict=True):
        state = ""
        if record.status != "complete":
            state = f" ({record.status}: {record.n_samples} of {record.n_expected} samples)"
        console.print(f"{name}: {record.folder}{state}", soft_wrap=True)
        for note in _notes(record):
            console.print(f"  note: {one_line(note)}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def _sections(records: Sequence[Record]) -> list[tuple[str, ...]]:
    there = dict.fromkeys(e.metric for record in records for e in record.estimates)
    named = {m for r in records for m in r.metrics if m not in (HEADLINE, "presence")}
    measured = [m for m in there if m in named]
    distances = [(m, *(f"{m}_{arm}" for arm in ARMS)) for m in measured if f"{m}_placebo" in there]
    distances = [section for section in distances if section[0] not in BY_TREATMENT]
    rest = tuple(m for m in (*measured, "alignment_lost") if m not in {d[0] for d in distances})
    ordered = (tuple(m for m in part if m in there) for part in (*SECTIONS, *distances, rest))
    return [section for section in ordered if section]


def _rows(
    table: Any,
    metric: str,
    records: Sequence[Record],
    names: Sequence[str],
    adjusted: Sequence[float | None],
) -> None:
    title = metric
    for record, name, holm in zip(records, names, adjusted, strict=True):
        found = _find(record.estimates, metric)
        if found is None:
            continue
        first = title == metric
        headline = metric == HEADLINE
        unit = f" ({found.unit})" if found.unit not in ("1", "share", "score") else ""
        table.add_row(
            f"{metric} {arrow(found.higher_is_better)}{unit}".strip() if first else "",
            name,
            with_interval(found.value, found.ci95, found.unit),
            p_value(_headline_p(record)) if headline else "",
            p_value(holm) if headline else "",
            f"{found.n_scored}" + (f" (+{found.n_unscored})" if found.n_unscored else ""),
            str(found.n_prompts),
            ABOUT.get(metric, "") if first else "",
        )
        title = ""


def _breakdown(records: Sequence[Record], names: Sequence[str]) -> Any:
    from rich import box
    from rich.table import Table

    if not any(record.breakdown for record in records):
        return None
    shown = [
        m for m in IN_BREAKDOWN if any(_find(b.estimates, m) for r in records for b in r.breakdown)
    ]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("by", no_wrap=True)
    table.add_column("method", no_wrap=True)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("cases", justify="right", no_wrap=True)
    groups = dict.fromkeys((part.by, part.group) for record in records for part in record.breakdown)
    for by, group in groups:
        for record, name in zip(records, names, strict=True):
            part = _part(record, by, group)
            if part is not None:
                cells = [_cell(_find(part.estimates, metric)) for metric in shown]
                table.add_row(f"{by}: {group}", name, *cells, str(part.n_cases))
    return table


def _part(record: Record, by: str, group: str) -> Breakdown | None:
    return next((b for b in record.breakdown if (b.by, b.group) == (by, group)), None)


def _cell(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return ""
    ends = "" if estimate.ci95 is None else " [{:.2f}, {:.2f}]".format(*estimate.ci95)
    return f"{estimate.value:.2f}{ends}"


def _notes(record: Record) -> list[str]:
    notes = list(record.notes)
    headline = _find(record.estimates, HEADLINE)
    smallest = (headline.customary if headline is not None else {}).get("smallest_detectable")
    if smallest is not None and smallest <= 1:
        notes.append(
            "the smallest net_removal that a sample like this finds in 80 % of runs is "
            f"{smallest:.3f}"
        )
    elif smallest is not None:
        notes.append("a sample like this can show no net_removal: it has too few prompts")
    for estimate in record.estimates:
        if estimate.note and (estimate.value is None or estimate.metric == HEADLINE):
            notes.append(f"{estimate.metric}: {estimate.note}")
    return notes


def _find(estimates: Sequence[Estimate], metric: str) -> Estimate | None:
    return next((estimate for estimate in estimates if estimate.metric == metric), None)


def as_csv(records: Sequence[Record]) -> str:
    """One line a method, group and metric, every number in full; the whole has no group."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record, holm in zip(records, holm_of(records), strict=True):
        head = {
            "benchmark": f"{record.plan.benchmark.name}@{record.plan.benchmark.version}",
            "method": record.label,
            "rule": _rule(record),
            "plan_digest": record.plan_digest,
        }
        parts: list[tuple[str, str, Any]] = [("", "", record)]
        parts += [(part.by, part.group, part) for part in record.breakdown]
        for by, group, part in parts:
            pairs = {pair.metric: pair for pair in part.paired if pair.baseline != "twin"}
            for estimate in part.estimates:
                low, high = estimate.ci95 or (None, None)
                headline = estimate.metric == HEADLINE
                pair = pairs.get(estimate.metric) if headline else None
                row = estimate.model_dump(include=set(COLUMNS))
                row |= {"by": by, "group": group, "ci_low": low, "ci_high": high}
                if headline:
                    row["p_holm"] = holm if not by else None
                    row["smallest_detectable"] = estimate.customary.get("smallest_detectable")
                if pair is not None:
                    row |= {"baseline": pair.baseline, "p": pair.p}
                writer.writerow(head | row)
    return buffer.getvalue()


def as_latex(records: Sequence[Record]) -> str:
    """A booktabs table: a row a method and rule, the headline first, the other arms behind it."""
    shown = [m for m in (*IN_LATEX, "ssim") if any(_find(r.estimates, m) for r in records)]
    heads = []
    for metric in shown:
        found = next(e for r in records if (e := _find(r.estimates, metric)) is not None)
        heads.append(tex(f"{metric} {arrow(found.higher_is_better)}".strip()))
    heads.insert(1, r"$p$ (Holm)")
    lines = [
        r"\begin{tabular}{l" + "r" * len(heads) + "}",
        r"\toprule",
        " & ".join(["method", *heads]) + r" \\",
        r"\midrule",
    ]
    for record, name, holm in zip(records, labels(records), holm_of(records), strict=True):
        cells = []
        for metric in shown:
            own = _find(record.estimates, metric)
            cells.append("" if own is None else with_interval(own.value, own.ci95, own.unit))
        cells.insert(1, p_value(holm))
        lines.append(" & ".join([tex(name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])
