"""Comparisons as a table for people, CSV for programs and LaTeX for papers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from negbench.compare.comparison import Comparison, Comparisons
from negbench.errors import one_line
from negbench.numbers import arrow, p_value, signed_interval, tex, with_interval

COLUMNS = (
    "first", "second", "metric", "unit", "higher_is_better", "first_value", "second_value",
    "delta", "ci_low", "ci_high", "p", "p_holm", "n", "n_unscored", "n_prompts", "verdict", "of",
    "detectable", "prompts_needed", "note", "sentence",
)  # fmt: skip


def as_text(found: Comparisons) -> str:
    """A table with a row a comparison, then a sentence each."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    buffer = io.StringIO()
    console = Console(file=buffer, width=240, highlight=False, emoji=False, markup=False)
    console.print(
        f"{found.benchmark}, generator {found.generator}: {len(found.runs)} runs, paired on case "
        f"and noise; p by exchanging runs within prompts, Holm over {found.family} tests",
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, justify in (
        ("metric", "left"), ("A", "left"), ("B", "left"), ("A's", "right"), ("B's", "right"),
        ("A minus B [95 % interval]", "right"), ("p", "right"), ("Holm p", "right"),
        ("n", "right"), ("", "left"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for metric, rows in _by_metric(found.comparisons):
        for number, row in enumerate(rows):
            table.add_row("" if number else _heading(row, metric), *_cells(row))
        table.add_section()
    console.print(table)
    lines = [line.rstrip() for line in buffer.getvalue().rstrip().splitlines()]
    lines.append("")
    for metric, rows in _by_metric(found.comparisons):
        if len(rows) > 1 and all(row.verdict == "same" for row in rows):
            lines.append(f"- all runs score the same on {metric}, image by image.")
        else:
            lines += [f"- {one_line(row.sentence)}" for row in rows]
    lines += [f"note: {one_line(note)}" for note in found.notes]
    return "\n".join(lines)


def _by_metric(rows: Sequence[Comparison]) -> list[tuple[str, list[Comparison]]]:
    groups: dict[str, list[Comparison]] = {}
    for row in rows:
        groups.setdefault(row.metric, []).append(row)
    return list(groups.items())


def _heading(row: Comparison, metric: str) -> str:
    unit = "" if row.unit in ("1", "score") else f" ({row.unit})"
    if row.of == "gain":
        unit += " minus twin's"
    return f"{metric} {arrow(row.higher_is_better)}{unit}".strip()


def _cells(row: Comparison) -> list[str]:
    return [
        one_line(row.first, limit=40),
        one_line(row.second, limit=40),
        with_interval(row.first_value, None, row.unit),
        with_interval(row.second_value, None, row.unit),
        signed_interval(row.delta, row.ci95, row.unit),
        p_value(row.p),
        p_value(row.p_holm),
        f"{row.n}" + (f" (+{row.n_unscored} unscored)" if row.n_unscored else ""),
        row.verdict if row.verdict != "none" else "",
    ]


def as_csv(found: Comparisons) -> str:
    """One line a comparison, every number in full."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for item in found.comparisons:
        row = item.model_dump(mode="json")
        low, high = row.pop("ci95") or (None, None)
        writer.writerow({**row, "ci_low": low, "ci_high": high})
    return buffer.getvalue()


def as_latex(found: Comparisons) -> str:
    """A booktabs table with a row a comparison."""
    lines = [
        r"\begin{tabular}{lllrrr}",
        r"\toprule",
        r"metric & A & B & A $-$ B [95\,\% interval] & $p$ & Holm $p$ \\",
        r"\midrule",
    ]
    for metric, rows in _by_metric(found.comparisons):
        for number, row in enumerate(rows):
            cells = [
                "" if number else _heading(row, metric),
                one_line(row.first),
                one_line(row.second),
                signed_interval(row.delta, row.ci95, row.unit),
                p_value(row.p),
                p_value(row.p_holm),
            ]
            lines.append(" & ".join(tex(cell) for cell in cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])
