"""Frozen evaluation lists: ids only, so that a data set without a licence can have splits too.

``evaluation/v1.json`` holds the ids of validation and test, of the subsets drawn from test, and of
rows that the cap on one negative prompt kept out.
An id is a hash of source, source id and both raw texts, so that a list of ids proves the texts and
gives none away. `--evaluation FILE` applies a list to a build from the source.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.errors import MissingError, RecordError

if TYPE_CHECKING:
    import polars as pl

SUBSETS = {"quality-1k": 1000, "quality-5k": 5000}
STRATA = 40
"""Number of the commonest tags that rows are told apart by."""


def read_evaluation(path: Path) -> dict[str, Any]:
    """An evaluation list.

    Raises:
        MissingError: there is no such file.
        RecordError: it is not a list of this kind.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingError(f"no evaluation list at {path}") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is not a list of evaluation ids") from error
    if not isinstance(data, dict) or data.get("schema_version") != 1 or "test" not in data:
        raise RecordError(f"{path} is not a list of evaluation ids that this version reads")
    return data


def evaluation_json(
    name: str, version: int, rule: str, lists: dict[str, list[str]]
) -> dict[str, Any]:
    """The content of ``evaluation/v<version>.json``."""
    return {
        "schema_version": 1,
        "name": name,
        "version": version,
        "split_rule": rule,
        "sha256": {
            key: hashlib.sha256("\n".join(ids).encode("ascii")).hexdigest()
            for key, ids in lists.items()
        },
        **lists,
    }


def draw_subsets(test: pl.DataFrame) -> dict[str, list[str]]:
    """Fixed subsets of the test split, stratified by tags; the smaller lies in the larger.

    A row's stratum is the rarest of the `STRATA` commonest prompt tags that it has. Places go to
    strata in proportion (largest remainders), within a stratum to rows by a hash of their id. Rows
    that are not safe for work are left out, and of a cluster one row is enough.

    Args:
        test: columns id, nsfw, cluster, prompt_tags.
    """
    import polars as pl

    safe = test.filter(~pl.col("nsfw"))
    ranked = sorted(
        zip(safe["id"], safe["cluster"], safe["prompt_tags"].to_list(), strict=True),
        key=lambda row: hashlib.sha256(f"negbench-subset/1 {row[0]}".encode()).digest(),
    )
    seen: set[str] = set()
    pool: list[tuple[str, list[str]]] = []
    for row_id, cluster, tags in ranked:
        if cluster in seen:
            continue
        seen.add(cluster)
        pool.append((row_id, list({tag["tag"]: None for tag in tags or []})))
    frequency = Counter(tag for _, tags in pool for tag in tags)
    common = sorted(frequency.items(), key=lambda kv: (-kv[1], kv[0]))[:STRATA]
    place = {tag: rank for rank, (tag, _) in enumerate(common)}
    strata: dict[str, list[str]] = {}
    for row_id, tags in pool:
        known = [tag for tag in tags if tag in place]
        stratum = max(known, key=lambda tag: place[tag]) if known else ""
        strata.setdefault(stratum, []).append(row_id)
    found: dict[str, list[str]] = {}
    for name, size in sorted(SUBSETS.items(), key=lambda kv: -kv[1]):
        quota = _quota({key: len(ids) for key, ids in strata.items()}, size)
        strata = {key: strata[key][:count] for key, count in quota.items()}
        found[name] = sorted(row_id for ids in strata.values() for row_id in ids)
    return dict(sorted(found.items()))


def _quota(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Places in proportion to sizes, by largest remainders; ties by name."""
    whole = sum(sizes.values())
    if whole <= total:
        return dict(sizes)
    exact = {key: size * total / whole for key, size in sizes.items()}
    quota = {key: int(value) for key, value in exact.items()}
    rest = total - sum(quota.values())
    order = sorted(exact, key=lambda key: (-(exact[key] - quota[key]), key))
    for key in order[:rest]:
        quota[key] += 1
    return quota
