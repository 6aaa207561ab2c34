"""Figures of a data set, read file by file: lengths, tags, universal lists, labels, years."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

TOP = 40
UNIVERSAL = 10
"""A negative prompt on at least this many rows counts as a universal list."""
_MAX_DISTINCT = 2_000_000


@dataclass
class _Counts:
    rows: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Counter[int]] = field(default_factory=dict)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    tags: dict[str, Any] = field(default_factory=dict)
    years: dict[str, Any] = field(default_factory=dict)
    negatives: Any = None


def compute_stats(folder: Path, files: dict[str, int], *, show_texts: bool) -> dict[str, Any]:
    """Figures of ``data/*.parquet`` under `folder`.

    Args:
        folder: the data set.
        files: data files relative to it, in the manifest's order.
        show_texts: whether the commonest negative prompts may be quoted (the licence allows it).
    """
    import polars as pl

    counts = _Counts()
    for name in files:
        if not name.startswith("data/"):
            continue
        split = name.removeprefix("data/").split("-", 1)[0]
        frame = pl.read_parquet(folder / name)
        counts.rows[split] += len(frame)
        if len(frame):
            _lengths(counts, frame)
            _labels(counts, frame)
            _tags(counts, frame)
    return _summary(counts, show_texts=show_texts)


def _lengths(counts: _Counts, frame: pl.DataFrame) -> None:
    import polars as pl

    for side in ("prompt", "negative"):
        measures = {
            "characters": pl.col(side).str.len_chars(),
            "words": pl.col(side).str.count_matches(r"[\p{L}\p{N}_]+"),
            "tags": pl.col(f"{side}_tags").list.len(),
        }
        for name, expression in measures.items():
            table = frame.select(expression.alias("n")).group_by("n").len()
            counter = counts.lengths.setdefault(f"{side} {name}", Counter())
            counter.update({int(n): int(c) for n, c in table.iter_rows() if n is not None})


def _labels(counts: _Counts, frame: pl.DataFrame) -> None:
    import polars as pl

    for name in ("language", "nsfw_by", "sampler", "model", "source", "license"):
        counter = counts.labels.setdefault(name, Counter())
        counter.update({str(k): int(v) for k, v in frame[name].drop_nulls().value_counts().rows()})
    for name in ("masked", "changes"):
        counter = counts.labels.setdefault(name, Counter())
        values = frame[name].explode().drop_nulls().value_counts()
        counter.update({str(k): int(v) for k, v in values.rows()})
    kinds = frame.select(
        pl.col("networks").list.eval(pl.element().struct.field("kind")).list.unique()
    )
    counter = counts.labels.setdefault("networks", Counter())
    values = kinds.to_series().explode().drop_nulls().value_counts()
    counter.update({str(k): int(v) for k, v in values.rows()})
    flags = counts.labels.setdefault("flags", Counter())
    weighted = pl.any_horizontal(
        pl.col(f"{side}_tags").list.eval(pl.element().struct.field("weight") != 1.0).list.any()
        for side in ("prompt", "negative")
    )
    found = frame.select(
        pl.col("nsfw").sum().alias("nsfw"),
        (pl.col("tags_in_both").list.len() > 0).sum().alias("tags in both"),
        (pl.col("same_negative") >= UNIVERSAL).sum().alias("universal"),
        weighted.sum().alias("weighted"),
    )
    flags.update({name: int(value) for name, value in found.row(0, named=True).items()})
    negatives = frame.group_by("negative").len()
    counts.negatives = _merge(counts.negatives, negatives, ["negative"])


def _tags(counts: _Counts, frame: pl.DataFrame) -> None:
    import polars as pl

    year = pl.col("created").str.extract(r"^\s*((?:19|20)\d\d)\b", 1)
    for side in ("prompt", "negative"):
        table = (
            frame.select(
                year.alias("year"),
                pl.col(f"{side}_tags")
                .list.eval(pl.element().struct.field("tag")).list.unique().alias("tag"),
            ).explode("tag").drop_nulls("tag")
        )  # fmt: skip
        total = table.group_by("tag").len()
        counts.tags[side] = _merge(counts.tags.get(side), total, ["tag"])
        yearly = table.drop_nulls("year").group_by("year", "tag").len()
        counts.years[side] = _merge(counts.years.get(side), yearly, ["year", "tag"])
    rows = frame.select(year.alias("year")).drop_nulls().group_by("year").len()
    counts.years["rows"] = _merge(counts.years.get("rows"), rows, ["year"])


def _merge(old: Any, new: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    import polars as pl

    if old is None:
        return new
    merged: pl.DataFrame = pl.concat([old, new]).group_by(keys).agg(pl.col("len").sum())
    if len(merged) > _MAX_DISTINCT:  # names seen once cannot reach the top of millions
        merged = merged.filter(pl.col("len") > 1)
    return merged


def _summary(counts: _Counts, *, show_texts: bool) -> dict[str, Any]:
    import polars as pl

    total = sum(counts.rows.values())
    summary: dict[str, Any] = {
        "schema_version": 1,
        "rows": {name: counts.rows[name] for name in ("train", "validation", "test")},
        "total": total,
        "lengths": {name: _quantiles(counter) for name, counter in sorted(counts.lengths.items())},
        "word_histogram": {
            side: _histogram(counts.lengths.get(f"{side} words", Counter()))
            for side in ("prompt", "negative")
        },
        "flags": {
            name: {"rows": counts.labels.get("flags", Counter())[name],
                   "share": _share(counts.labels.get("flags", Counter())[name], total)}
            for name in ("nsfw", "tags in both", "universal", "weighted")
        },
    }  # fmt: skip
    for name in ("language", "nsfw_by", "networks", "masked", "changes", "source", "license",
                 "sampler", "model"):  # fmt: skip
        counter = counts.labels.get(name, Counter())
        summary[name] = dict(sorted(counter.items(), key=lambda kv: (-kv[1], kv[0]))[:TOP])
    summary["tags"] = {side: _top(counts.tags.get(side), "tag") for side in ("prompt", "negative")}
    negatives = counts.negatives
    summary["negatives"] = {
        "distinct": 0 if negatives is None else len(negatives),
        "on several rows": 0
        if negatives is None
        else int(negatives.filter(pl.col("len") >= UNIVERSAL).height),
        "universal_from": UNIVERSAL,
        "commonest": _top(negatives, "negative")[:10] if show_texts else None,
        "commonest_counts": [count for _, count in _top(negatives, "negative")[:10]],
    }
    summary["years"] = _years(counts)
    return summary


def _share(part: int, total: int) -> float:
    return round(part / total, 6) if total else 0.0


def _quantiles(counter: Counter[int]) -> dict[str, float]:
    total = sum(counter.values())
    if not total:
        return {}
    result: dict[str, float] = {
        "mean": round(sum(key * count for key, count in counter.items()) / total, 4)
    }
    for name, share in (("p5", 0.05), ("median", 0.5), ("p95", 0.95)):
        running = 0
        for key in sorted(counter):
            running += counter[key]
            if running >= share * total:
                result[name] = float(key)
                break
    result["max"] = float(max(counter))
    return result


def _histogram(counter: Counter[int]) -> dict[str, list[int]]:
    """Counts in bins that double: [1, 2), [2, 4), [4, 8) words and so on."""
    edges = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 100_000]
    bins = [0] * (len(edges) - 1)
    for key, count in counter.items():
        for index in range(len(bins)):
            if edges[index] <= key < edges[index + 1]:
                bins[index] += count
                break
    return {"edges": edges, "counts": bins}


def _top(table: Any, name: str) -> list[list[Any]]:
    import polars as pl

    if table is None:
        return []
    rows = table.sort([pl.col("len"), pl.col(name)], descending=[True, False]).head(TOP)
    return [[str(key)[:300], int(count)] for key, count in rows.select(name, "len").iter_rows()]


def _years(counts: _Counts) -> dict[str, Any]:
    """Share of each year's rows that have each of the eight commonest negative tags."""
    import polars as pl

    rows = counts.years.get("rows")
    if rows is None or not len(rows):
        return {"rows": {}, "negative_tags": {}}
    per_year = {str(year): int(n) for year, n in rows.sort("year").iter_rows()}
    wanted = [tag for tag, _ in _top(counts.tags.get("negative"), "tag")[:8]]
    table = counts.years["negative"].filter(pl.col("tag").is_in(wanted))
    shares: dict[str, dict[str, float]] = {tag: {} for tag in wanted}
    for year, tag, count in table.sort("year", "tag").iter_rows():
        shares[tag][str(year)] = _share(int(count), per_year[str(year)])
    return {"rows": per_year, "negative_tags": shares}
