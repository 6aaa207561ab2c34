"""``negbench report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from negbench.errors import ConfigError
from negbench.options import (
    AsJson,
    CacheFolder,
    emit,
)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, or folders that hold runs."),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    cache: CacheFolder = None,
    limit_gallery: Annotated[
        int, typer.Option(metavar="N", help="Samples in the gallery at most; 0 for all.")
    ] = 2000,
    thumbnail: Annotated[
        int, typer.Option(metavar="PIXELS", help="Longest side of the pictures.")
    ] = 256,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Pictures as large as they were drawn.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write one HTML file that shows runs: numbers, plots and every picture beside its twin."""
    from negbench.progress import progress_bar
    from negbench.record import find_runs, load_record
    from negbench.report.extras import find_folders
    from negbench.report.page import make_report, write_report
    from negbench.store import default_cache

    if limit_gallery < 0:
        raise ConfigError(f"--limit-gallery must be 0 or more, got {limit_gallery}")
    if not 16 <= thumbnail <= 4096:
        raise ConfigError(f"--thumbnail must be between 16 and 4096 pixels, got {thumbnail}")
    folders = find_folders(runs)
    of_runs = [path for path in runs if not folders or any(path.rglob("run.json"))]
    made = make_report(
        [load_record(path) for path in find_runs(of_runs)],
        cache=cache or default_cache(),
        folders=folders,
        title=title,
        limit=limit_gallery or None,
        side=None if full_size else thumbnail,
        progress=progress_bar,
    )
    write_report(made, out)
    size = len(made.html.encode("utf-8"))
    if as_json:
        facts = {
            "out": str(out),
            "bytes": size,
            "runs": made.n_runs,
            "samples_shown": made.n_shown,
            "samples": made.n_all,
            "pictures": made.n_pictures,
            "notes": made.notes,
        }
        emit(facts)
        return
    for note in made.notes:
        sys.stderr.write(f"note: {note}\n")
    typer.echo(
        f"{out}: {made.n_runs} runs, {made.n_shown:,} of {made.n_all:,} samples, "
        f"{size / 1e6:.1f} MB"
    )
