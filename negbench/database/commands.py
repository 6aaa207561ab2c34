"""`negbench build-db` and `negbench db ...`: parse, call one public function, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from negbench.errors import ConfigError, RecordError
from negbench.options import (
    AsJson,
    emit,
)

db_app = typer.Typer(
    name="db",
    help="Read sources; check, show and publish data sets of prompts with negative prompts.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Map = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="FIELD=COLUMN", help="Column (or dotted path) of a field."),
]
Terms = Annotated[
    bool, typer.Option("--accept-terms", help="I have read and accept the terms of the API.")
]
Crawls = Annotated[
    Path | None, typer.Option("--crawl-dir", help="Where raw pages of APIs are kept.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Read kept pages only; ask no server.")]
Pages = Annotated[
    int | None, typer.Option("--max-pages", min=1, help="Most pages to ask each API for.")
]
License = Annotated[
    str | None, typer.Option("--license", help="Licence of records that state none.")
]


def _line(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress bar on stderr that is told stages."""
    from tqdm import tqdm

    with tqdm(file=sys.stderr, unit="", dynamic_ncols=True, leave=False, disable=None) as bar:

        def told(stage: str, done: int, total: int | None) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.total = total
            bar.n = done
            bar.refresh()

        yield told


def build_db(
    source: Annotated[
        list[str] | None,
        typer.Option(
            "-s", "--source",
            help="hub:org/name[@revision], files:PATH, images:DIR, api:SPEC or miniature; may be "
            "given many times. Default: miniature.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the data set. [negbench-db]")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set and its card.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with these options and more.")
    ] = None,
    map_: Map = None,
    previous: Annotated[
        Path | None, typer.Option(help="Data set to grow from; its rows keep their splits.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="Evaluation list (evaluation/v1.json) to apply.")
    ] = None,
    new_evaluation: Annotated[
        bool, typer.Option("--new-evaluation", help="Let validation and test grow: a new version.")
    ] = False,
    accept_terms: Terms = False,
    license_: License = None,
    crawl_dir: Crawls = None,
    offline: Offline = False,
    max_pages: Pages = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that clean. [cores]")
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Gather pairs of prompt and negative prompt, clean them, split them, and write a data set."""
    from negbench.database.build import build_db as build
    from negbench.database.config import load_config
    from negbench.database.sources.columns import parse_map

    settings = load_config(
        config,
        {
            "sources": tuple(source or ()),
            "out": out,
            "name": name,
            "mapping": parse_map(map_ or []),
            "previous": previous,
            "evaluation": evaluation,
            "new_evaluation": new_evaluation or None,
            "accept_terms": accept_terms or None,
            "license": license_,
            "crawl_dir": crawl_dir,
            "offline": offline or None,
            "max_pages": max_pages,
        },
    )
    with _bar() as told:
        built = build(settings, workers=workers, progress=told)
    if as_json:
        emit(built.manifest)
    else:
        from negbench.database.show import show_text

        sys.stdout.write(show_text(built.folder, built.manifest))


@db_app.command("read")
def read_source(
    source: Annotated[str, typer.Argument(help="For example files:prompts.csv or images:DIR.")],
    map_: Map = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many records.")] = None,
    accept_terms: Terms = False,
    license_: License = None,
    crawl_dir: Crawls = None,
    offline: Offline = False,
    max_pages: Pages = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl/--text", help="One JSON object a record, or a summary.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Print a source's raw records, before any cleaning, or the reason why there is none."""
    from itertools import islice

    from negbench.database.records import RawRecord
    from negbench.database.sources import Options, open_source
    from negbench.database.sources.columns import parse_map

    options = Options(
        mapping=parse_map(map_ or []),
        accept_terms=accept_terms,
        offline=offline,
        license=license_,
        max_pages=max_pages,
        crawl_dir=crawl_dir or Path("negbench-crawls"),
    )
    items = islice(open_source(source, options).read(), limit)
    if as_json:
        emit([item.as_json() for item in items])
        return
    records = skipped = 0
    for item in items:
        if jsonl:
            _line(item.as_json())
        records += isinstance(item, RawRecord)
        skipped += not isinstance(item, RawRecord)
    sys.stdout.flush()
    out = sys.stderr if jsonl else sys.stdout
    out.write(f"{records} records, {skipped} places that gave none\n")


@db_app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set.")],
    as_json: AsJson = False,
) -> None:
    """Verify a data set against its manifest."""
    from negbench.database.check import check_db

    problems = check_db(folder)
    if as_json:
        emit({"folder": str(folder), "problems": problems})
        if problems:
            raise typer.Exit(2)
        return
    if problems:
        rest = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise RecordError(f"{folder}: {problems[0]}{rest}")
    sys.stdout.write(f"{folder} is whole\n")


@db_app.command("show")
def show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set.")],
    as_json: AsJson = False,
) -> None:
    """Print the figures of a data set."""
    from negbench.database.manifest import read_manifest
    from negbench.database.show import read_stats, show_text

    manifest = read_manifest(folder)
    if as_json:
        emit({"manifest": manifest, "stats": read_stats(folder, manifest)})
    else:
        sys.stdout.write(show_text(folder, manifest))


@db_app.command("push")
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a data set.")],
    repo: Annotated[str, typer.Option(help="org/name on the Hugging Face hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Create a private repository.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a data set; refused where a source's licence or terms forbid it."""
    from negbench.database.push import push_db

    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    url = push_db(folder, repo=repo, private=private)
    if as_json:
        emit({"url": url})
    else:
        sys.stdout.write(f"{url}\n")
