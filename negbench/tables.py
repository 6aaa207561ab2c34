"""What a run prints: a table for people, LaTeX and CSV for papers, JSON for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from negbench.errors import one_line
from negbench.numbers import arrow, p_value, tex, with_interval
from negbench.protocols import removal_table
from negbench.record import Record
from negbench.types import Estimate, PairedDifference

TWIN = "twin (no negative)"


def records_json(records: Sequence[Record]) -> dict[str, Any]:
    """The record as JSON; several methods give ``{"records": [...]}``."""
    dumped = [
        {**record.model_dump(mode="json"), "folder": str(record.folder)} for record in records
    ]
    return dumped[0] if len(dumped) == 1 else {"records": dumped}


def _verdict(paired: PairedDifference) -> str:
    """better, worse, or cannot tell, by the interval."""
    if paired.ci95 is None or paired.higher_is_better is None:
        return ""
    low, high = paired.ci95
    if low <= 0 <= high:
        return "cannot tell"
    return "better" if (low > 0) == paired.higher_is_better else "worse"


def as_text_table(records: Sequence[Record]) -> str:
    """A table a person can read: a row a method and metric, with intervals."""
    if removal_table.is_removal(records):
        return removal_table.as_text(records)
    from rich import box
    from rich.console import Console
    from rich.table import Table

    buffer = io.StringIO()
    console = Console(file=buffer, width=160, highlight=False, emoji=False, markup=False)
    first = records[0]
    plan = first.plan
    console.print(
        f"{plan.benchmark.name}@{plan.benchmark.version}: {plan.n_cases} prompts, "
        f"{plan.replicates} noises each; every image beside its twin without a negative prompt"
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    table.add_column("method", no_wrap=True)
    table.add_column("value [95 % interval]", justify="right", no_wrap=True)
    table.add_column("minus twin [95 % interval]", justify="right", no_wrap=True)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for metric in dict.fromkeys(e.metric for record in records for e in record.estimates):
        _metric_rows(table, records, metric)
    console.print(table)
    for record in records:
        state = "" if record.status == "complete" else f" ({record.status}: "
        if state:
            state += f"{record.n_samples} of {record.n_expected} samples)"
        console.print(f"{one_line(record.label)}: {record.folder}{state}", soft_wrap=True)
        for note in record.notes:
            console.print(f"  note: {one_line(note)}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def _metric_rows(table: Any, records: Sequence[Record], metric: str) -> None:
    twin = _find(records[0].twin_estimates, metric)
    estimates = [(record, _find(record.estimates, metric)) for record in records]
    if all(estimate is None for _, estimate in estimates):
        return
    unit = next(e.unit for _, e in estimates if e is not None)
    name = f"{metric} {arrow(next(e.higher_is_better for _, e in estimates if e is not None))}"
    if unit not in ("1", "score"):
        name += f" ({unit})"
    if twin is not None and metric != "clip_to_negative":
        interval = with_interval(twin.value, twin.ci95, unit)
        table.add_row(name, TWIN, interval, "", "", str(twin.n_scored), "")
        name = ""
    for record, estimate in estimates:
        if estimate is None:
            continue
        paired = next((p for p in record.paired if p.metric == metric), None)
        unscored = f" (+{estimate.n_unscored} unscored)" if estimate.n_unscored else ""
        table.add_row(
            name,
            one_line(record.label, limit=40),
            with_interval(estimate.value, estimate.ci95, unit),
            with_interval(paired.delta, paired.ci95, unit) if paired else "",
            p_value(paired.p) if paired else "",
            f"{estimate.n_scored}{unscored}",
            _verdict(paired) if paired else "",
        )
        name = ""
    table.add_section()


def _find(estimates: Sequence[Estimate], metric: str) -> Estimate | None:
    return next((estimate for estimate in estimates if estimate.metric == metric), None)


COLUMNS = (
    "benchmark", "method", "metric", "unit", "higher_is_better", "value", "ci_low", "ci_high",
    "n_scored", "n_unscored", "delta", "delta_low", "delta_high", "p", "n_pairs", "plan_digest",
)  # fmt: skip


def _flat_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    rows = []
    for record in records:
        title = f"{record.plan.benchmark.name}@{record.plan.benchmark.version}"
        paired = {item.metric: item for item in record.paired}
        for estimate in record.estimates:
            row: dict[str, Any] = dict.fromkeys(COLUMNS)
            low, high = estimate.ci95 or (None, None)
            row |= {
                "benchmark": title,
                "method": record.label,
                "metric": estimate.metric,
                "unit": estimate.unit,
                "higher_is_better": estimate.higher_is_better,
                "value": estimate.value,
                "ci_low": low,
                "ci_high": high,
                "n_scored": estimate.n_scored,
                "n_unscored": estimate.n_unscored,
                "plan_digest": record.plan_digest,
            }
            difference = paired.get(estimate.metric)
            if difference is not None:
                low, high = difference.ci95 or (None, None)
                row |= {
                    "delta": difference.delta,
                    "delta_low": low,
                    "delta_high": high,
                    "p": difference.p,
                    "n_pairs": difference.n,
                }
            rows.append(row)
    return rows


def as_csv_table(records: Sequence[Record]) -> str:
    """One line a method and metric, every number in full."""
    if removal_table.is_removal(records):
        return removal_table.as_csv(records)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat_rows(records))
    return buffer.getvalue()


def as_latex_table(records: Sequence[Record]) -> str:
    """A booktabs table: a row a method, a column a metric, intervals beside the values."""
    if removal_table.is_removal(records):
        return removal_table.as_latex(records)
    metrics = [estimate.metric for estimate in records[0].estimates]
    directions = {
        estimate.metric: {True: r"$\uparrow$", False: r"$\downarrow$", None: ""}[
            estimate.higher_is_better
        ]
        for estimate in records[0].estimates
    }
    lines = [
        r"\begin{tabular}{l" + "r" * len(metrics) + "}",
        r"\toprule",
        " & ".join(["method", *(f"{tex(m)} {directions[m]}".strip() for m in metrics)]) + r" \\",
        r"\midrule",
    ]
    rows = [(TWIN, records[0].twin_estimates), *((r.label, r.estimates) for r in records)]
    for label, estimates in rows:
        cells = [tex(label)]
        for metric in metrics:
            found = _find(estimates, metric)
            cells.append(
                "" if found is None else with_interval(found.value, found.ci95, found.unit)
            )
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])
