"""The scores of recorded judgements as a table for people."""

from __future__ import annotations

import io

from negbench.errors import one_line
from negbench.protocols.verdict_scores import Rate, RemovalScores

NEAR_SHOWN = 5


def as_text(scores: RemovalScores) -> str:
    """A row a metric, in percent with 95 % intervals, and below it what a reader should know."""
    from rich.console import Console
    from rich.table import Table

    buffer = io.StringIO()
    console = Console(file=buffer, width=100, highlight=False, emoji=False, markup=False)
    cases = "" if scores.n_cases is None else f" of {scores.n_cases} cases"
    head = f"{one_line(scores.verdicts)}: {scores.n} triples (case, seed, concept){cases}"
    if scores.concepts is not None:
        head += f", concepts in {one_line(scores.concepts.name)}"
    console.print(head, soft_wrap=True)
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("metric", no_wrap=True)
    table.add_column("arm", no_wrap=True)
    table.add_column("% [95 % interval]", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    remarks: list[str] = []
    for metric, arm, rate in _rows(scores):
        table.add_row(metric, arm, _percent(rate), str(rate.n) if rate.n else "")
        remarks += [f"{metric} {arm}: {text}" for text in (rate.unscored, rate.note) if text]
    console.print(table)
    for line in [*remarks, *_about_concepts(scores), *scores.notes, *scores.assumptions]:
        console.print(f"note: {one_line(line)}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def _rows(scores: RemovalScores) -> list[tuple[str, str, Rate]]:
    rows = [("rsr", arm, rate) for arm, rate in scores.rsr.items()]
    rows.append(("rrsr", "window / all_steps", scores.rrsr))
    if scores.comparisons is not None:
        rows.append(("cr", "window closer", scores.cr))
        rows.append(("cr_both_removed", "window closer", scores.cr_both_removed))
    if scores.twin_presence is not None:
        rows.append(("twin_presence", "none", scores.twin_presence))
    rows += [("reverse_activation", arm, rate) for arm, rate in scores.reverse_activation.items()]
    return rows


def _percent(rate: Rate) -> str:
    if rate.value is None:
        return "unscored"
    text = f"{100 * rate.value:.2f}"
    if rate.ci95 is None:
        return text
    low, high = rate.ci95
    return f"{text} [{100 * low:.2f}, {100 * high:.2f}]"


def _about_concepts(scores: RemovalScores) -> list[str]:
    if scores.concepts is None:
        return []
    lines = [f"{scores.concepts.n_dropped} triples have a concept that is not on the list"]
    near = scores.concepts.near_misses
    if near:
        shown = ", ".join(f"{name!r} {n}" for name, n in list(near.items())[:NEAR_SHOWN])
        rest = f" and {len(near) - NEAR_SHOWN} more" if len(near) > NEAR_SHOWN else ""
        lines.append(
            f"{sum(near.values())} of them only for case, spaces or underscores: {shown}{rest}"
        )
    return lines
