"""``files:PATH``: tables in the formats people keep, told apart by their first bytes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from negbench.database.records import RawRecord, Skip
from negbench.database.sources.base import Options, Source
from negbench.database.sources.columns import Columns
from negbench.database.sources.readers import Broken, Row, read_rows
from negbench.errors import DataError, MissingError

PEEK = 200
"""Rows looked at before a table without the columns is refused."""


class TableSource(Source):
    """CSV, TSV, JSON, JSONL and Parquet, plain, .gz or .zst; one file, a folder or a glob."""

    kind = "files"

    def __init__(self, place: str, options: Options) -> None:
        super().__init__(place, options)
        if not place:
            raise DataError("files: needs a path; write files:prompts.csv, files:DIR or a glob")
        self._columns = Columns(options.mapping)
        self._read: dict[str, str] = {}

    @property
    def name(self) -> str:
        """``files:`` and the last part of the path."""
        return f"files:{Path(self.place).name or Path(self.place).resolve().name}"

    def describe(self) -> dict[str, Any]:
        """Licence, and the sha256 of every file that was read."""
        return {"license": self.options.license, "files": dict(sorted(self._read.items()))}

    def paths(self) -> tuple[Path, list[Path]]:
        """The folder that ids are relative to, and all files in a fixed order.

        Raises:
            MissingError: there is no such file and the pattern matches none.
        """
        place = Path(self.place).expanduser()
        if place.is_dir():
            files = sorted(
                Path(folder) / name
                for folder, _, names in os.walk(place)
                for name in names
                if not name.startswith(".")
            )
            return place, files
        if place.is_file():
            return place.parent, [place]
        found = sorted(Path(p) for p in glob.glob(str(place), recursive=True))
        found = [path for path in found if path.is_file()]
        if not found:
            raise MissingError(f"no file at {self.place}; give a file, a folder or a glob")
        base = Path(os.path.commonpath([str(path.parent) for path in found]))
        return base, found

    def read(self) -> Iterator[RawRecord | Skip]:
        """Records of all files; a file that is no such table is one `Skip`."""
        base, files = self.paths()
        single = len(files) == 1 and not Path(self.place).expanduser().is_dir()
        gave = False
        first_problem: DataError | None = None
        for path in files:
            relative = path.name if single else path.relative_to(base).as_posix()
            relative = relative.encode("utf-8", "replace").decode("utf-8")
            if _leaves(path, base):
                yield Skip(self.name, relative, "a link that leads out of the folder")
                continue
            try:
                for item in self._read_file(path, relative, single=single):
                    gave = gave or isinstance(item, RawRecord)
                    yield item
            except DataError as error:
                first_problem = first_problem or error
                if single:
                    raise
                yield Skip(self.name, relative, str(error).removeprefix(path.name).lstrip(" :"))
        if not gave and first_problem is not None:
            raise first_problem

    def _read_file(self, path: Path, relative: str, *, single: bool) -> Iterator[RawRecord | Skip]:
        rows = read_rows(path)
        head = list(islice(rows, PEEK))
        self._check(path, head)
        counts: dict[str, int] = {}
        for rows_part in (head, rows):
            for row in rows_part:
                if isinstance(row, Broken):
                    where = row.where if single else f"{relative}#{row.where}"
                    yield Skip(self.name, where, row.reason)
                    continue
                values = self._columns.values(row.data)
                key = self._key(row, values)
                count = counts[key] = counts.get(key, 0) + 1
                if count > 1:  # an id that is not unique gets its row number too
                    key = f"{key}@{row.number}"
                source_id = key if single else f"{relative}#{key}"
                yield self._columns.record(
                    row.data,
                    source=self.name,
                    source_id=source_id,
                    licence=self.options.license,
                    values=values,
                )
        self._read[relative] = _sha256(path)

    @staticmethod
    def _key(row: Row, values: dict[str, Any]) -> str:
        value = values.get("id") if row.keyed is None else row.keyed
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
            text = str(value).strip()[:200]
            return text.encode("utf-8", "replace").decode("utf-8")
        return str(row.number)

    def _check(self, path: Path, head: list[Row | Broken]) -> None:
        """Refuse a table whose first rows hold no prompt with a negative."""
        rows = [row for row in head if isinstance(row, Row)]
        if not rows:
            broken = [row for row in head if isinstance(row, Broken)]
            if broken:
                raise DataError(f"{path.name}: {broken[0].reason}")
            raise DataError(f"{path.name} holds no rows")
        for row in rows:
            if self._columns.complete(row.data) or self._columns.nested(row.data):
                return
        for row in rows:
            prompt = self._columns.values(row.data).get("prompt")
            if isinstance(prompt, str) and ("###" in prompt or "\nNegative prompt:" in prompt):
                return
        names: dict[str, None] = {}
        for row in rows:
            names.update(dict.fromkeys(key for key in row.data if isinstance(key, str)))
        listed = ", ".join(list(names)[:20]) + (", …" if len(names) > 20 else "")
        raise DataError(
            f"{path.name} has no prompt and negative prompt columns; found: {listed or 'none'}; "
            "name them with --map prompt=COLUMN,negative=COLUMN"
        )


def _leaves(path: Path, base: Path) -> bool:
    """Whether `path` is, or lies under, a link to a place outside `base`."""
    try:
        return not path.resolve().is_relative_to(base.resolve())
    except (OSError, RuntimeError):
        return True


def _sha256(path: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
