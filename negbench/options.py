"""Options that several commands share, and how commands print.

A command parses, calls one public function, prints: stdout is data, stderr is talk.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from negbench.errors import ConfigError
from negbench.remote import cache_folder

if TYPE_CHECKING:
    from negbench.plan import Resolved

Benchmark = Annotated[str, typer.Option("-b", "--benchmark", help="Benchmark name or .toml file.")]
Metrics = Annotated[
    list[str] | None, typer.Option(help="Metric, may be given many times; default: all that fit.")
]
MethodParams = Annotated[
    list[str] | None,
    typer.Option("-p", "--param", metavar="KEY=VALUE", help="Parameter of the method."),
]
Guidance = Annotated[
    str | None, typer.Option(help="Rule that carries the negatives; default: plain CFG.")
]
GuidanceParams = Annotated[
    list[str] | None,
    typer.Option("-g", "--guidance-param", metavar="KEY=VALUE", help="Parameter of the rule."),
]
Scale = Annotated[float | None, typer.Option(help="Guidance scale, twins included.")]
Generator = Annotated[
    str | None,
    typer.Option(help="miniature, org/repo[@revision], a folder, or a .safetensors file."),
]
GeneratorParams = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--option",
        metavar="KEY=VALUE",
        help="Of the generator: steps, scheduler, height, width, dtype, long_text, lora.",
    ),
]
Judge = Annotated[str | None, typer.Option(help="Who looks (`negbench list judges`).")]
JudgeParams = Annotated[
    list[str] | None,
    typer.Option("--judge-param", metavar="KEY=VALUE", help="Parameter of the judge."),
]
Prompts = Annotated[
    Path | None, typer.Option(help="CSV, TSV, JSONL or text file of your own prompts.")
]
Cases = Annotated[
    Path | None, typer.Option(help="CSV of your own cases: prompt, concept, category.")
]
Database = Annotated[str | None, typer.Option(help="Data set in place of the benchmark's.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many.")]
Replicates = Annotated[int | None, typer.Option(help="Noises a prompt.")]
RunsFolder = Annotated[Path, typer.Option(help="Folder of runs.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        parser=cache_folder,
        metavar="FOLDER|URL",
        help="Images and scores, s3://bucket/folder too; default: user cache.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
BatchSize = Annotated[int | None, typer.Option(help="Images drawn together.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE.py", help="Python file that registers a part."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan, draw nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")]
AsLatex = Annotated[bool, typer.Option("--latex", help="Print the table as LaTeX.")]


def emit(value: Any) -> None:
    """Write a value to stdout as JSON; NaN and infinity are a mistake of the caller."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text.encode("utf-8", "replace").decode() + "\n")
    sys.stdout.flush()


def one_form(*, as_json: bool, as_csv: bool = False, as_latex: bool = False) -> None:
    """Refuse two forms of output at once.

    Raises:
        ConfigError: more than one is asked for.
    """
    asked = {"--json": as_json, "--csv": as_csv, "--latex": as_latex}
    given = [name for name, on in asked.items() if on]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude one another; give one of them")


def load_plugins(files: Sequence[Path] | None) -> None:
    """Load the files given with --plugin; each registers its parts."""
    from negbench.registry import load_plugin_file

    for file in files or []:
        load_plugin_file(file)


def command_line() -> str:
    """What the user typed, for records."""
    return "negbench " + " ".join(sys.argv[1:])


def show_forecast(resolved: Resolved, *, as_json: bool) -> None:
    """Print what a plan will draw and cost."""
    from negbench.forecast import forecast

    outlook = forecast(resolved)
    if as_json:
        emit(outlook.model_dump(mode="json"))
    else:
        typer.echo(outlook.as_text())
