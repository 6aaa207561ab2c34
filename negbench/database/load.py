"""`load_db`: the rows of a data set as a polars DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from negbench.errors import ConfigError, MissingError

if TYPE_CHECKING:
    import polars as pl

SPLIT_NAMES = ("train", "validation", "test", "all")


def load_db(name_or_path: str | Path = "miniature", *, split: str = "all") -> pl.DataFrame:
    """Rows of a data set, in the order of their ids within each split.

    Args:
        name_or_path: ``miniature`` (comes with negbench), or the folder of a data set that
            `negbench build-db` wrote.
        split: train, validation, test, all (with a column ``split``), or the name of an evaluation
            list such as ``quality-1k``.

    Raises:
        MissingError: there is no such data set.
        ConfigError: it has no such split.
    """
    import polars as pl

    folder = Path(name_or_path)
    if str(name_or_path) == "miniature" and not (folder / "manifest.json").is_file():
        return _miniature(split)
    if not (folder / "manifest.json").is_file():
        raise MissingError(
            f"no data set at {name_or_path}; build one with `negbench build-db --out "
            f"{name_or_path}`, or load 'miniature'"
        )
    lists = _lists(folder)
    if split not in (*SPLIT_NAMES, *lists):
        raise ConfigError(
            f"no split {split!r}; there are {', '.join((*SPLIT_NAMES, *sorted(lists)))}"
        )
    wanted = SPLIT_NAMES[:3] if split == "all" else (split if split in SPLIT_NAMES else "test",)
    frames = []
    for name in wanted:
        paths = sorted((folder / "data").glob(f"{name}-*.parquet"))
        if not paths:
            raise MissingError(f"{folder} has no files of split {name}; run `negbench db check`")
        frame = pl.concat([pl.read_parquet(path) for path in paths])
        if split == "all":
            frame = frame.with_columns(pl.lit(name).alias("split"))
        frames.append(frame)
    rows = pl.concat(frames)
    if split in lists and split not in SPLIT_NAMES:
        rows = rows.filter(pl.col("id").is_in(lists[split]))
    return rows


def _lists(folder: Path) -> dict[str, list[str]]:
    """Evaluation lists of the newest version."""
    from negbench.database.evaluation import read_evaluation
    from negbench.database.manifest import read_manifest

    version = read_manifest(folder)["evaluation"]["version"]
    data = read_evaluation(folder / "evaluation" / f"v{version}.json")
    return {name: ids for name, ids in data.items() if name.startswith("quality")}


def _miniature(split: str) -> pl.DataFrame:
    """The shipped pairs of the miniature with the splits it ships."""
    import polars as pl

    from negbench.miniature import db_dir

    if split not in SPLIT_NAMES:
        raise ConfigError(
            f"the shipped miniature has no split {split!r}; there are {', '.join(SPLIT_NAMES)} "
            "(for evaluation lists run `negbench build-db` first)"
        )
    frames = []
    for name in SPLIT_NAMES[:3]:
        if split in (name, "all"):
            frame = pl.read_parquet(db_dir() / f"{name}.parquet")
            if split == "all" and "split" not in frame.columns:
                frame = frame.with_columns(pl.lit(name).alias("split"))
            frames.append(frame)
    return pl.concat(frames)
