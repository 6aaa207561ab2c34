"""Sources to shards of raw records on disk."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.database.records import RECORD_FIELDS, RawRecord, Skip
from negbench.database.sources.base import Source

if TYPE_CHECKING:
    import polars as pl

SHARD_ROWS = 32_768
SHARD_CHARS = 96 * 2**20
"""A shard also ends when its texts reach this many characters (megabyte prompts)."""


@dataclass(frozen=True)
class Gathered:
    """One source after reading: what the manifest says of it."""

    entry: dict[str, Any]
    shards: list[Path]
    rows: int
    skipped: int


def gather(
    source: Source, folder: Path, *, number: int, progress: Callable[[int], None] = lambda n: None
) -> Gathered:
    """Read a whole source into raw shards ``<folder>/raw-<number>-<shard>.parquet``.

    The digest in the entry is over the sorted ids of what was read, so it does not depend on the
    order in which a source yields.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Path] = []
    rows = skipped = 0
    digest = _IdDigest(folder / f"ids-{number}")
    for frame in _frames(source.read()):
        path = folder / f"raw-{number:03d}-{len(shards):05d}.parquet"
        frame.write_parquet(path, compression="zstd", compression_level=1)
        shards.append(path)
        gone = int(frame["skipped"].is_not_null().sum())
        rows += len(frame) - gone
        skipped += gone
        digest.add(frame["id"].to_list())
        progress(len(frame))
    entry = {
        "name": source.name,
        "kind": source.kind,
        "records": rows,
        "skipped": skipped,
        "records_sha256": digest.close(),
        **source.describe(),
    }
    return Gathered(json.loads(json.dumps(entry)), shards, rows, skipped)


class _IdDigest:
    """sha256 over all ids in sorted order, with sorted runs on disk."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._runs: list[Path] = []

    def add(self, ids: list[str]) -> None:
        path = self._stem.with_name(f"{self._stem.name}-{len(self._runs):05d}.txt")
        path.write_text("\n".join(sorted(ids)), encoding="ascii")
        self._runs.append(path)

    def close(self) -> str:
        digest = hashlib.sha256()
        streams = [path.open(encoding="ascii") for path in self._runs]
        try:
            for line in heapq.merge(*[_stripped(stream) for stream in streams]):
                digest.update(line.encode("ascii") + b"\n")
        finally:
            for stream in streams:
                stream.close()
            for path in self._runs:
                path.unlink()
        return digest.hexdigest()


def _stripped(lines: Any) -> Iterator[str]:
    for line in lines:
        if text := line.rstrip("\n"):
            yield text


def _frames(items: Iterator[RawRecord | Skip]) -> Iterator[pl.DataFrame]:
    batch: list[RawRecord | Skip] = []
    size = 0
    for item in items:
        batch.append(item)
        if isinstance(item, RawRecord):
            size += len(item.prompt or "") + len(item.negative or "")
        if len(batch) >= SHARD_ROWS or size >= SHARD_CHARS:
            yield raw_frame(batch)
            batch, size = [], 0
    if batch:
        yield raw_frame(batch)


def raw_frame(items: list[RawRecord | Skip]) -> pl.DataFrame:
    """Raw records and skips as one frame with the columns of `raw_schema`."""
    import polars as pl

    from negbench.database.schema import raw_schema

    columns: dict[str, list[Any]] = {name: [] for name in raw_schema()}
    for item in items:
        columns["id"].append(item.row_id())
        if isinstance(item, RawRecord):
            for name in RECORD_FIELDS:
                columns[name].append(getattr(item, name))
            columns["skipped"].append(None)
        else:
            for name in RECORD_FIELDS:
                columns[name].append(None)
            columns["source"][-1] = item.source
            columns["source_id"][-1] = item.source_id
            columns["skipped"].append(item.reason)
    return pl.DataFrame(columns, schema=raw_schema())
