"""The command `negbench ablate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from negbench.progress import progress_bar


def ablate(
    negative: Annotated[
        str, typer.Argument(metavar="NEGATIVE", help='The list, as "worst quality, blurry, ...".')
    ],
    benchmark: Annotated[
        str, typer.Option("-b", "--benchmark", help="Benchmark name or .toml file.")
    ] = "miniature-quality",
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric, may be given many times; default: all that can compare."),
    ] = None,
    guidance: Annotated[
        str | None, typer.Option(help="Rule that carries the negatives; default: plain CFG.")
    ] = None,
    guidance_param: Annotated[
        list[str] | None,
        typer.Option("-g", "--guidance-param", metavar="KEY=VALUE", help="Parameter of the rule."),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    generator: Annotated[
        str | None,
        typer.Option(help="miniature, org/repo[@revision], a folder, or a .safetensors file."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY=VALUE", help="Of the generator."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="CSV, TSV, JSONL or text file of your own prompts.")
    ] = None,
    db: Annotated[str | None, typer.Option(help="Data set in place of the benchmark's.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many cases.")] = None,
    replicates: Annotated[int | None, typer.Option(help="Noises a case.")] = None,
    margin: Annotated[
        float, typer.Option(help="Share of the full list's effect that counts as nothing.")
    ] = 0.2,
    out: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of images and scores; default: user cache.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Images drawn together.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the cost, draw nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
) -> None:
    """Leave out one tag of a negative prompt at a time: which help, do nothing, harm."""
    from negbench.ablate.ablate import ablate as run
    from negbench.ablate.ablate import plan_ablation
    from negbench.ablate.tables import as_csv as csv_table
    from negbench.ablate.tables import as_text
    from negbench.errors import ConfigError
    from negbench.generators.base import RunOptions
    from negbench.params import parse_pairs

    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude one another; give one of them")
    resolved, tags = plan_ablation(
        negative,
        benchmark=benchmark,
        metrics=metric,
        guidance=guidance,
        guidance_params=parse_pairs(guidance_param or [], option="-g"),
        scale=scale,
        generator=generator,
        generator_params=parse_pairs(option or [], option="-o"),
        prompts=prompts,
        db=db,
        limit=limit,
        replicates=replicates,
        out=out,
        cache=cache,
        options=RunOptions(device=device, batch_size=batch_size),
    )
    if dry_run:
        from negbench.forecast import forecast

        outlook = forecast(resolved)
        shown = outlook.model_dump(mode="json") if as_json else outlook.as_text()
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False) if as_json else shown)
        return
    command = "negbench " + " ".join(sys.argv[1:])
    found = run(resolved, tags, margin=margin, progress=progress_bar, command=command)
    if as_json:
        dumped = found.model_dump(mode="json")
        typer.echo(json.dumps(dumped, indent=2, ensure_ascii=False, allow_nan=False))
    elif as_csv:
        typer.echo(csv_table(found), nl=False)
    else:
        typer.echo(as_text(found))
