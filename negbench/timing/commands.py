"""`negbench timing`: parse, call one public function, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from negbench.progress import progress_bar


def timing(
    benchmark: Annotated[
        str, typer.Option("-b", "--benchmark", help="Timing benchmark or .toml file.")
    ] = "miniature-timing",
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
    replicates: Annotated[int | None, typer.Option(help="Noises a case.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Every model call starts and stops a window; 30 steps.")
    ] = False,
    generator: Annotated[
        str | None,
        typer.Option(help="miniature, org/repo[@revision], a folder, or a .safetensors file."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY=VALUE", help="Of the generator: steps, ..."),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Who says whether the concept is visible.")
    ] = None,
    judge_param: Annotated[
        list[str] | None,
        typer.Option("--judge-param", metavar="KEY=VALUE", help="Parameter of the judge."),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="CSV of your own cases: prompt, concept, category.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of images and traces; default: user cache.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Images drawn together.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure when negative prompts act: attention, start/stop grid, reverse activation."""
    from negbench.generators.base import RunOptions
    from negbench.params import parse_pairs
    from negbench.timing.plan import make_timing_plan
    from negbench.timing.report import as_text
    from negbench.timing.run import compare_schedulers, run_timing

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
    command = "negbench " + " ".join(sys.argv[1:])
    runs = [run_timing(plan, progress=progress_bar, command=command) for plan in plans]
    together = compare_schedulers(runs, plans[0].folder.parent.parent)
    if as_json:
        whole: Any = runs[0] if len(runs) == 1 else {"runs": runs, "files": together}
        sys.stdout.write(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    for run in runs:
        typer.echo(as_text(run))
    if together:
        typer.echo(f"schedulers side by side: {plans[0].folder.parent.parent / together[1]}")
