"""A calibration as tables for people."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from negbench.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.table import Table

    from negbench.judges.agreement import Agreement, Figure
    from negbench.judges.calibration import Calibration, JudgeReport
    from negbench.judges.corrected import Corrected
    from negbench.judges.ranking import Ranking

COLUMNS = ("balanced_accuracy", "sensitivity", "specificity", "kappa", "ece")


def as_text(found: Calibration) -> str:
    """How far each judge agrees, its rates before and after correction, and the rankings."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(file=buffer, width=150, highlight=False, emoji=False, markup=False)
    console.print(
        f"{one_line(found.labels)}: {found.n_pictures} labelled pictures, {found.n_units} units "
        "with twin and treatment labelled",
        soft_wrap=True,
    )
    _agreements(console, found)
    for report in found.judges:
        _rates(console, report)
    if found.ranking is not None:
        _ranking(console, found.ranking)
    for note in found.notes:
        console.print(f"note: {one_line(note)}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _agreements(console: Console, found: Calibration) -> None:
    table = _table("\nAgreement with people, value [95 % interval by prompt]")
    for name in ("judge", "category", "n", "unscored", *COLUMNS):
        side: JustifyMethod = "left" if name in _LEFT else "right"
        table.add_column(name.replace("_", " "), justify=side, no_wrap=True)
    for report in found.judges:
        rows = [("all", report.agreement), *report.by_category.items()]
        for category, row in rows:
            table.add_row(
                one_line(report.label, limit=24),
                one_line(category, limit=20),
                str(row.n),
                str(row.n_unscored),
                *(_figure(getattr(row, name)) for name in COLUMNS),
            )
    console.print(table)
    for report in found.judges:
        for text in sorted(_remarks(report.agreement)):
            console.print(f"note: {report.label}: {text}", soft_wrap=True)


_LEFT = ("judge", "category")


def _remarks(row: Agreement) -> set[str]:
    figures = [(name, getattr(row, name)) for name in COLUMNS]
    return {f"{name.replace('_', ' ')}: {f.note}" for name, f in figures if f.note}


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return "unscored"
    if figure.ci95 is None:
        return f"{figure.value:.2f}"
    return f"{figure.value:.2f} [{figure.ci95[0]:.2f}, {figure.ci95[1]:.2f}]"


def _rates(console: Console, report: JudgeReport) -> None:
    table = _table(f"\nRates under judge {one_line(report.label, limit=40)}, in percent")
    for name in ("run", "rate", "judge alone", "people alone", "corrected [95 %]", "labelled", "n"):
        side: JustifyMethod = "left" if name in ("run", "rate") else "right"
        table.add_column(name, justify=side, no_wrap=True)
    remarks: dict[str, list[str]] = {}
    for run in report.runs:
        name = one_line(f"{run.label} {run.run}", limit=36)
        for rate, value in run.rates.items():
            table.add_row(
                name,
                rate,
                _percent(value.judge),
                _percent(value.people),
                _corrected(value),
                str(value.n_labelled),
                str(value.n),
            )
            name = ""
            if value.note:
                remarks.setdefault(value.note, []).append(rate)
    console.print(table)
    for note, rates in remarks.items():
        console.print(f"note: {', '.join(dict.fromkeys(rates))}: {note}", soft_wrap=True)
    if report.cost:
        spent = ", ".join(f"{name} {value:g}" for name, value in report.cost.items())
        console.print(f"asking {report.label} took: {spent}", soft_wrap=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _corrected(rate: Corrected) -> str:
    if rate.value is None:
        return "unscored"
    if rate.ci95 is None:
        return f"{100 * rate.value:.1f}"
    return f"{100 * rate.value:.1f} [{100 * rate.ci95[0]:.1f}, {100 * rate.ci95[1]:.1f}]"


def _ranking(console: Console, ranking: Ranking) -> None:
    table = _table("\nRuns by rsr of the treatment, uncorrected, in percent (place)")
    table.add_column("run")
    for judge in ranking.rsr:
        table.add_column(one_line(judge, limit=20), justify="right")
    for at, run in enumerate(ranking.runs):
        cells = []
        for judge, values in ranking.rsr.items():
            order = ranking.order[judge]
            place = f" ({order.index(run) + 1})" if run in order else ""
            cells.append(f"{_percent(values[at])}{place}")
        table.add_row(one_line(run, limit=40), *cells)
    console.print(table)
    for pair in ranking.agreed:
        tau = pair.note if pair.tau is None else f"Kendall's tau {pair.tau:.2f}"
        ends = "" if pair.ci95 is None else f" [{pair.ci95[0]:.2f}, {pair.ci95[1]:.2f}]"
        console.print(
            f"{pair.judges[0]} and {pair.judges[1]}: {tau}{ends}; the same order in "
            f"{pair.same_order:.0%} of resamples of prompts",
            soft_wrap=True,
        )
