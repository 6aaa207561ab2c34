"""Recorded judgements of removal: what a judge saw, whoever the judge was, read from CSV.

A verdict says whether a judge still sees a concept in one arm's picture of a (case, seed, concept)
triple. A comparison says which of two arms' pictures a judge called closer to the twin, the
picture of the same prompt and noise without a negative prompt. Files may hold one judgement a row,
or counts of equal ones. They come from anywhere, so every cell is checked and a message names file
and line. Concepts are taken letter by letter: nothing is trimmed or folded.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from negbench.errors import DataError, MissingError, did_you_mean, one_line

ARMS = ("all_steps", "window", "none")
"""Negative prompt at every step, at a window of steps only, and no negative prompt (the twin)."""

TREATMENTS = ("all_steps", "window")
CLOSER = ("window", "all_steps", "tie")
MAX_CELL = 100_000
MAX_BYTES = 128_000_000
MAX_COUNT = 1_000_000_000
"""Largest count of a row."""


@dataclass(frozen=True)
class Verdict:
    """`count` judgements that agree: in this arm's pictures the concept is present, or absent.

    `case` and `seed` are None where the file does not have the column.
    """

    concept: str
    arm: str
    present: bool
    count: int
    case: str | None = None
    seed: str | None = None

    @property
    def triple(self) -> tuple[str | None, str | None, str]:
        """The unit that was judged: (case, seed, concept)."""
        return self.case, self.seed, self.concept


@dataclass(frozen=True)
class Comparison:
    """`count` comparisons of a case in which the same arm came out closer to the twin.

    `seed` and `concept` are None where the file does not have the column.
    """

    case: str
    closer: str
    count: int
    seed: str | None = None
    concept: str | None = None

    @property
    def triple(self) -> tuple[str | None, str | None, str | None]:
        """The unit that was compared, as far as the file says."""
        return self.case, self.seed, self.concept


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of a file.

    Attributes:
        source: the file.
        rows: in the file's order.
        has_case: whether the rows say the case, so that cases can be clusters.
        has_seed: whether they say case and seed, so that the arms' verdicts on one triple can be
            matched. Each (case, seed, concept, arm) then occurs once and has count 1 (or 0).
        notes: what a reader should know, for example columns that were not used.
    """

    source: str
    rows: tuple[Verdict, ...]
    has_case: bool = False
    has_seed: bool = False
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of a file; `has_triples` where it has the columns seed and concept too."""

    source: str
    rows: tuple[Comparison, ...]
    has_triples: bool = False
    notes: tuple[str, ...] = field(default=())


def read_verdicts(path: Path) -> Verdicts:
    """Read a CSV file with the columns concept, arm, present, count, and optionally case, seed.

    Rows that say the same are added up, unless the file has case and seed: then a triple has one
    verdict an arm, and a second one is an error.

    Args:
        path: UTF-8 (a byte order mark and any line ends are fine), separated by commas, with a
            header. `arm` is one of `ARMS`; `present` 1 where the judge still sees the concept,
            else 0; `count` a whole number. Other columns are left aside and noted.

    Raises:
        MissingError: no such file.
        DataError: what is wrong, with file and line.
    """
    table = _Table(path, required=("concept", "arm", "present", "count"), known=("case", "seed"))
    has_case = "case" in table.columns
    has_seed = has_case and "seed" in table.columns
    notes = table.notes()
    if "seed" in table.columns and not has_case:
        notes.append("the column seed is not used, since there is no column case")
    seen: dict[tuple[str | None, str | None, str, str], int] = {}
    rows = []
    for row in table:
        verdict = Verdict(
            concept=row.cells["concept"],
            arm=row.choice("arm", ARMS),
            present=row.choice("present", ("0", "1")) == "1",
            count=row.count(),
            case=row.name("case") if has_case else None,
            seed=row.name("seed") if has_seed else None,
        )
        if has_seed and verdict.count:
            key = (*verdict.triple, verdict.arm)
            if verdict.count > 1:
                raise row.error(
                    f"count {verdict.count} for one case, seed, concept and arm, which is one "
                    "judgement; write 1, or leave out the column seed to give counts"
                )
            if key in seen:
                raise row.error(
                    f"a second verdict on case {_shown(verdict.case)}, seed "
                    f"{_shown(verdict.seed)}, concept {_shown(verdict.concept)}, arm "
                    f"{verdict.arm} (the first is in line {seen[key]}); keep one of them"
                )
            seen[key] = row.line
        rows.append(verdict)
    table.refuse_empty(rows)
    return Verdicts(str(path), tuple(rows), has_case, has_seed, tuple(notes))


def read_comparisons(path: Path) -> Comparisons:
    """Read a CSV file with the columns case, closer, count, and optionally seed and concept.

    Args:
        path: as for `read_verdicts`. `closer` is the arm whose picture is closer to the twin, or
            ``tie``. With seed and concept a triple is compared once.

    Raises:
        MissingError: no such file.
        DataError: what is wrong, with file and line.
    """
    table = _Table(path, required=("case", "closer", "count"), known=("seed", "concept"))
    has_triples = {"seed", "concept"} <= set(table.columns)
    seen: dict[tuple[str | None, str | None, str | None], int] = {}
    rows = []
    for row in table:
        comparison = Comparison(
            case=row.name("case"),
            closer=row.choice("closer", CLOSER),
            count=row.count(),
            seed=row.name("seed") if has_triples else None,
            concept=row.cells.get("concept"),
        )
        if has_triples and comparison.count:
            if comparison.count > 1:
                raise row.error(
                    f"count {comparison.count} for one case, seed and concept, which is one "
                    "comparison; write 1, or leave out the column seed to give counts"
                )
            if comparison.triple in seen:
                raise row.error(
                    f"a second comparison of case {_shown(comparison.case)}, seed "
                    f"{_shown(comparison.seed)}, concept {_shown(comparison.concept)} (the first "
                    f"is in line {seen[comparison.triple]}); keep one of them"
                )
            seen[comparison.triple] = row.line
        rows.append(comparison)
    table.refuse_empty(rows)
    return Comparisons(str(path), tuple(rows), has_triples, tuple(table.notes()))


def _shown(text: str | None) -> str:
    return repr(one_line(text or "", limit=60))


@dataclass(frozen=True)
class _Row:
    """One row of a table, with the line it starts in."""

    path: Path
    line: int
    cells: dict[str, str]

    def error(self, what: str) -> DataError:
        return DataError(f"{self.path}, line {self.line}: {what}")

    def choice(self, column: str, allowed: Sequence[str]) -> str:
        value = self.cells[column].strip()
        if value not in allowed:
            listed = ", ".join(allowed[:-1]) + " or " + allowed[-1]
            near = did_you_mean(value, allowed) if len(value) <= 60 else ""
            hint = f"; {near}" if near.startswith("did") else ""
            raise self.error(f"{column} is {_shown(value)}, not {listed}{hint}")
        return value

    def name(self, column: str) -> str:
        value = self.cells[column].strip()
        if not value:
            raise self.error(f"{column} is empty; every row needs one if the file has the column")
        return value

    def count(self) -> int:
        value = self.cells["count"].strip()
        if not re.fullmatch(r"[0-9]{1,30}", value):
            raise self.error(f"count is {_shown(value)}, not a whole number from 0 upwards")
        if int(value) > MAX_COUNT:
            raise self.error(f"count {value} is more than {MAX_COUNT}; is it a count?")
        return int(value)


class _Table:
    """The rows of a CSV file, every one with all columns."""

    def __init__(self, path: Path, *, required: Sequence[str], known: Sequence[str]) -> None:
        self.path = path
        self._reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
        self._known = {*required, *known}
        _, header = next(self._lines(), (0, []))
        self.columns = [name.strip() for name in header]
        if not any(self.columns):
            raise DataError(f"{path} is empty; its first line has to be {','.join(required)}")
        missing = [name for name in required if name not in self.columns]
        if missing:
            raise DataError(f"{path}, line 1: {self._about_missing(missing, required)}")
        for name in self._known:
            if self.columns.count(name) > 1:
                raise DataError(f"{path}, line 1: the column {name} is there twice; keep one")

    def _about_missing(self, missing: Sequence[str], required: Sequence[str]) -> str:
        there = _shown(", ".join(self.columns))
        wanted = ",".join(required)
        if len(self.columns) == 1:
            for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
                if mark in self.columns[0]:
                    return f"the columns are separated by {word}; save the file with commas"
        plural = "s" if len(missing) > 1 else ""
        return f"no column{plural} {', '.join(missing)}; the header is {there}, not {wanted}"

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Rows that are not blank, with the line each starts in."""
        while True:
            line = self._reader.line_num + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(
                    f"{self.path}, line {line}: not valid CSV ({error}); check the quotes"
                ) from error
            if cells:
                yield line, cells

    def __iter__(self) -> Iterator[_Row]:
        for line, cells in self._lines():
            if len(cells) != len(self.columns):
                raise DataError(
                    f"{self.path}, line {line}: {len(cells)} cells where the header has "
                    f"{len(self.columns)}; put a cell that holds a comma in double quotes"
                )
            if max(map(len, cells)) > MAX_CELL:
                raise DataError(
                    f"{self.path}, line {line}: a cell of more than {MAX_CELL} characters; "
                    "check the quotes"
                )
            yield _Row(self.path, line, dict(zip(self.columns, cells, strict=True)))

    def notes(self) -> list[str]:
        unused = [name for name in self.columns if name not in self._known]
        if not unused:
            return []
        return [f"columns of {self.path} that are not used: {one_line(', '.join(unused))}"]

    def refuse_empty(self, rows: Sequence[object]) -> None:
        if not rows:
            raise DataError(f"{self.path} has a header and no row; there is nothing to score")


def _text(path: Path) -> str:
    if path.is_dir():
        raise MissingError(f"{path} is a folder; give a CSV file")
    if not path.exists():
        raise MissingError(f"no file {path}; give the CSV file of the judgements")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"{path} is larger than {MAX_BYTES} bytes; add equal rows up into counts")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error
