"""``negbench sweep``: parse, call one public function, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from negbench.progress import progress_bar


def sweep(
    over: Annotated[
        str,
        typer.Option(
            metavar="KEY=V1,V2,...",
            help="What to sweep: a parameter of the rule, scale, or p.KEY of the method.",
        ),
    ],
    benchmark: Annotated[
        str, typer.Option("-b", "--benchmark", help="Removal benchmark or .toml file.")
    ] = "miniature-removal",
    method: Annotated[str, typer.Option("-m", "--method", help="One method.")] = "concept",
    param: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="KEY=VALUE", help="Parameter of the method."),
    ] = None,
    guidance: Annotated[
        str | None, typer.Option(help="Rule that carries the negatives; default: plain CFG.")
    ] = None,
    guidance_param: Annotated[
        list[str] | None,
        typer.Option("-g", "--guidance-param", metavar="KEY=VALUE", help="Parameter of the rule."),
    ] = None,
    at_damage: Annotated[
        float | None,
        typer.Option(help="Damage at which to compare; default: that of plain CFG."),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(help="miniature, org/repo[@revision], a folder, or a .safetensors file."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY=VALUE", help="Of the generator: steps, ..."),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Guidance scale, twins included.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="CSV of your own cases: prompt, concept, category.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many cases.")] = None,
    replicates: Annotated[int | None, typer.Option(help="Noises a case.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of images and scores; default: user cache.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Images drawn together.")] = None,
    plugin: Annotated[
        list[Path] | None,
        typer.Option("--plugin", metavar="FILE.py", help="Python file that registers a part."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, draw nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the curve as CSV.")] = False,
) -> None:
    """Sweep a rule's strength: removal against damage, and removal at matched damage."""
    from negbench.errors import ConfigError
    from negbench.generators.base import RunOptions
    from negbench.params import parse_pairs
    from negbench.registry import load_plugin_file
    from negbench.sweep.sweep import plan_sweep, run_sweep
    from negbench.sweep.table import as_csv as csv_of
    from negbench.sweep.table import as_text

    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude one another; give one of them")
    for file in plugin or []:
        load_plugin_file(file)
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
        from negbench.forecast import forecast

        outlook = forecast(planned.resolved)
        text = json.dumps(outlook.model_dump(mode="json"), indent=2) if as_json else None
        typer.echo(text or outlook.as_text())
        return
    command = "negbench " + " ".join(sys.argv[1:])
    found = run_sweep(planned, progress=progress_bar, command=command)
    if as_json:
        typer.echo(json.dumps(found.model_dump(mode="json"), indent=2, allow_nan=False))
    elif as_csv:
        typer.echo(csv_of(found), nl=False)
    else:
        typer.echo(as_text(found))
