"""`negbench db check`: a data set against its manifest, file by file and row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from negbench.database.funnel import check_funnel
from negbench.database.manifest import digests, read_manifest, to_bytes
from negbench.database.rows import SPLITS


def check_db(folder: str | Path) -> list[str]:
    """All problems of a data set; an empty list means that it is whole.

    Checks digests, columns, unique ids, splits that share neither a pair nor a cluster, the
    funnel's sums, evaluation lists, and that the card says what the manifest says.

    Raises:
        MissingError: there is no data set.
        RecordError: the manifest cannot be read.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    problems = check_digests(root, manifest)
    if problems:
        return problems
    problems += _check_rows(root, manifest)
    problems += check_funnel(
        manifest["funnel"], kept=sum(manifest["rows"].values()), excluded=manifest["excluded"]
    )
    problems += check_card(root / "data_cards", manifest)
    return problems


def check_digests(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Files that are missing, changed or not in the manifest."""
    problems: list[str] = []
    expected = manifest.get("files", {})
    rows = {name: entry.get("rows", 0) for name, entry in expected.items()}
    listed = {**rows}
    for path in folder.rglob("*.parquet"):
        listed.setdefault(path.relative_to(folder).as_posix(), 0)
    own = ("data", "data_cards", "evaluation", "excluded.parquet")
    found = {
        name: entry
        for name, entry in digests(folder, listed).items()
        if name.split("/", 1)[0] in own
    }
    for name, entry in expected.items():
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name]["sha256"] != entry["sha256"]:
            problems.append(f"{name} differs from the manifest (sha256)")
    problems += [f"{name} is not in the manifest" for name in found if name not in expected]
    return problems


def _check_rows(folder: Path, manifest: dict[str, Any]) -> list[str]:
    import polars as pl
    import pyarrow.parquet as pq

    from negbench.database.schema import data_schema

    problems: list[str] = []
    ids: list[pl.Series] = []
    clusters: dict[str, pl.Series] = {}
    pairs: list[pl.DataFrame] = []
    for split in SPLITS:
        names = sorted(n for n in manifest["files"] if n.startswith(f"data/{split}-"))
        frames = []
        for name in names:
            if not pq.read_schema(folder / name).equals(data_schema()):
                problems.append(f"{name} has other columns than this version writes")
                continue
            columns = ["id", "cluster", "prompt", "negative"]
            frames.append(pl.read_parquet(folder / name, columns=columns))
        if not frames:
            problems.append(f"split {split} has no file")
            continue
        frame = pl.concat(frames)
        if len(frame) != manifest["rows"][split]:
            problems.append(f"{split} holds {len(frame)} rows, not {manifest['rows'][split]}")
        ids.append(frame["id"])
        clusters[split] = frame["cluster"].unique()
        pairs.append(frame.select(pl.struct("prompt", "negative").hash().alias("pair")))
    if problems:
        return problems
    if pl.concat(ids).is_duplicated().any():
        problems.append("an id stands twice")
    if pl.concat(pairs)["pair"].is_duplicated().any():
        problems.append("a pair of texts stands twice")
    for index, left in enumerate(SPLITS):
        for right in SPLITS[index + 1 :]:
            if clusters[left].is_in(clusters[right].implode()).any() and not manifest["previous"]:
                problems.append(f"{left} and {right} share a cluster")
    version = manifest["evaluation"]["version"]
    lists = json.loads((folder / f"evaluation/v{version}.json").read_text(encoding="utf-8"))
    for split, series in zip(SPLITS[1:], ids[1:], strict=True):
        missing = set(lists[split]) - set(series.to_list())
        if missing:
            problems.append(f"{len(missing)} ids of the evaluation list are not in {split}")
    for name in lists:
        if name.startswith("quality") and not set(lists[name]) <= set(lists["test"]):
            problems.append(f"{name} is not a part of test")
    return problems


def check_card(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Whether the card in `folder` is the one that manifest and figures give."""
    from negbench.database.card import card_text

    name = manifest["name"]
    try:
        stats = json.loads((folder / f"{name}.stats.json").read_text(encoding="utf-8"))
        text = (folder / f"{name}.md").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return [f"card or figures of {name} cannot be read ({type(error).__name__})"]
    problems: list[str] = []
    if stats["rows"] != manifest["rows"]:
        problems.append(f"{name}.stats.json counts other rows than the manifest")
    facts = {key: value for key, value in manifest.items() if key != "files"}
    if text != card_text(facts, stats):
        problems.append(f"{name}.md disagrees with the manifest; build the data set again")
    if to_bytes(stats) != (folder / f"{name}.stats.json").read_bytes():
        problems.append(f"{name}.stats.json is not as negbench writes it")
    return problems
