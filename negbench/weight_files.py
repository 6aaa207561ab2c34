"""Files of weights on this machine: whole or torn, and their digests; torch is not needed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
from pathlib import Path
from typing import Any

from negbench.errors import DataError, NegbenchError
from negbench.files import storage_error, write_atomic
from negbench.remote import user_cache
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


def read_description(path: Path, *, owner: str, limit: int) -> dict[str, Any]:
    """The JSON object that describes a model: its config, tokenizer or index.

    Args:
        path: the file.
        owner: begins every message, for example ``generator org/name``.
        limit: most bytes that such a file may have.

    Raises:
        DataError: it is larger, or holds no JSON object.
        StorageError: it cannot be read.
    """
    try:
        if path.stat().st_size > limit:
            raise DataError(f"{owner}: {path} is too large for a config")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise storage_error(error, path, "read") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{owner}: {path} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{owner}: {path} does not hold a JSON object")
    return value


def indexed_shards(index: Path, described: dict[str, Any]) -> tuple[list[Path], str | None]:
    """The files beside an index that it names, sorted, and the first that is missing.

    Args:
        index: a ``*.safetensors.index.json``; names that lead out of its folder are passed over.
        described: what it holds.

    Returns:
        All files, and None if they are all there, else a name: the index's own if it names none.
    """
    mapping = described.get("weight_map")
    names = sorted({str(name) for name in mapping.values()}) if isinstance(mapping, dict) else []
    shards = [index.parent / name for name in names if name == os.path.basename(name)]
    gone = [shard.name for shard in shards if not shard.is_file()]
    if gone or not shards:
        return shards, (gone or [index.name])[0]
    return shards, None


def file_digest(path: Path) -> str:
    """sha256 of a file; of a large one remembered by path, size, inode and times.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        stat = path.stat()
        times = [stat.st_mtime_ns, stat.st_ctime_ns]
        identity = [str(path.resolve()), stat.st_size, stat.st_ino, *times]
        kept = user_cache() / "digests" / sha256_hex(canonical_json(identity))
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
