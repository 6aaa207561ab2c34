"""``entries.lock``: what was added and what was withdrawn, line by line, append-only.

A line is never edited or taken out, so the present lock must contain every line of an older one
in its order; `check --against` an older copy proves that nothing went away in silence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from negbench.errors import RecordError
from negbench.files import write_atomic
from negbench.leaderboard.entry import Sha256
from negbench.types import Spec

LOCK = "entries.lock"
MAX_BYTES = 50_000_000


class Added(Spec):
    """An entry came in: its path below ``entries/`` and the sha256 of both its files."""

    action: Literal["add"] = "add"
    entry: str = Field(max_length=400)
    sha256: Sha256
    values: Sha256


class Withdrawn(Spec):
    """An entry went out, and why; its line of addition stays."""

    action: Literal["withdraw"] = "withdraw"
    entry: str = Field(max_length=400)
    sha256: Sha256
    reason: str = Field(min_length=3, max_length=500)


Line = Annotated[Added | Withdrawn, Field(discriminator="action")]
_LINE: TypeAdapter[Added | Withdrawn] = TypeAdapter(Line)


def read_lock(path: Path) -> list[Added | Withdrawn]:
    """The lines of a lock file; none if there is no file.

    Raises:
        RecordError: a line is damaged.
    """
    if not path.is_file():
        return []
    if path.stat().st_size > MAX_BYTES:
        raise RecordError(f"{path}: larger than {MAX_BYTES} bytes, so it is no lock")
    lines = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            lines.append(_LINE.validate_python(json.loads(line)))
        except (ValueError, RecursionError) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise RecordError(
                f"{path}:{number}: {first}; the lock is append-only, take it from an older copy"
            ) from error
    return lines


def append(path: Path, line: Added | Withdrawn) -> None:
    """Add a line; the file as a whole is replaced at once."""
    before = path.read_bytes() if path.is_file() else b""
    if before and not before.endswith(b"\n"):
        raise RecordError(f"{path}: its last line is torn; take it from an older copy")
    write_atomic(path, before + line.canonical() + b"\n")


def current(lines: Sequence[Added | Withdrawn]) -> dict[str, Added]:
    """Path -> its addition, of the entries that were not withdrawn since.

    Raises:
        RecordError: an entry is added twice, or one that is not there is withdrawn.
    """
    found: dict[str, Added] = {}
    for line in lines:
        if isinstance(line, Added):
            if line.entry in found:
                raise RecordError(f"{LOCK}: {line.entry} is added twice")
            found[line.entry] = line
        else:
            gone = found.pop(line.entry, None)
            if gone is None or gone.sha256 != line.sha256:
                raise RecordError(f"{LOCK}: {line.entry} is withdrawn but was not there")
    return found


def lost(lines: Sequence[Added | Withdrawn], older: Sequence[Added | Withdrawn]) -> list[str]:
    """Lines of an older lock that `lines` does not have in the same order, in words."""
    rest = iter(lines)
    return [
        f"{line.action} {line.entry} ({line.sha256[:12]})"
        for line in older
        if not any(line == candidate for candidate in rest)
    ]
