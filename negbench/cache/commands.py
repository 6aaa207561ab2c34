"""``negbench cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negbench.options import (
    AsJson,
    CacheFolder,
    emit,
)

cache_app = typer.Typer(
    no_args_is_help=True,
    help="The cache of pictures, features and scores: sizes, damage, leftovers.",
    rich_markup_mode=None,
)


def _cache(folder: Path | None) -> Path:
    from negbench.cache.contents import open_cache
    from negbench.store import default_cache

    return open_cache(folder or default_cache())


@cache_app.command("check")
def check(cache: CacheFolder = None, as_json: AsJson = False) -> None:
    """Say where the cache is and how large its parts are."""
    from negbench.cache.contents import sizes

    folder = _cache(cache)
    kinds = sizes(folder)
    total = sum(kind.bytes for kind in kinds)
    if as_json:
        emit({"cache": str(folder), "bytes": total, "parts": [vars(kind) for kind in kinds]})
        return
    typer.echo(f"{folder}: {total / 1e6:,.1f} MB")
    for kind in kinds:
        typer.echo(f"  {kind.name:<12} {kind.files:>9,} files {kind.bytes / 1e6:>12,.1f} MB")


@cache_app.command("verify")
def verify(
    cache: CacheFolder = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Remove what is damaged; it is made again when needed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every picture, feature and score, and name what is damaged.

    Exit code 1 if anything is, and was not dropped.
    """
    from negbench.cache.contents import drop_damage, find_damage
    from negbench.progress import progress_bar

    folder = _cache(cache)
    found = find_damage(folder, progress=progress_bar)
    if drop:
        drop_damage(folder, found)
    if as_json:
        rows = [{"path": str(d.path), "line": d.line, "what": d.what} for d in found]
        emit({"cache": str(folder), "damaged": rows, "dropped": drop})
    else:
        for item in found:
            place = f"{item.path}:{item.line}" if item.line else str(item.path)
            typer.echo(f"{place}: {item.what}")
        done = " and dropped" if drop and found else ""
        typer.echo(f"{folder}: {len(found)} damaged{done}")
    if found and not drop:
        raise typer.Exit(1)


@cache_app.command("gc")
def gc(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Runs whose pictures stay, or folders of them."),
    ],
    cache: CacheFolder = None,
    days: Annotated[
        float, typer.Option(min=0, help="Keep what is younger than so many days.")
    ] = 1.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove pictures that none of the runs needs, and what killed runs left behind."""
    from negbench.cache.contents import drop_garbage, find_garbage
    from negbench.record import find_runs, load_record

    folder = _cache(cache)
    found = find_garbage(folder, [load_record(path) for path in find_runs(runs)], days=days)
    if not dry_run:
        drop_garbage(found)
    if as_json:
        facts = {"cache": str(folder), "pictures": found.images, "bytes": found.bytes}
        emit({**facts, "files": len(found.files), "kept": found.kept, "removed": not dry_run})
        return
    verb = "would go" if dry_run else "removed"
    typer.echo(
        f"{folder}: {found.images:,} pictures ({len(found.files):,} files, "
        f"{found.bytes / 1e6:,.1f} MB) {verb}, {found.kept:,} pictures kept"
    )
