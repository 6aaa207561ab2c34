"""``miniature``: the pairs of the miniature's simulated users, with the splits they ship with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from negbench.database.records import RawRecord, Skip
from negbench.database.sources.base import Options, Source
from negbench.errors import ConfigError, MissingError

SPLITS = ("train", "validation", "test")


class MiniatureSource(Source):
    """The made-up data base that comes with negbench."""

    kind = "miniature"

    def __init__(self, place: str, options: Options) -> None:
        super().__init__(place, options)
        if place:
            raise ConfigError(f"source miniature takes no place, got {place!r}")
        self._ids: dict[str, list[str]] = {split: [] for split in SPLITS}

    @property
    def name(self) -> str:
        """``miniature``."""
        return "miniature"

    def read(self) -> Iterator[RawRecord | Skip]:
        """All pairs of the three shipped files.

        Raises:
            MissingError: the package's data files are not there.
        """
        import polars as pl

        from negbench.miniature import db_dir

        self._ids = {split: [] for split in SPLITS}
        for split in SPLITS:
            path = db_dir() / f"{split}.parquet"
            if not path.is_file():
                raise MissingError(f"{path} is missing; install negbench again")
            frame = pl.read_parquet(path, columns=["id", "prompt", "negative", "likes"])
            for row_id, prompt, negative, likes in frame.iter_rows():
                record = RawRecord(self.name, row_id, prompt, negative, likes=likes)
                self._ids[split].append(record.row_id())
                yield record

    def given_splits(self) -> dict[str, list[str]]:
        """The shipped splits: what the miniature's own models learned from stays in training."""
        return self._ids

    def describe(self) -> dict[str, Any]:
        """Licence of the package; made up by a program."""
        return {"license": "apache-2.0", "synthetic": True}
