"""A data set that a new one grows from: its rows are carried over and keep their splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negbench.database.check import check_digests
from negbench.database.manifest import read_manifest
from negbench.database.rows import SPLITS, CleanShard, RowTable, write_shard
from negbench.database.write import file_digest
from negbench.errors import RecordError


@dataclass(frozen=True)
class Previous:
    """An earlier data set and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def evaluation_version(self) -> int:
        """Version of its evaluation lists."""
        return int(self.manifest["evaluation"]["version"])

    def evaluation_files(self) -> list[Path]:
        """Its evaluation lists, all versions."""
        return sorted((self.folder / "evaluation").glob("v*.json"))

    def summary(self) -> dict[str, Any]:
        """What a new manifest says of it."""
        return {
            "name": self.manifest["name"],
            "manifest_sha256": file_digest(self.folder / "manifest.json")["sha256"],
            "rows": sum(self.manifest["rows"].values()),
        }


def open_previous(folder: Path) -> Previous:
    """The data set in `folder`, its files checked against its manifest.

    Raises:
        MissingError: there is none.
        RecordError: files are missing or changed.
    """
    manifest = read_manifest(folder)
    problems = check_digests(folder, manifest)
    if problems:
        raise RecordError(f"--previous {folder} is not whole: {problems[0]}")
    return Previous(folder, manifest)


def carry_over(previous: Previous, work: Path) -> list[tuple[CleanShard, int]]:
    """Its rows as clean shards that know their splits."""
    import numpy as np
    import polars as pl

    found: list[tuple[CleanShard, int]] = []
    folder = work / "prior"
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(previous.manifest["files"]):
        if not name.startswith("data/"):
            continue
        split = SPLITS.index(name.removeprefix("data/").split("-", 1)[0])
        frame = pl.read_parquet(previous.folder / name)
        if not len(frame):
            continue
        null = pl.lit(None, pl.String)
        frame = frame.drop("cluster", "same_negative").with_columns(
            null.alias("step"), null.alias("reason")
        )
        prior = np.full(len(frame), split, np.int8)
        path = folder / f"prior-{len(found):05d}.parquet"
        found.append((write_shard(frame, path, prior=prior), len(frame)))
    return found


def apply_list(rows: RowTable, lists: Mapping[str, Iterable[str]], *, firm: bool) -> int:
    """Give rows the splits that lists of ids name; returns how many rows that were.

    Args:
        rows: all rows.
        lists: split -> ids; ids under ``capped`` are kept out; other names are left aside.
        firm: nothing may exclude these rows (a frozen list), or the leak check and the cap may
            (splits that a source came with).

    Raises:
        RecordError: an id is not 32 hex digits.
    """
    import numpy as np

    known: dict[tuple[int, int], int] = {}
    barred = len(SPLITS)
    for index, split in enumerate((*SPLITS, "capped")):
        for text in lists.get(split, ()):
            try:
                known[int(text[:16], 16), int(text[16:32], 16)] = index
            except (TypeError, ValueError) as error:
                raise RecordError(f"evaluation list holds {text!r}, which is no id") from error
    found = 0
    for row in np.flatnonzero(rows.alive & (rows.prior < 0)):
        split_index = known.get((int(rows.ids[row, 0]), int(rows.ids[row, 1])))
        if split_index == barred:
            rows.barred[row] = True
        elif split_index is not None:
            rows.prior[row] = split_index
            rows.firm[row] = firm
            found += 1
    return found
