"""``negbench leaderboard``: add, withdraw, build, check, verify, publish, serve, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from negbench.options import (
    AsJson,
    CacheFolder,
    Database,
    Device,
    GeneratorParams,
    Plugins,
    RunsFolder,
    emit,
    load_plugins,
)

leaderboard_app = typer.Typer(
    no_args_is_help=True,
    help="A leaderboard in a folder: add runs, build the page, check every number, publish.",
    rich_markup_mode=None,
)

Board = Annotated[Path, typer.Option("--board", metavar="DIR", help="Folder of the leaderboard.")]
HERE = Path("leaderboard")


@leaderboard_app.command()
def add(
    run: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or folders of these.")
    ],
    board: Board = HERE,
    paper: Annotated[str | None, typer.Option(metavar="URL", help="https:// of the paper.")] = None,
    code: Annotated[str | None, typer.Option(metavar="URL", help="https:// of the code.")] = None,
    report: Annotated[
        str | None, typer.Option(metavar="URL", help="https:// of the run's report.")
    ] = None,
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

    load_plugins(plugin)
    try:
        declared = Declared(paper=paper, code=code, report=report, overlap=overlap, contact=contact)
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
        emit(rows)


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
        emit({"board": str(board), "changed": changed})
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

    load_plugins(plugin)
    found = check_board(board, against=against, built=built)
    if as_json:
        emit(
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


@leaderboard_app.command()
def verify(
    entry: Annotated[str, typer.Argument(help="Path of the entry.")],
    sample: Annotated[int, typer.Option(metavar="N", help="Samples to draw again.")] = 32,
    seed: Annotated[
        int | None, typer.Option(help="Of the choice of samples; default: fresh randomness.")
    ] = None,
    by: Annotated[
        str, typer.Option(help="bytes, scores, or auto: bytes where CPU and libraries are equal.")
    ] = "auto",
    benchmark: Annotated[
        str | None, typer.Option("-b", "--benchmark", help="A .toml file, if it is not shipped.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="What draws, where it is not the benchmark's own.")
    ] = None,
    option: GeneratorParams = None,
    param: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="KEY=VALUE", help="Of the method, such as a path."),
    ] = None,
    db: Database = None,
    device: Device = "auto",
    board: Board = HERE,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Draw a random sample of an entry again and compare; exit code 1 if it differs."""
    from negbench.errors import ConfigError
    from negbench.generators.base import RunOptions
    from negbench.leaderboard.verify import verify as draw_again
    from negbench.params import parse_pairs
    from negbench.progress import progress_bar

    load_plugins(plugin)
    exact = {"auto": None, "bytes": True, "scores": False}
    if by not in exact:
        raise ConfigError(f"--by {by!r}: write bytes, scores or auto")
    found = draw_again(
        board,
        entry,
        sample=sample,
        seed=seed,
        exact=exact[by],
        benchmark=benchmark,
        generator=generator,
        generator_params=parse_pairs(option or [], option="-o"),
        method_params=parse_pairs(param or []),
        db=db,
        options=RunOptions(device=device),
        progress=progress_bar,
    )
    if as_json:
        emit(found.as_dict())
    else:
        typer.echo(found.as_text())
    if not found.accepted:
        raise typer.Exit(1)


@leaderboard_app.command()
def fill(
    benchmark: Annotated[
        list[str] | None,
        typer.Option("-b", "--benchmark", help="Default: the miniature's quality and removal."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("-m", "--method", help="These methods only.")
    ] = None,
    rule: Annotated[list[str] | None, typer.Option("--guidance", help="These rules only.")] = None,
    no_rules: Annotated[bool, typer.Option("--no-rules", help="Methods under plain CFG.")] = False,
    no_methods: Annotated[bool, typer.Option("--no-methods", help="Rules only.")] = False,
    out: RunsFolder = Path("runs"),
    cache: CacheFolder = None,
    device: Device = "auto",
    board: Board = HERE,
    as_json: AsJson = False,
) -> None:
    """Run every method and every rule on the miniature, add the entries and build the page."""
    from negbench.generators.base import RunOptions
    from negbench.leaderboard.fill import BENCHMARKS
    from negbench.leaderboard.fill import fill as run_all
    from negbench.progress import progress_bar

    found = run_all(
        board,
        out=out,
        cache=cache,
        benchmarks=benchmark or BENCHMARKS,
        methods=[] if no_methods else method,
        rules=[] if no_rules else rule,
        options=RunOptions(device=device),
        progress=progress_bar,
        say=lambda line: typer.echo(line, err=True),
    )
    if as_json:
        emit(
            {
                "entries": [str(item.path) for item in found.added],
                "new": [str(item.path) for item in found.added if item.new],
                "left_out": [{"run": run, "why": why} for run, why in found.left_out],
            }
        )
        return
    for item in found.added:
        typer.echo(f"{'added' if item.new else 'already there'}  {item.path}")
    for run, why in found.left_out:
        typer.echo(f"left out  {run}: {why}")


@leaderboard_app.command()
def publish(
    to: Annotated[
        str,
        typer.Option(metavar="TARGET", help="hf:org/name, hf:spaces/org/name, or a folder."),
    ],
    board: Board = HERE,
    private: Annotated[bool, typer.Option("--private", help="A private repo.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send the leaderboard to the hub or to a folder for any static host; resumable."""
    from negbench.leaderboard.checks import read_board
    from negbench.leaderboard.publish import publish as send
    from negbench.progress import progress_bar

    found = send(read_board(board), to, private=private, progress=progress_bar)
    if as_json:
        emit(vars(found))
        return
    typer.echo(
        f"{found.address}  {len(found.sent)} files sent, {found.kept} were there, "
        f"{len(found.removed)} taken away"
    )


@leaderboard_app.command()
def serve(
    board: Board = HERE,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
) -> None:
    """Show the leaderboard at 127.0.0.1 until Ctrl-C."""
    from negbench.leaderboard.serve import HOST, make_server

    server = make_server(board, port=port)
    typer.echo(f"http://{HOST}:{server.server_port}/  (Ctrl-C ends it)")
    sys.stdout.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        typer.echo("", err=True)
    finally:
        server.server_close()


FORMATS = ("csv", "latex", "bibtex", "hf-eval")


@leaderboard_app.command()
def export(
    form: Annotated[str, typer.Argument(metavar="FORMAT", help="csv, latex, bibtex or hf-eval.")],
    entry: Annotated[
        list[str] | None, typer.Argument(help="Paths of entries; default: all.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Headline, for hf-eval.")] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="org/name", help="Dataset repo, for hf-eval.")
    ] = None,
    board: Board = HERE,
) -> None:
    """Print entries as CSV, LaTeX, BibTeX of what they used, or Hugging Face eval results."""
    from negbench.errors import ConfigError, UnknownNameError, did_you_mean
    from negbench.leaderboard import exports
    from negbench.leaderboard.build import make_table
    from negbench.leaderboard.checks import read_board
    from negbench.leaderboard.citations import bibtex

    if form not in FORMATS:
        raise UnknownNameError(f"unknown format {form!r}; {did_you_mean(form, FORMATS)}")
    found = read_board(board)
    if found.problems:
        raise ConfigError(f"{found.problems[0]}; `negbench leaderboard check` lists all problems")
    table = exports.chosen(make_table(found)[0], entry or [])
    if form == "csv":
        text = exports.as_csv(table)
    elif form == "latex":
        text = exports.as_latex(table) + "\n"
    elif form == "bibtex":
        paths = [row.entry.removeprefix("entries/") for g in table.groups for row in g.rows]
        text = bibtex([found.entries[path].entry for path in paths])
    else:
        if dataset is None:
            raise ConfigError("hf-eval needs --dataset org/name, the benchmark's repo on the hub")
        text = exports.as_hf_eval(table, dataset=dataset, metric=metric)
    sys.stdout.write(text)
