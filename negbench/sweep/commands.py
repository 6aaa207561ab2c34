"""``negbench sweep``: parse, call one public function, print."""

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
    Cases,
    Device,
    DryRun,
    Generator,
    GeneratorParams,
    Guidance,
    GuidanceParams,
    Limit,
    MethodParams,
    Plugins,
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


def sweep(
    over: Annotated[
        str,
        typer.Option(
            metavar="KEY=V1,V2,...",
            help="What to sweep: a parameter of the rule, scale, or p.KEY of the method.",
        ),
    ],
    benchmark: Benchmark = "miniature-removal",
    method: Annotated[str, typer.Option("-m", "--method", help="One method.")] = "concept",
    param: MethodParams = None,
    guidance: Guidance = None,
    guidance_param: GuidanceParams = None,
    at_damage: Annotated[
        float | None,
        typer.Option(help="Damage at which to compare; default: that of plain CFG."),
    ] = None,
    generator: Generator = None,
    option: GeneratorParams = None,
    scale: Scale = None,
    prompts: Cases = None,
    limit: Limit = None,
    replicates: Replicates = None,
    out: RunsFolder = Path("runs"),
    cache: CacheFolder = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    plugin: Plugins = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Sweep a rule's strength: removal against damage, and removal at matched damage."""
    from negbench.generators.base import RunOptions
    from negbench.params import parse_pairs
    from negbench.sweep.sweep import plan_sweep, run_sweep
    from negbench.sweep.table import as_csv as csv_of
    from negbench.sweep.table import as_text

    one_form(as_json=as_json, as_csv=as_csv)
    load_plugins(plugin)
    planned = plan_sweep(
        over=over,
        method=method,
        method_params=parse_pairs(param or []),
        guidance=guidance,
        guidance_params=parse_pairs(guidance_param or [], option="-g"),
        at=at_damage,
        benchmark=benchmark,
        scale=scale,
        generator=generator,
        generator_params=parse_pairs(option or [], option="-o"),
        prompts=prompts,
        limit=limit,
        replicates=replicates,
        out=out,
        cache=cache,
        options=RunOptions(device=device, batch_size=batch_size),
    )
    if dry_run:
        show_forecast(planned.resolved, as_json=as_json)
        return
    found = run_sweep(planned, progress=progress_bar, command=command_line())
    if as_json:
        emit(found.model_dump(mode="json"))
    elif as_csv:
        typer.echo(csv_of(found), nl=False)
    else:
        typer.echo(as_text(found))
