"""Sizes, damage and leftovers of a cache (`negbench.store` says how it is laid out)."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from negbench.errors import ConfigError, NegbenchError
from negbench.files import read_json, storage_error, write_atomic
from negbench.progress import Progress, silent
from negbench.record import Record
from negbench.store import ImageStore, pixel_digest
from negbench.types import ImageRequest, Score

DAY = 86_400.0


@dataclass(frozen=True)
class Kind:
    """One folder of the cache: how many files, how many bytes."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Damage:
    """Something that is not what it should be.

    Attributes:
        path: the file.
        what: what is wrong, in words.
        line: number of the line, for files of lines.
    """

    path: Path
    what: str
    line: int | None = None


@dataclass(frozen=True)
class Garbage:
    """Pictures that no run needs, and what a kill left behind.

    Attributes:
        files: what may go.
        images: pictures among them.
        bytes: their size.
        kept: pictures that stay.
    """

    files: list[Path]
    images: int
    bytes: int
    kept: int


def open_cache(cache: Path) -> Path:
    """`cache`, if it is a folder.

    Raises:
        ConfigError: there is none.
    """
    if not cache.is_dir():
        raise ConfigError(f"there is no cache at {cache}; say where it is with --cache")
    return cache


def sizes(cache: Path) -> list[Kind]:
    """Files and bytes by folder, the largest first."""
    counts: dict[str, list[int]] = {}
    for path in _files(cache):
        inner = path.relative_to(cache).parts
        count = counts.setdefault(inner[0] if len(inner) > 1 else "(files)", [0, 0])
        count[0] += 1
        count[1] += _size(path)
    kinds = [Kind(name, files, size) for name, (files, size) in counts.items()]
    return sorted(kinds, key=lambda kind: (-kind.bytes, kind.name))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def find_damage(cache: Path, *, progress: Progress = silent) -> list[Damage]:
    """Read everything and name what is damaged.

    Pictures: the pixels have the digest of their facts, and the request has the picture's key.
    Features: every row has its checksum. Scores: every line is a score. A torn last row or line is
    what a kill leaves; it is made again and is no damage.
    """
    checks = [
        *((path, _check_image) for path in sorted((cache / "images").glob("*/*.json"))),
        *((path, _check_picture) for path in sorted((cache / "images").glob("*/*.png"))),
        *((path, _check_features) for path in sorted((cache / "features").glob("*/*.bin"))),
        *((path, _check_scores) for path in sorted((cache / "scores").glob("*.jsonl"))),
    ]
    found: list[Damage] = []
    with progress("verifying", len(checks)) as bar:
        for path, check in checks:
            found += check(path)
            bar.update(1)
    return found


def _check_image(path: Path) -> list[Damage]:
    import numpy as np
    from PIL import Image

    try:
        facts = read_json(path)
        key, image = str(facts["key"]), str(facts["image"])
        request = ImageRequest.model_validate(facts["request"])
    except (NegbenchError, KeyError, ValidationError):
        return [Damage(path, "not the facts of a picture")]
    if key != path.stem or request.key() != key:
        return [Damage(path, "the request has another key")]
    try:
        with Image.open(path.with_suffix(".png"), formats=("PNG",)) as picture:
            pixels = np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError):
        return [Damage(path.with_suffix(".png"), "cannot be read as a picture")]
    if pixel_digest(pixels) != image:
        return [Damage(path.with_suffix(".png"), "other pixels than were drawn")]
    return []


def _check_picture(path: Path) -> list[Damage]:
    if path.with_suffix(".json").is_file() or time.time() - path.stat().st_mtime < DAY:
        return []
    return [Damage(path, "a picture without its facts")]


def _check_features(path: Path) -> list[Damage]:
    try:
        width = int(read_json(path.parent / "network.json")["width"])
    except (NegbenchError, KeyError, TypeError, ValueError):
        return [Damage(path.parent / "network.json", "does not say how wide a row is")]
    size = 32 + 4 * width + 4
    data = path.read_bytes()
    bad = sum(
        zlib.crc32(data[start : start + size - 4])
        != int.from_bytes(data[start + size - 4 : start + size], "big")
        for start in range(0, len(data) - size + 1, size)
    )
    return [Damage(path, f"{bad} rows fail their checksum")] if bad else []


def _check_scores(path: Path) -> list[Damage]:
    return [
        Damage(path, "not a score", line=number)
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1)
        if line.endswith(b"\n") and not _is_score(line)
    ]


def _is_score(line: bytes) -> bool:
    try:
        value: Any = json.loads(line)
        Score(value=value.get("value"), unscored=value.get("unscored"))
        return len(bytes.fromhex(value["key"])) == 32
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


def drop_damage(cache: Path, damage: Iterable[Damage]) -> None:
    """Take out what is damaged, so that it is made again when it is needed.

    A picture goes with its facts, a line of scores alone, features of a damaged file altogether.

    Raises:
        StorageError: a file cannot be removed or rewritten.
    """
    lines: dict[Path, set[int]] = {}
    store = ImageStore(cache)
    for item in damage:
        if item.line is not None:
            lines.setdefault(item.path, set()).add(item.line)
        elif item.path.parent.parent == store.root:
            store.discard(item.path.stem, only_here=True)
        elif item.path.name == "network.json":
            for path in sorted(item.path.parent.iterdir()):
                _remove(path)
        else:
            _remove(item.path)
    for path, numbers in lines.items():
        kept = path.read_bytes().splitlines(keepends=True)
        write_atomic(path, b"".join(x for n, x in enumerate(kept, start=1) if n not in numbers))


def find_garbage(cache: Path, records: Iterable[Record], *, days: float = 1.0) -> Garbage:
    """Pictures that none of `records` has, and leftovers, all older than `days`.

    What is younger stays: a run that is under way has drawn pictures that it has not recorded yet.
    """
    needed = {
        image.key
        for record in records
        for sample in record.samples()
        for image in sample.images().values()
    }
    before = time.time() - days * DAY
    files: list[Path] = []
    images = kept = 0
    for path in _files(cache / "images"):
        if path.stem in needed or path.stat().st_mtime > before:
            kept += path.suffix == ".png"
            continue
        files.append(path)
        images += path.suffix == ".png"
    parts = (p for p in _files(cache) if p.name.startswith(".") and p.suffix == ".part")
    files += [p for p in parts if p.stat().st_mtime <= before and p not in files]
    return Garbage(files=files, images=images, bytes=sum(map(_size, files)), kept=kept)


def drop_garbage(garbage: Garbage) -> None:
    """Remove it, facts before pictures, so that a kill leaves no facts without their picture.

    Raises:
        StorageError: a file cannot be removed.
    """
    for path in sorted(garbage.files, key=lambda path: path.suffix != ".json"):
        _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, path, "remove") from error
