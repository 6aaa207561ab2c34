"""Files to rows: formats are told by content; each broken place is reported, none ends the rest."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from negbench.database.sources.columns import Columns
from negbench.errors import DataError

MAX_LINE = 16 * 2**20
"""Longest line or CSV cell in characters; longer ones are reported, not held."""
MAX_JSON = 512 * 2**20
"""Largest JSON document (not JSONL) in bytes; it has to be in memory at once."""
MAX_DEPTH = 200
"""Deepest nesting of a JSON document."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its number from 1, its values, and its key in an object of rows."""

    number: int
    data: dict[str, Any]
    keyed: str | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """A place in a file that could not be read."""

    where: str
    reason: str


def read_rows(path: Path) -> Iterator[Row | Broken]:
    """Rows of a CSV, TSV, JSON, JSONL or Parquet file, plain, gzip or zstd.

    Raises:
        DataError: the file is of no such format.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror or error}") from error
    if head[:4] == b"PAR1":
        yield from _parquet(path)
        return
    if not head:
        raise DataError(f"{path.name} is empty")
    packed = head[:2] == b"\x1f\x8b" or head[:4] == b"\x28\xb5\x2f\xfd"
    with _unpacked(path, head) as raw:
        buffered = io.BufferedReader(_Guard(raw), 2**16)
        start = buffered.peek(2**16)[: 2**16]
        if start[:4] == b"PAR1":
            raise DataError(f"{path.name} is a packed Parquet file; unpack it first")
        encoding = _encoding(start)
        if encoding is None:
            raise DataError(f"{path.name} is not a table: its content is binary")
        text = io.TextIOWrapper(buffered, encoding, errors="surrogateescape", newline="")
        guess = start.decode(encoding, "replace").lstrip("\ufeff \t\r\n")
        yield from _text_rows(path, text, guess, packed=packed)


def _unpacked(path: Path, head: bytes) -> IO[bytes]:
    if head[:2] == b"\x1f\x8b":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if head[:4] == b"\x28\xb5\x2f\xfd":
        return cast("IO[bytes]", _Zstd(path))
    return path.open("rb")


class _Zstd:
    """A zstd file that notices when it ends too early (the library's own reader does not)."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._file = path.open("rb")
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new()
        self._left = b""
        self._fresh = True

    def __enter__(self) -> _Zstd:
        return self

    def __exit__(self, *args: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """At most `size` bytes; EOFError where the file is cut off."""
        while not self._left:
            packed = self._file.read(2**14)
            if not packed:
                if not self._fresh:
                    raise EOFError("zstd frame is cut off")
                return b""
            while packed:
                self._fresh = False
                self._left += self._frame.decompress(packed)
                packed = b""
                if self._frame.eof:
                    packed = self._frame.unused_data
                    self._frame, self._fresh = self._new(), True
        data, self._left = self._left[:size], self._left[size:]
        return data


class _Guard(io.RawIOBase):
    """Hands on a stream until it breaks, then ends it and keeps the reason."""

    def __init__(self, inner: IO[bytes]) -> None:
        self._inner = inner
        self.reason: str | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.reason is not None:
            return 0
        try:
            data = self._inner.read(len(buffer))
        except (EOFError, OSError, zlib.error) as error:
            self.reason = f"packed data is truncated or damaged ({type(error).__name__})"
            return 0
        except Exception as error:
            if type(error).__module__.split(".")[0] != "zstandard":
                raise
            self.reason = "packed data is truncated or damaged (zstd)"
            return 0
        buffer[: len(data)] = data
        return len(data)


def _encoding(start: bytes) -> str | None:
    """The encoding of text that starts like this; None for binary data."""
    if start[:3] == b"\xef\xbb\xbf":
        return "utf-8-sig"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    sample = start[:4096]
    odd = sum(1 for byte in sample if byte < 32 and byte not in (9, 10, 12, 13, 27))
    return None if sample and odd > len(sample) * 0.05 else "utf-8"


def _text_rows(
    path: Path, text: io.TextIOWrapper, guess: str, *, packed: bool
) -> Iterator[Row | Broken]:
    guard: Any = text.buffer.raw  # type: ignore[attr-defined]
    if guess[:1] in ("{", "["):
        first = guess.split("\n", 1)[0].strip()
        named = bool({".jsonl", ".ndjson"} & {suffix.lower() for suffix in path.suffixes})
        if guess[0] == "{" and (named or (_is_object(first) and "\n" in guess.strip())):
            rows = _jsonl(text)
        else:
            rows = _json(path, text, guard)
    else:
        rows = _csv(path, text, guess)
    last = 0
    for row in rows:
        if isinstance(row, Row):
            last = row.number
        yield row
    if guard.reason is not None:
        yield Broken(f"after row {last}", guard.reason)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lines(text: Iterable[str]) -> Iterator[tuple[int, str | None]]:
    """Lines with their numbers; None for one that is longer than `MAX_LINE`."""
    stream: Any = text
    number = 0
    while True:
        line = stream.readline(MAX_LINE)
        if not line:
            return
        number += 1
        if len(line) >= MAX_LINE and not line.endswith("\n"):
            while line and not line.endswith("\n"):
                line = stream.readline(MAX_LINE)
            yield number, None
            continue
        yield number, line


def _jsonl(text: io.TextIOWrapper) -> Iterator[Row | Broken]:
    for number, line in _lines(text):
        if line is None:
            yield Broken(str(number), f"line longer than {MAX_LINE} characters")
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except RecursionError:
            yield Broken(str(number), "JSON nested too deep")
            continue
        except ValueError:
            yield Broken(str(number), "line is not valid JSON")
            continue
        if isinstance(value, dict):
            yield Row(number, value)
        else:
            yield Broken(str(number), "line is not a JSON object")


def _json(path: Path, text: io.TextIOWrapper, guard: Any) -> Iterator[Row | Broken]:
    content = text.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise DataError(f"{path.name} is a JSON document above {MAX_JSON >> 20} MiB; use JSONL")
    if guard.reason is not None:
        raise DataError(f"{path.name}: {guard.reason}")
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise DataError(f"{path.name} is JSON nested too deep") from error
    except ValueError as error:
        raise DataError(f"{path.name} is not valid JSON: {error}") from error
    number = 0
    for key, item in find_items(value):
        number += 1
        if isinstance(item, dict):
            yield Row(number, item, key)
        else:
            yield Broken(key or str(number), "entry is not an object")
    if number == 0:
        keys = ", ".join(list(value)[:20]) if isinstance(value, dict) else "a list of no objects"
        raise DataError(
            f"{path.name} has no prompt and negative prompt columns; found: {keys or 'none'}; "
            "name them with --map prompt=COLUMN,negative=COLUMN"
        )


def find_items(value: Any) -> list[tuple[str | None, Any]]:
    """The rows in a JSON document of unknown shape, each with its key if it has one.

    A list is a table if an entry has a prompt; otherwise tables are looked for inside, so that
    ``{"items": [..]}`` and ``modelVersions[].images[]`` are found. An object whose values are
    objects with prompts (AI Horde's styles) is a table too. Without any prompt, the outermost list
    of objects is taken, for `--map` or for a message that names its columns.
    """
    columns = Columns()
    found: list[tuple[str | None, Any]] = []

    def is_row(item: Any) -> bool:
        return isinstance(item, dict) and "prompt" in columns.values(item)

    def walk(node: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            return
        if isinstance(node, list):
            if any(is_row(item) for item in node) or (node and _meta_only(node)):
                found.extend((None, item) for item in node)
            else:
                for item in node:
                    walk(item, depth + 1)
        elif isinstance(node, dict):
            if is_row(node):
                found.append((None, node))
                return
            values = list(node.values())
            if values and all(isinstance(v, dict) for v in values) and any(map(is_row, values)):
                found.extend((str(k), v) for k, v in node.items())
                return
            for item in values:
                walk(item, depth + 1)

    walk(value, 0)
    if not found:
        if isinstance(value, list):
            return [(None, item) for item in value if isinstance(item, dict)]
        if isinstance(value, dict):
            for item in value.values():
                if isinstance(item, list) and item and all(isinstance(x, dict) for x in item):
                    return [(None, x) for x in item]
            if all(isinstance(item, dict) for item in value.values()):
                return [(str(k), v) for k, v in value.items()]
            return [(None, value)] if value else []
    return found


def _meta_only(items: list[Any]) -> bool:
    """Whether these look like pictures whose metadata is null (they are reported, not lost)."""
    return all(isinstance(item, dict) and "meta" in item and "url" in item for item in items)


def _csv(path: Path, text: io.TextIOWrapper, guess: str) -> Iterator[Row | Broken]:
    csv.field_size_limit(MAX_LINE)
    header = guess.split("\n", 1)[0]
    counts = {sign: header.count(sign) for sign in (",", "\t", ";", "|")}
    delimiter = max(counts, key=lambda sign: counts[sign])
    if counts[delimiter] == 0:
        raise DataError(
            f"{path.name} is not a table: its first line has no comma, tab, semicolon or bar"
        )
    reader = csv.reader(text, delimiter=delimiter)
    try:
        names = [name.strip().lstrip("\ufeff") for name in next(reader)]
    except (StopIteration, csv.Error) as error:
        raise DataError(f"{path.name} has no header line") from error
    number = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield Broken(str(number), f"CSV row cannot be read: {error}")
            continue
        if not cells:
            continue
        number += 1
        if len(cells) != len(names):
            reason = f"ragged row: {len(cells)} cells under {len(names)} columns"
            yield Broken(str(number), reason)
            continue
        yield Row(number, dict(zip(names, cells, strict=True)))


def _parquet(path: Path) -> Iterator[Row | Broken]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is a truncated or damaged Parquet file") from error
    number = 0
    with file:
        for group in range(file.num_row_groups):
            try:
                for batch in file.iter_batches(batch_size=4096, row_groups=[group]):
                    for data in _batch_rows(batch):
                        number += 1
                        if data is None:
                            yield Broken(str(number), "text is not valid UTF-8")
                        else:
                            yield Row(number, data)
            except (pa.ArrowException, OSError) as error:
                reason = f"row group {group} is damaged ({type(error).__name__})"
                yield Broken(f"after row {number}", reason)


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | None]:
    """Rows of an Arrow batch; None for one whose text is not UTF-8."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for index in range(batch.num_rows):
        try:
            yield batch.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError:
            yield None
