"""``negbench cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    """Say where the cache is, how large its parts are, and what waits to be sent."""
    from negbench.cache.contents import sizes
    from negbench.errors import NegbenchError
    from negbench.remote import open_remote

    folder = _cache(cache)
    kinds = sizes(folder)
    total = sum(kind.bytes for kind in kinds)
    remote = open_remote(folder)
    about: dict[str, Any] = {}
    if remote is not None:
        about = {"url": remote.url, "waiting": None}
        try:
            about["waiting"] = remote.waiting()
        except NegbenchError as error:
            about["problem"] = str(error)
    if as_json:
        parts = [vars(kind) for kind in kinds]
        emit({"cache": str(folder), "bytes": total, "parts": parts, "remote": about or None})
        return
    typer.echo(f"{folder}: {total / 1e6:,.1f} MB")
    if about:
        said = about.get("problem") or f"{about['waiting']:,} files wait to be sent"
        typer.echo(f"  {about['url']}: {said}")
    for kind in kinds:
        typer.echo(f"  {kind.name:<12} {kind.files:>9,} files {kind.bytes / 1e6:>12,.1f} MB")


@cache_app.command("sync")
def sync(cache: CacheFolder = None, as_json: AsJson = False) -> None:
    """Fetch all that object storage has and send all that it lacks."""
    from negbench.errors import ConfigError
    from negbench.progress import progress_bar
    from negbench.remote import open_remote

    folder = _cache(cache)
    remote = open_remote(folder)
    if remote is None:
        raise ConfigError(
            f"{folder} belongs to no object storage; write --cache s3://bucket/folder"
        )
    done = remote.sync(progress=progress_bar)
    if as_json:
        emit({"cache": str(folder), "url": remote.url, **vars(done)})
        return
    for name in done.damaged:
        typer.echo(f"{remote.url}/{name}: damaged there, left out")
    typer.echo(f"{remote.url}: {done.fetched:,} files fetched, {done.sent:,} sent")


@cache_app.command("verify")
def verify(
    cache: CacheFolder = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Remove what is damaged; it is made again when needed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every picture, feature and score, and name what is damaged.

    Exit code 1 if anything is, and was not dropped. Of a cache in object storage only what lies
    on this machine is looked at; what is dropped is fetched again when needed.
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
    """Remove pictures that none of the runs needs, and what killed runs left behind.

    Of a cache in object storage only what lies on this machine is removed.
    """
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
