"""Verdicts of people in a CSV file: written row by row, read with every cell checked.

    image,concept,present,rater,run,case,replicate,seed,arm

`image` is the sha256 of the picture's pixels; `present` is 1, 0, or empty where the rater was
unsure. The last row of a rater on an image and concept counts. Files from elsewhere may have, in
place of `image`, the columns case, seed and arm; they then need the runs to be found.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from negbench.errors import DataError, MissingError, one_line
from negbench.files import make_folder, storage_error
from negbench.types import canonical_json, sha256_hex

COLUMNS = ("image", "concept", "present", "rater", "run", "case", "replicate", "seed", "arm")
MAX_BYTES = 128_000_000
MAX_CELL = 20_000
_PRESENT = {
    "1": True, "yes": True, "y": True, "true": True,
    "0": False, "no": False, "n": False, "false": False,
    "": None, "u": None, "unsure": None,
}  # fmt: skip
_ARMS = {"none": "twin"}
"""Arms by the name that recorded verdicts give them."""

Pair = tuple[str, str]
"""Digest of an image, and a concept."""


@dataclass(frozen=True)
class Labels:
    """What people said.

    Attributes:
        source: the file.
        by_pair: (image, concept) -> rater -> present; raters who were unsure are left out.
        unsure: pairs on which every rater was unsure.
        unmatched: rows whose picture is in none of the runs.
    """

    source: str
    by_pair: Mapping[Pair, Mapping[str, bool]] = field(default_factory=dict)
    unsure: int = 0
    unmatched: int = 0

    def share(self, image: str, concept: str) -> float | None:
        """Share of raters who saw the concept, None if nobody said."""
        said = self.by_pair.get((image, concept))
        return None if not said else sum(said.values()) / len(said)

    def present(self, image: str, concept: str) -> bool | None:
        """What most raters saw, None if nobody said or if they are split evenly."""
        share = self.share(image, concept)
        return None if share is None or share == 0.5 else share > 0.5

    def digest(self) -> str:
        """sha256 over all verdicts."""
        rows = [
            [image, concept, sorted(said.items())]
            for (image, concept), said in sorted(self.by_pair.items())
        ]
        return sha256_hex(canonical_json(rows))


def read_labels(path: Path, *, places: Mapping[tuple[str, str, str], str] | None = None) -> Labels:
    """Read a file of labels.

    Args:
        path: UTF-8 CSV with a header: concept, present, and image or case, seed and arm; optionally
            rater. Other columns are left aside.
        places: (case, seed, arm) -> image digest, for files without the column image.

    Raises:
        MissingError: no such file.
        DataError: what is wrong, with file and line.
    """
    rows = _rows(path)
    header = rows[0][1]
    by_place = "image" not in header
    wanted = ("concept", "present", *(("case", "seed", "arm") if by_place else ("image",)))
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(
            f"{path}, line 1: no column {', '.join(missing)}; the header has "
            f"{one_line(', '.join(header), limit=120)!r}"
        )
    if by_place and places is None:
        raise DataError(
            f"{path} has no column image, so the runs are needed to find the pictures; give the "
            "run's folder"
        )
    said: dict[Pair, dict[str, bool | None]] = {}
    unmatched = 0
    for line, cells in rows[1:]:
        row = dict(zip(header, cells, strict=True))
        answer = row["present"].strip().casefold()
        if answer not in _PRESENT:
            raise DataError(
                f"{path}, line {line}: present is {one_line(row['present'], limit=40)!r}, not 1, "
                "0 or empty (unsure)"
            )
        if by_place:
            arm = row["arm"].strip()
            place = (row["case"].strip(), row["seed"].strip(), _ARMS.get(arm, arm))
            image = (places or {}).get(place)
            if image == "":
                raise DataError(
                    f"{path}, line {line}: several of the runs have a picture of this case, seed "
                    "and arm; add the column image, or give one run"
                )
        else:
            image = row["image"].strip()
            if not re.fullmatch(r"[0-9a-f]{64}", image):
                raise DataError(f"{path}, line {line}: image is no sha256 of 64 hex digits")
        if image is None:
            unmatched += 1
            continue
        pair = (image, row["concept"])
        said.setdefault(pair, {})[row.get("rater", "").strip()] = _PRESENT[answer]
    sure = {
        pair: {rater: value for rater, value in raters.items() if value is not None}
        for pair, raters in said.items()
    }
    kept = {pair: raters for pair, raters in sure.items() if raters}
    return Labels(str(path), kept, unsure=len(sure) - len(kept), unmatched=unmatched)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Header and rows with the line each starts in, all as long as the header."""
    if not path.is_file():
        raise MissingError(f"no file {path}; give the CSV file of labels (`negbench label` makes)")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} is larger than {MAX_BYTES} bytes; is it a file of labels?")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}; convert it") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: not valid CSV ({error})") from error
        if not cells:
            continue
        if rows and len(cells) != len(rows[0][1]):
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells where the header has {len(rows[0][1])}"
            )
        if max(map(len, cells)) > MAX_CELL:
            raise DataError(f"{path}, line {line}: a cell of more than {MAX_CELL} characters")
        rows.append((line, cells if rows else [cell.strip() for cell in cells]))
    if not rows:
        raise DataError(f"{path} is empty; its first line has to be {','.join(COLUMNS)}")
    return rows


class LabelWriter:
    """Appends rows to a file of labels; each is on the disk before the next.

    A torn last row of an earlier session is taken away.

    Raises:
        DataError: the file is there and is not one that this class wrote.
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.resolve().parent)
        try:
            if path.exists():
                self._mend()
            self._file = path.open("ab")
            if self._file.tell() == 0:
                self._write(COLUMNS)
        except OSError as error:
            raise storage_error(error, path) from error

    def _mend(self) -> None:
        with self.path.open("rb+") as file:
            data = file.read(MAX_BYTES)
            head = ",".join(COLUMNS).encode()
            if data and not data.startswith(head):
                raise DataError(
                    f"{self.path} is there and is no file of labels; give another --out"
                )
            if data and not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)

    def _write(self, cells: Sequence[str]) -> None:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(cells)
        self._file.write(buffer.getvalue().encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())

    def append(self, rows: Iterable[Mapping[str, str]]) -> None:
        """Append rows, each with all `COLUMNS`.

        Raises:
            StorageError: the disk is full, or the file cannot be written.
        """
        try:
            for row in rows:
                self._write([row[name] for name in COLUMNS])
        except OSError as error:
            raise storage_error(error, self.path) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
