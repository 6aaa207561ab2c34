"""Writing that a kill cannot tear: whole files appear at once, lines are appended in one call."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.errors import RecordError, StorageError
from negbench.types import canonical_json

if TYPE_CHECKING:
    from negbench.remote import Remote

MAX_LINE = 4_000_000


def storage_error(error: OSError, path: Path, action: str = "write") -> StorageError:
    """`error` as one line that says what to do about it."""
    reasons = {
        errno.ENOSPC: "the disk is full; free some space and give the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and give the same command again",
        errno.EACCES: "permission denied; choose another folder",
        errno.EPERM: "permission denied; choose another folder",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
        errno.EEXIST: "a file of that name is in the way; choose another folder",
    }
    why = reasons.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"cannot {action} {path}: {why}")


def make_folder(path: Path) -> Path:
    """Create `path` and its parents.

    Raises:
        StorageError: it cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path, "create folder") from error
    if not os.access(path, os.W_OK | os.X_OK):
        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        why = OSError(errno.EROFS if read_only else errno.EACCES, "")
        raise storage_error(why, path, "write folder")
    return path


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path` and rename it into place.

    Raises:
        StorageError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    make_folder(path.parent)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise storage_error(error, path) from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically; NaN is refused."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text.encode("utf-8") + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        RecordError: it is no JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{path} is not valid JSON ({error}); move it away and run again"
        ) from error
    except OSError as error:
        raise storage_error(error, path, "read") from error
    if not isinstance(value, dict):
        raise RecordError(f"{path} does not hold a JSON object; move it away and run again")
    return value


class LineWriter:
    """Appends JSON lines to a file of its own; a kill leaves at most one torn last line.

    The file is created with the first line, under a name nobody else writes to, so that any
    number of processes on any number of machines can write into one folder. With a `remote` the
    file is sent there from time to time; what follows goes to a new one.
    """

    def __init__(self, folder: Path, *, prefix: str = "w", remote: Remote | None = None) -> None:
        self._folder = folder
        self._prefix = prefix
        self._remote = remote
        self._handle: int | None = None
        self.path = self._new_path()

    def _new_path(self) -> Path:
        return self._folder / f"{self._prefix}-{os.urandom(6).hex()}.jsonl"

    def append(self, value: dict[str, Any]) -> None:
        """Append one line.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        line = canonical_json(value) + b"\n"
        if self._remote is not None:
            if self._remote.is_taken(self.path):
                self.close()
                self.path = self._new_path()
            self._remote.mark()
        try:
            if self._handle is None:
                make_folder(self.path.parent)
                self._handle = os.open(
                    self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o644
                )
            view = memoryview(line)
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError as error:
            raise storage_error(error, self.path) from error
        if self._remote is not None:
            self._remote.wrote(self.path)

    def close(self) -> None:
        """Close the file; further lines go to it no more."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects in `path`, one a line; a torn last line is left out.

    Raises:
        RecordError: any other line is not a JSON object; the message has file and line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                if len(line) > MAX_LINE:
                    raise RecordError(f"{path}:{number}: line longer than {MAX_LINE} bytes")
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise RecordError(
                        f"{path}:{number}: not valid JSON ({error}); "
                        "move the file away and run again"
                    ) from error
                if not isinstance(value, dict):
                    raise RecordError(f"{path}:{number}: not a JSON object; move the file away")
                yield value
    except OSError as error:
        raise storage_error(error, path, "read") from error
