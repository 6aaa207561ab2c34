"""`negbench timing`: parse, call one public function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negbench.options import (
    AsJson,
    BatchSize,
    Benchmark,
    CacheFolder,
    Cases,
    Device,
    Generator,
    GeneratorParams,
    Judge,
    JudgeParams,
    Plugins,
    Replicates,
    RunsFolder,
    Scale,
    command_line,
    emit,
    load_plugins,
)
from negbench.progress import progress_bar


def timing(
    benchmark: Benchmark = "miniature-timing",
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            help="curves, maps, grid, activation, inducing or momentum; may be given many times. "
            "Default: all.",
        ),
    ] = None,
    scheduler: Annotated[
        list[str] | None,
        typer.Option(
            "--scheduler",
            help="ddim, pndm, dpm++2m ...; may be given many times, each is a run. "
            "Default: the benchmark's.",
        ),
    ] = None,
    cases: Annotated[int | None, typer.Option(help="Cases, balanced over categories. [24]")] = None,
    replicates: Replicates = None,
    full: Annotated[
        bool, typer.Option("--full", help="Every model call starts and stops a window; 30 steps.")
    ] = False,
    generator: Generator = None,
    option: GeneratorParams = None,
    judge: Judge = None,
    judge_param: JudgeParams = None,
    scale: Scale = None,
    prompts: Cases = None,
    out: RunsFolder = Path("runs"),
    cache: CacheFolder = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Measure when negative prompts act: attention, start/stop grid, reverse activation."""
    from negbench.generators.base import RunOptions
    from negbench.params import parse_pairs
    from negbench.timing.plan import make_timing_plan
    from negbench.timing.report import as_text
    from negbench.timing.run import compare_schedulers, run_timing

    load_plugins(plugin)
    schedulers: list[str | None] = [*scheduler] if scheduler else [None]
    plans = [
        make_timing_plan(
            benchmark=benchmark,
            parts=part,
            generator=generator,
            generator_params=parse_pairs(option or [], option="-o"),
            scheduler=name,
            judge=judge,
            judge_params=parse_pairs(judge_param or [], option="--judge-param") or None,
            scale=scale,
            prompts=prompts,
            cases=cases,
            replicates=replicates,
            full=full,
            out=out,
            cache=cache,
            options=RunOptions(device=device, batch_size=batch_size),
        )
        for name in schedulers
    ]
    runs = [run_timing(plan, progress=progress_bar, command=command_line()) for plan in plans]
    together = compare_schedulers(runs, plans[0].folder.parent.parent)
    if as_json:
        emit(runs[0] if len(runs) == 1 else {"runs": runs, "files": together})
        return
    for run in runs:
        typer.echo(as_text(run))
    if together:
        typer.echo(f"schedulers side by side: {plans[0].folder.parent.parent / together[1]}")
