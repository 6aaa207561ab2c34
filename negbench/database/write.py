"""Clean shards and a decision to the files of a data set, sorted by id, byte for byte the same."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.database.clean import reason_key
from negbench.database.funnel import Funnel
from negbench.database.rows import SPLITS, CleanShard, RowTable
from negbench.database.schema import data_schema, excluded_schema
from negbench.database.split import AGAIN, CAPPED, DUPLICATE, EXCLUDED, FROZEN, LEAK, Decision

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

FILE_ROWS = 100_000
STEP_OF_REASON = {
    AGAIN: "duplicates", DUPLICATE: "duplicates", FROZEN: "splits", LEAK: "splits", CAPPED: "cap",
}  # fmt: skip


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet with every setting fixed, so that equal tables are equal files."""
    import pyarrow.parquet as pq

    pq.write_table(
        table, path, row_group_size=20_000, version="2.6", compression="zstd",
        compression_level=6, use_dictionary=True, write_statistics=True, data_page_version="1.0",
    )  # fmt: skip


def write_rows(
    rows: RowTable,
    shards: list[CleanShard],
    decision: Decision,
    out: Path,
    work: Path,
    funnel: Funnel,
) -> dict[str, int]:
    """Write ``data/*.parquet`` and ``excluded.parquet``; count exclusions into `funnel`.

    Returns:
        Path relative to `out` -> rows.
    """  # fmt: skip
    import numpy as np

    order = rows.order
    file_of = np.full(len(rows), -1, np.int64)
    for destination in range(EXCLUDED + 1):
        chosen = order[decision.split[order] == destination]
        file_of[chosen] = np.arange(len(chosen)) // FILE_ROWS
    pieces = work / "pieces"
    shutil.rmtree(pieces, ignore_errors=True)
    pieces.mkdir(parents=True)
    hexes = _hex_ids(rows, decision)
    for number, shard in enumerate(shards):
        start, stop = int(rows.starts[number]), int(rows.starts[number + 1])
        frame = _decided(shard, rows, decision, start, stop, hexes)
        _count(frame, funnel)
        for destination in range(EXCLUDED + 1):
            here = decision.split[start:stop] == destination
            schema = excluded_schema() if destination == EXCLUDED else data_schema()
            for part in np.unique(file_of[start:stop][here]):
                chosen = np.flatnonzero(here & (file_of[start:stop] == part))
                table = frame[chosen].select(schema.names).to_arrow().cast(schema)
                write_piece(table, pieces / f"{destination}-{part:05d}-{number:05d}.arrow")
    (out / "data").mkdir(parents=True, exist_ok=True)
    written: dict[str, int] = {}
    for destination, split in enumerate(SPLITS):
        total = int((decision.split == destination).sum())
        files = max(1, -(-total // FILE_ROWS))
        for part in range(files):
            name = f"data/{split}-{part:05d}-of-{files:05d}.parquet"
            table = _assemble(pieces, destination, part, data_schema())
            write_table(table, out / name)
            written[name] = table.num_rows
    written["excluded.parquet"] = _write_excluded(pieces, out / "excluded.parquet", decision)
    shutil.rmtree(pieces)
    return written


def write_piece(table: pa.Table, path: Path) -> None:
    """A part of a file, before it is sorted into place."""
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _hex_ids(rows: RowTable, decision: Decision) -> dict[int, str]:
    """Ids of rows that others are near to."""
    import numpy as np

    return {int(row): rows.hex_id(int(row)) for row in np.unique(decision.near) if row >= 0}


def _decided(
    shard: CleanShard, rows: RowTable, decision: Decision, start: int, stop: int,
    hexes: dict[int, str],
) -> pl.DataFrame:  # fmt: skip
    """Rows of a shard with cluster, count, step, reason and neighbor."""
    import polars as pl

    frame = pl.read_parquet(shard.rows)
    own = decision.reason[start:stop].tolist()
    reasons = [decision.reasons[r] if r >= 0 else None for r in own]
    steps = [STEP_OF_REASON[r] if r is not None else None for r in reasons]
    clusters = [f"{key:016x}" if key else None for key in decision.cluster[start:stop].tolist()]
    return frame.with_columns(
        pl.Series("cluster", clusters, pl.String),
        pl.Series("same_negative", decision.same_negative[start:stop]),
        pl.coalesce(pl.col("step"), pl.Series("s", steps, pl.String)).alias("step"),
        pl.coalesce(pl.col("reason"), pl.Series("r", reasons, pl.String)).alias("reason"),
        pl.Series(
            "near", [hexes.get(row) for row in decision.near[start:stop].tolist()], pl.String
        ),
        pl.Series("_split", decision.split[start:stop]),
    )


def _count(frame: pl.DataFrame, funnel: Funnel) -> None:
    import polars as pl

    gone = frame.filter(pl.col("_split") == EXCLUDED).group_by("step", "reason").len()
    for step, reason, count in gone.iter_rows():
        funnel.add(step, reason_key(reason), count)
    kept = frame.filter((pl.col("_split") >= 0) & (pl.col("_split") < EXCLUDED))
    for change, count in kept["changes"].explode().drop_nulls().value_counts().iter_rows():
        funnel.changed[change] += count


def _assemble(pieces: Path, destination: int, part: int, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    tables = []
    for path in sorted(pieces.glob(f"{destination}-{part:05d}-*.arrow")):
        with pa.memory_map(str(path)) as source:
            tables.append(pa.ipc.open_file(source).read_all())
    if not tables:
        return schema.empty_table()
    return pa.concat_tables(tables).sort_by("id").combine_chunks()


def _write_excluded(pieces: Path, path: Path, decision: Decision) -> int:
    import pyarrow.parquet as pq

    total = int((decision.split == EXCLUDED).sum())
    schema = excluded_schema()
    with pq.ParquetWriter(path, schema, version="2.6", compression="zstd",
                          compression_level=6) as writer:  # fmt: skip
        for part in range(-(-total // FILE_ROWS)):
            table = _assemble(pieces, EXCLUDED, part, schema)
            keys = [("id", "ascending"), ("step", "ascending"), ("reason", "ascending")]
            writer.write_table(table.sort_by(keys), row_group_size=20_000)
    return total


def file_digest(path: Path) -> dict[str, Any]:
    """sha256 and size of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return {"sha256": digest.hexdigest(), "bytes": path.stat().st_size}
