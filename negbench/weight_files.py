"""Files of weights on this machine: whole or torn, and their digests; torch is not needed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

from negbench.errors import DataError, NegbenchError
from negbench.files import storage_error, write_atomic
from negbench.store import default_cache
from negbench.types import canonical_json, sha256_hex

MAX_HEADER = 100 << 20
CACHED_FROM = 16 << 20
"""Files from this size on have their digest remembered."""


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file (tensor name -> dtype, shape, data_offsets).

    Raises:
        DataError: the header is no safetensors header, or the file is shorter than it says.
        StorageError: the file cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER, size):
                raise DataError(f"{path} is not a safetensors file, or is torn; fetch it again")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((item["data_offsets"][1] for item in header.values()), default=0)
    except OSError as error:
        raise storage_error(error, path, "read") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} has no safetensors header ({error}); fetch it again") from error
    if end != size:
        raise DataError(f"{path} is torn: {size} bytes where its header says {end}; fetch it again")
    return dict(header)


def file_digest(path: Path) -> str:
    """sha256 of a file; of a large one remembered by path, size, inode and times.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        stat = path.stat()
        times = [stat.st_mtime_ns, stat.st_ctime_ns]
        identity = [str(path.resolve()), stat.st_size, stat.st_ino, *times]
        kept = default_cache() / "digests" / sha256_hex(canonical_json(identity))
        if stat.st_size >= CACHED_FROM and kept.is_file():
            text = kept.read_text("ascii", errors="replace").strip()
            if re.fullmatch(r"[0-9a-f]{64}", text):
                return text
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise storage_error(error, path, "read") from error
    if stat.st_size >= CACHED_FROM:
        with contextlib.suppress(NegbenchError):  # a read-only cache costs time only
            write_atomic(kept, digest.encode())
    return digest
