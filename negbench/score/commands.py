"""Commands: `negbench score` and `negbench export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

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
    limit: Annotated[int | None, typer.Option(help="Only the first so many pictures.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of images and scores; default: user cache.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
) -> None:
    """Score pictures that you have already, each beside its twin where there is one."""
    from negbench.errors import ConfigError
    from negbench.generators.base import RunOptions
    from negbench.params import parse_pairs
    from negbench.score.score import score_pictures
    from negbench.score.text import as_text, parse_mapping
    from negbench.tables import as_csv_table

    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude one another; give one of them")
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
        command="negbench " + " ".join(sys.argv[1:]),
    )
    if as_json:
        typer.echo(json.dumps(outcome.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
    elif as_csv:
        typer.echo(as_csv_table(outcome.records), nl=False)
    else:
        typer.echo(as_text(outcome))


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    out: Annotated[Path, typer.Option(help="Where to write the pictures.")],
    limit: Annotated[int | None, typer.Option(help="Only the first so many samples.")] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw pairs as one PNG, WebP or JPEG, twin first."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the run's images; default: user cache.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
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
        typer.echo(json.dumps([str(path) for path in written], indent=2, ensure_ascii=False))
    else:
        typer.echo(said)
