"""The command line: a command parses, calls one public function, prints.

stdout is data, stderr is talk. What the user can mend is one line on stderr and exit code 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from negbench import __version__
from negbench.ablate.commands import ablate
from negbench.cache.commands import cache_app
from negbench.compare.commands import compare
from negbench.conformance.commands import check_plugin
from negbench.database.commands import build_db, db_app
from negbench.discover.commands import discover
from negbench.errors import NegbenchError, one_line
from negbench.judges.commands import calibrate_judge, label
from negbench.leaderboard.commands import leaderboard_app
from negbench.miniature.commands import miniature, train_miniature
from negbench.options import (
    AsCsv,
    AsJson,
    AsLatex,
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
    MethodParams,
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
from negbench.protocols.commands import score_verdicts
from negbench.remote import sending_all
from negbench.remove.commands import remove
from negbench.report.commands import report
from negbench.score.commands import export, score
from negbench.sweep.commands import sweep
from negbench.timing.commands import timing
from negbench.train.commands import push, suggest, train_negopt

app = typer.Typer(
    name="negbench",
    help="Data sets and benchmarks for negative prompts in text-to-image generation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("build-db")(build_db)
app.command("score-verdicts")(score_verdicts)
app.command("check-plugin")(check_plugin)
app.command("label")(label)
app.command("calibrate-judge")(calibrate_judge)
app.command("sweep")(sweep)
app.command("discover")(discover)
app.command("timing")(timing)
app.command("remove")(remove)
app.command("score")(score)
app.command("export")(export)
app.command("ablate")(ablate)
app.command("compare")(compare)
app.command("report")(report)
app.command("suggest")(suggest)
app.command("push")(push)
app.command("miniature")(miniature)
train_app = typer.Typer(no_args_is_help=True, help="Train models.", rich_markup_mode=None)
app.add_typer(train_app, name="train")
train_app.command("negopt")(train_negopt)
train_app.command("miniature")(train_miniature)
app.add_typer(db_app, name="db")
app.add_typer(cache_app, name="cache")
app.add_typer(leaderboard_app, name="leaderboard")


@app.command()
def evaluate(
    method: Annotated[
        list[str],
        typer.Option(
            "-m", "--method", help="Method; may be given many times; LABEL=NAME labels it."
        ),
    ],
    benchmark: Benchmark = "miniature-quality",
    param: MethodParams = None,
    guidance: Guidance = None,
    guidance_param: GuidanceParams = None,
    scale: Scale = None,
    generator: Generator = None,
    option: GeneratorParams = None,
    metric: Metrics = None,
    prompts: Prompts = None,
    db: Database = None,
    limit: Limit = None,
    replicates: Replicates = None,
    shard: Annotated[
        str | None, typer.Option(metavar="k/N", help="Only the k-th of N parts of the cases.")
    ] = None,
    out: RunsFolder = Path("runs"),
    cache: CacheFolder = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the denoiser first: slow start, then faster.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Draw on a Ray cluster: local, auto, ray://host:port."
        ),
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Generators on the cluster; default: one a GPU.")
    ] = None,
    plugin: Plugins = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    latex: AsLatex = False,
    as_csv: AsCsv = False,
) -> None:
    """Draw a method's images beside their twins without a negative prompt, and score them."""
    from negbench.evaluate import evaluate as run
    from negbench.generators.base import RunOptions
    from negbench.params import parse_pairs
    from negbench.plan import make_plan, parse_shard

    one_form(as_json=as_json, as_csv=as_csv, as_latex=latex)
    load_plugins(plugin)
    resolved = make_plan(
        benchmark=benchmark,
        methods=method,
        method_params=parse_pairs(param or []),
        guidance=guidance,
        guidance_params=parse_pairs(guidance_param or [], option="-g"),
        scale=scale,
        generator=generator,
        generator_params=parse_pairs(option or [], option="-o"),
        metrics=metric,
        prompts=prompts,
        db=db,
        limit=limit,
        replicates=replicates,
        shard=parse_shard(shard) if shard else None,
        out=out,
        cache=cache,
        options=RunOptions(
            device=device,
            batch_size=batch_size,
            compile=compiled,
            ray=ray,
            ray_workers=ray_workers,
        ),
        dry=dry_run,
        progress=progress_bar,
    )
    if dry_run:
        show_forecast(resolved, as_json=as_json)
        return
    from negbench.tables import as_csv_table, as_latex_table, as_text_table, records_json

    records = run(resolved, progress=progress_bar, command=command_line())
    if as_json:
        emit(records_json(records))
    elif latex:
        typer.echo(as_latex_table(records))
    elif as_csv:
        typer.echo(as_csv_table(records), nl=False)
    else:
        typer.echo(as_text_table(records))


KINDS = {
    "methods": "negbench.methods:methods",
    "guidance": "negbench.guidance:rules",
    "generators": "negbench.generators:generators",
    "metrics": "negbench.metrics:metrics",
    "judges": "negbench.judges:judges",
    "sources": "negbench.database.sources:SOURCES",
}


def _registry(kind: str) -> Any:
    from importlib import import_module

    module, _, name = KINDS[kind].partition(":")
    return getattr(import_module(module), name)


@app.command("list")
def list_(
    kind: Annotated[
        str,
        typer.Argument(help="methods, guidance, generators, metrics, judges, sources, benchmarks."),
    ],
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """List what there is of a kind, with a line each."""
    from negbench.errors import UnknownNameError, did_you_mean

    load_plugins(plugin)
    asked = kind
    aliases = {"guidance rules": "guidance", "guidances": "guidance", "rules": "guidance"}
    kind = aliases.get(kind, kind if kind.endswith("s") or kind == "guidance" else kind + "s")
    if kind == "benchmarks":
        from negbench.protocols import benchmark_names, load_benchmark

        rows = []
        for name in benchmark_names():
            bench = load_benchmark(name)
            rows.append({"name": bench.title, "origin": "negbench", "summary": bench.summary})
    elif kind in KINDS:
        rows = [
            {"name": e.name, "origin": e.origin, "summary": e.summary}
            for e in _registry(kind).entries()
        ]
    else:
        raise UnknownNameError(
            f"nothing to list under {asked!r}; {did_you_mean(kind, [*KINDS, 'benchmarks'])}"
        )
    if as_json:
        emit(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        typer.echo(f"{row['name']:<{width}}  {one_line(row['summary'])}")


@app.command()
def show(
    kind: Annotated[
        str, typer.Argument(help="method, guidance, generator, metric, judge or benchmark.")
    ],
    name: Annotated[str, typer.Argument(help="Its name.")],
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Show a part's parameters: type, default, meaning."""
    from negbench.errors import UnknownNameError, did_you_mean
    from negbench.params import describe_config

    load_plugins(plugin)
    plural = kind if kind == "guidance" else kind.removesuffix("s") + "s"
    if plural == "benchmarks":
        from negbench.protocols import load_benchmark

        emit(load_benchmark(name).model_dump(mode="json"))
        return
    if plural not in KINDS:
        raise UnknownNameError(
            f"nothing to show under {kind!r}; {did_you_mean(kind, [*KINDS, 'benchmarks'])}"
        )
    cls = _registry(plural).get(name)
    rows = describe_config(cls.Config) if hasattr(cls, "Config") else []
    text = (cls.__doc__ or "").strip()
    if as_json:
        emit({"name": name, "about": text, "parameters": rows})
        return
    typer.echo(f"{name}: {text}\n")
    if not rows:
        typer.echo("It takes no parameters.")
    for row in rows:
        default = "required" if row["required"] else f"default {row['default']!r}"
        typer.echo(f"  {row['name']} ({row['type']}, {default})  {row['meaning']}")


@app.command()
def prefetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Weights or metrics, for example aesthetic or real-pictures."),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option("-b", "--benchmark", help="All that a benchmark needs.")
    ] = None,
    generator: Annotated[str | None, typer.Option(help="A hub repo, org/name[@revision].")] = None,
    method: Annotated[
        str | None, typer.Option("-m", "--method", help="What a method needs.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="What a judge needs.")] = None,
    param: MethodParams = None,
    as_json: AsJson = False,
) -> None:
    """Fetch weights now, for runs on machines without internet."""
    from negbench.params import parse_pairs
    from negbench.prefetch import prefetch as fetch

    if judge and method:
        raise NegbenchError("--judge and --method exclude one another, -p could mean either")
    params = parse_pairs(param or [])
    rows = []
    for name, path in fetch(
        names or [],
        benchmark=benchmark,
        generator=generator,
        method=method,
        method_params={} if judge else params,
        judge=judge,
        judge_params=params if judge else {},
    ):
        rows.append({"name": name, "path": path})
        if not as_json:
            typer.echo(f"{name}  {path}")
    if as_json:
        emit(rows)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what the user can mend into one line and exit code 2."""
    try:
        yield
    except NegbenchError as error:
        sys.stderr.write(f"negbench: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("\nnegbench: stopped; nothing is lost, the same command goes on\n")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        from negbench.files import storage_error

        place = Path(str(error.filename)) if error.filename else Path()
        sys.stderr.write(f"negbench: {storage_error(error, place, 'use')}\n")
        sys.exit(2)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"negbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Data sets and benchmarks for negative prompts in text-to-image generation."""


def main() -> None:
    """Entry point of the ``negbench`` command."""
    with _told(), sending_all(progress=progress_bar):
        app()
