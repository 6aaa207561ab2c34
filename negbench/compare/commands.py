"""``negbench compare``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from negbench.errors import ConfigError


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, or folders that hold runs."),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric, may be given many times; default: all that every run has."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Compare every run with this one only."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print the table as LaTeX.")] = False,
) -> None:
    """Compare runs pair by pair: differences, exact tests, and what may be concluded."""
    from negbench.compare import compare_runs, tables
    from negbench.record import find_runs, load_record

    if sum((as_json, latex, as_csv)) > 1:
        raise ConfigError("--json, --latex and --csv exclude one another; give one of them")
    found = compare_runs(
        [load_record(path) for path in find_runs(runs)], metrics=metric, baseline=baseline
    )
    if as_json:
        text = json.dumps(found.model_dump(mode="json"), indent=2, ensure_ascii=False)
        sys.stdout.write(text + "\n")
    elif as_csv:
        typer.echo(tables.as_csv(found), nl=False)
    elif latex:
        typer.echo(tables.as_latex(found))
    else:
        typer.echo(tables.as_text(found))
