"""Commands: `negbench score` and `negbench export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negbench.options import (
    AsCsv,
    AsJson,
    CacheFolder,
    Device,
    Limit,
    RunsFolder,
    command_line,
    emit,
    one_form,
)
from negbench.progress import progress_bar


def score(
    place: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER_OR_TABLE",
            help="Folder of pictures with metadata, or a table (CSV, TSV, JSON, JSONL, Parquet) "
            "with the columns path, prompt, negative, seed, ...",
        ),
    ],
    metrics_of: Annotated[
        str | None,
        typer.Option(
            metavar="BENCHMARK",
            help="Take this benchmark's metrics; default: those for real pictures whose weights "
            "are at hand, or of the run that the pictures were exported from.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Metric, may be given many times.")
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="FIELD=COLUMN", help="Column of the table that holds a field, or path."
        ),
    ] = None,
    draw_twins: Annotated[
        bool, typer.Option("--draw-twins", help="Draw the twins that are missing.")
    ] = False,
    generator: Annotated[
        str | None,
        typer.Option(help="Draws them: org/repo[@revision], a folder, or a .safetensors file."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--option",
            metavar="KEY=VALUE",
            help="Of the generator, in place of what the metadata say: steps, scheduler, ...",
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="What to call the result; default: the folder's name.")
    ] = None,
    limit: Limit = None,
    out: RunsFolder = Path("runs"),
    cache: CacheFolder = None,
    device: Device = "auto",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Score pictures that you have already, each beside its twin where there is one."""
    from negbench.generators.base import RunOptions
    from negbench.params import parse_pairs
    from negbench.score.score import score_pictures
    from negbench.score.text import as_text, parse_mapping
    from negbench.tables import as_csv_table

    one_form(as_json=as_json, as_csv=as_csv)
    outcome = score_pictures(
        place,
        metrics_of=metrics_of,
        metrics=metric,
        mapping=parse_mapping(map_ or []),
        draw_twins=draw_twins,
        generator=generator,
        generator_params=parse_pairs(option or [], option="-o"),
        label=label,
        limit=limit,
        out=out,
        cache=cache,
        options=RunOptions(device=device),
        progress=progress_bar,
        command=command_line(),
    )
    if as_json:
        emit(outcome.as_json())
    elif as_csv:
        typer.echo(as_csv_table(outcome.records), nl=False)
    else:
        typer.echo(as_text(outcome))


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    out: Annotated[Path, typer.Option(help="Where to write the pictures.")],
    limit: Limit = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw pairs as one PNG, WebP or JPEG, twin first."),
    ] = None,
    cache: CacheFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's pictures as PNG files with metadata that other tools read, and a table."""
    from negbench.score.export import export_run
    from negbench.score.sheet import check_ending, draw_sheet

    if sheet is not None:
        check_ending(sheet)
    written = export_run(run, out, cache=cache, limit=limit, progress=progress_bar)
    said = f"{len(written)} files in {out}, listed in {written[-1]}"
    if sheet is not None:
        draw_sheet(run, sheet, cache=cache, limit=limit)
        written.append(sheet)
        said += f"; pairs in {sheet}"
    if as_json:
        emit([str(path) for path in written])
    else:
        typer.echo(said)
