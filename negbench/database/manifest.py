"""``manifest.json``: what a data set is made of, and digests of everything in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.database.licenses import may_share, normal_license
from negbench.database.schema import SCHEMA_VERSION
from negbench.database.write import file_digest
from negbench.errors import MissingError, RecordError

if TYPE_CHECKING:
    from negbench.database.previous import Previous


def package_version() -> str:
    """Version of the installed package."""
    from negbench import __version__

    return __version__


def to_bytes(value: Any) -> bytes:
    """JSON with sorted keys, indented, ending in a line break."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a data set.

    Raises:
        MissingError: there is no data set.
        RecordError: the manifest is damaged or newer than this version.
    """
    path = folder / "manifest.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingError(
            f"no data set at {folder} (no manifest.json); build one with `negbench build-db`"
        ) from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged; build the data set again") from error
    if not isinstance(data, dict) or not isinstance(data.get("schema_version"), int):
        raise RecordError(f"{path} is not a manifest of a negbench data set")
    if data["schema_version"] > SCHEMA_VERSION:
        raise RecordError(f"{path} is of a newer version; upgrade negbench")
    return data


def digests(folder: Path, rows: dict[str, int]) -> dict[str, Any]:
    """Digest, size and, for tables, rows of every file but the manifest."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == "manifest.json":
            continue
        name = path.relative_to(folder).as_posix()
        found[name] = file_digest(path)
        if name.endswith(".parquet"):
            found[name]["rows"] = rows[name]
    return found


def license_of(entries: list[dict[str, Any]], previous: Previous | None) -> tuple[str | None, bool]:
    """The licence that holds for the whole, and whether it may be shared.

    One licence if all sources have the same; ``other`` if they differ; None if one has none.
    """
    everything = list(entries)
    if previous is not None:
        everything += previous.manifest["sources"]
    names = {normal_license(entry.get("license")) for entry in everything}
    shareable = all(may_be_shared(entry) for entry in everything)
    if None in names:
        return None, shareable
    return (names.pop() if len(names) == 1 else "other"), shareable


def may_be_shared(entry: dict[str, Any]) -> bool:
    """Whether one source's licence and terms allow publishing its rows."""
    if entry.get("redistribution") is False:
        return False
    return may_share(entry.get("license"))


def source_entries(
    entries: list[dict[str, Any]], previous: Previous | None
) -> list[dict[str, Any]]:
    """Sources by name, those of the previous data set included."""
    found = [
        {**entry, "carried_over": False, "shareable": may_be_shared(entry)} for entry in entries
    ]
    if previous is not None:
        found += [{**entry, "carried_over": True} for entry in previous.manifest["sources"]]
    distinct = {json.dumps(entry, sort_keys=True): entry for entry in found}
    return [distinct[key] for key in sorted(distinct)]
