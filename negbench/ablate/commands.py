"""The command `negbench ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negbench.options import (
    AsCsv,
    AsJson,
    BatchSize,
    Benchmark,
    CacheFolder,
    Database,
    Device,
    DryRun,
    Generator,
    GeneratorParams,
    Guidance,
    GuidanceParams,
    Limit,
    Metrics,
    Plugins,
    Prompts,
    Replicates,
    RunsFolder,
    Scale,
    command_line,
    emit,
    load_plugins,
    one_form,
    show_forecast,
)
from negbench.progress import progress_bar


def ablate(
    negative: Annotated[
        str, typer.Argument(metavar="NEGATIVE", help='The list, as "worst quality, blurry, ...".')
    ],
    benchmark: Benchmark = "miniature-quality",
    metric: Metrics = None,
    guidance: Guidance = None,
    guidance_param: GuidanceParams = None,
    scale: Scale = None,
    generator: Generator = None,
    option: GeneratorParams = None,
    prompts: Prompts = None,
    db: Database = None,
    limit: Limit = None,
    replicates: Replicates = None,
    margin: Annotated[
        float, typer.Option(help="Share of the full list's effect that counts as nothing.")
    ] = 0.2,
    out: RunsFolder = Path("runs"),
    cache: CacheFolder = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    plugin: Plugins = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Leave out one tag of a negative prompt at a time: which help, do nothing, harm."""
    from negbench.ablate.ablate import ablate as run
    from negbench.ablate.ablate import plan_ablation
    from negbench.ablate.tables import as_csv as csv_table
    from negbench.ablate.tables import as_text
    from negbench.generators.base import RunOptions
    from negbench.params import parse_pairs

    one_form(as_json=as_json, as_csv=as_csv)
    load_plugins(plugin)
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
        show_forecast(resolved, as_json=as_json)
        return
    found = run(resolved, tags, margin=margin, progress=progress_bar, command=command_line())
    if as_json:
        emit(found.model_dump(mode="json"))
    elif as_csv:
        typer.echo(csv_table(found), nl=False)
    else:
        typer.echo(as_text(found))
