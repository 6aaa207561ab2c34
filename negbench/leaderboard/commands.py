"""``negbench leaderboard``: add, withdraw, build, check, verify, publish, serve, export."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

leaderboard_app = typer.Typer(
    no_args_is_help=True,
    help="A leaderboard in a folder: add runs, build the page, check every number, publish.",
    rich_markup_mode=None,
)

Board = Annotated[Path, typer.Option("--board", metavar="DIR", help="Folder of the leaderboard.")]
HERE = Path("leaderboard")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE.py", help="Python file that registers a part."),
]


def _emit(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _load_plugins(files: list[Path] | None) -> None:
    from negbench.registry import load_plugin_file

    for file in files or []:
        load_plugin_file(file)


@leaderboard_app.command()
def add(
    run: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or folders of these.")
    ],
    board: Board = HERE,
    paper: Annotated[str | None, typer.Option(metavar="URL", help="https:// of the paper.")] = None,
    code: Annotated[str | None, typer.Option(metavar="URL", help="https:// of the code.")] = None,
    overlap: Annotated[
        str | None, typer.Option(help="What of the benchmark the method has seen in training.")
    ] = None,
    contact: Annotated[str | None, typer.Option(help="Who answers questions.")] = None,
    generator_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Short name of the generator for people.")
    ] = None,
    texts: Annotated[
        bool | None,
        typer.Option(
            "--texts/--no-texts", help="Keep prompts and negatives; default: where they are free."
        ),
    ] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Check whole runs and add each as an entry: one small JSON file and its values."""
    from pydantic import ValidationError

    from negbench.errors import ConfigError
    from negbench.leaderboard.add import add_run
    from negbench.leaderboard.entry import Declared
    from negbench.record import find_runs

    _load_plugins(plugin)
    try:
        declared = Declared(paper=paper, code=code, overlap=overlap, contact=contact)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"--{first['loc'][0]}: {first['msg']}") from error
    rows = []
    for folder in find_runs(run):
        added = add_run(
            folder, board, declared=declared, generator_name=generator_name, texts=texts
        )
        rows.append({"entry": str(added.path), "new": added.new, "plan": added.entry.plan_digest})
        if not as_json:
            typer.echo(f"{'added' if added.new else 'already there'}  {added.path}")
    if as_json:
        _emit(rows)


@leaderboard_app.command()
def withdraw(
    entry: Annotated[str, typer.Argument(help="Path of the entry.")],
    reason: Annotated[str, typer.Option(help="Why; it stays on the page.")],
    board: Board = HERE,
) -> None:
    """Take an entry out, openly: its line and the reason stay."""
    from negbench.leaderboard.add import withdraw as take_out

    typer.echo(f"withdrawn  {take_out(entry, board, reason=reason).entry}")


@leaderboard_app.command()
def build(board: Board = HERE, as_json: AsJson = False) -> None:
    """Make leaderboard.json, CSV, parquet, comparisons, schemas and all pages from the entries."""
    from negbench.leaderboard.build import write
    from negbench.leaderboard.checks import read_board

    changed = write(read_board(board))
    if as_json:
        _emit({"board": str(board), "changed": changed})
        return
    for name in changed:
        typer.echo(f"wrote  {board / name}")
    if not changed:
        typer.echo(f"{board} is up to date")


@leaderboard_app.command()
def check(
    board: Board = HERE,
    against: Annotated[
        Path | None,
        typer.Option(metavar="LOCK", help="An older entries.lock: nothing may be gone since."),
    ] = None,
    built: Annotated[
        bool, typer.Option("--built/--entries-only", help="Hold generated files to a rebuild.")
    ] = True,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Check the folder: paths, digests, lock, and every number from its values. Exit code 1."""
    from negbench.leaderboard.checks import check as check_board

    _load_plugins(plugin)
    found = check_board(board, against=against, built=built)
    if as_json:
        _emit(
            {
                "board": str(board),
                "entries": len(found.entries),
                "problems": found.problems,
                "remarks": found.remarks,
            }
        )
    else:
        for problem in found.problems:
            typer.echo(f"FAIL  {problem}")
        for remark in found.remarks:
            typer.echo(f"note  {remark}")
        state = "hold" if not found.problems else f"{len(found.problems)} problems"
        typer.echo(f"{len(found.entries)} entries: {state}")
    if found.problems:
        raise typer.Exit(1)
