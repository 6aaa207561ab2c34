"""``negbench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negbench.options import (
    AsCsv,
    AsJson,
    AsLatex,
    Metrics,
    emit,
    one_form,
)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, or folders that hold runs."),
    ],
    metric: Metrics = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Compare every run with this one only."),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    latex: AsLatex = False,
) -> None:
    """Compare runs pair by pair: differences, exact tests, and what may be concluded."""
    from negbench.compare import tables
    from negbench.compare.compare import compare_runs
    from negbench.record import find_runs, load_record

    one_form(as_json=as_json, as_csv=as_csv, as_latex=latex)
    found = compare_runs(
        [load_record(path) for path in find_runs(runs)], metrics=metric, baseline=baseline
    )
    if as_json:
        emit(found.model_dump(mode="json"))
    elif as_csv:
        typer.echo(tables.as_csv(found), nl=False)
    elif latex:
        typer.echo(tables.as_latex(found))
    else:
        typer.echo(tables.as_text(found))
