"""Pairs to learn from: a split of a data set, cleaned or raw, weighted by likes, lists capped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from negbench.database.load import load_db
from negbench.errors import ConfigError, DataError, MissingError
from negbench.types import canonical_json, sha256_hex

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

Text = Literal["cleaned", "raw"]
Likes = Literal["none", "capped", "log"]
MIN_TRAINING = 32
"""Fewest training pairs a model may be fine-tuned on."""
MIN_VALIDATION = 4
"""Fewest held-out pairs that figures may be made from."""


@dataclass(frozen=True)
class Pairs:
    """Prompts with the negatives that people wrote for them.

    Attributes:
        prompts: what the model reads.
        negatives: what it should write.
        weights: chance of each pair, float64 (n,), summing to 1; None where all are equal.
        digest: sha256 over ids, texts and weights.
    """

    prompts: Sequence[str]
    negatives: Sequence[str]
    weights: npt.NDArray[np.float64] | None
    digest: str

    def __len__(self) -> int:
        return len(self.prompts)


def read_pairs(
    db: str,
    *,
    split: Literal["train", "validation", "test"],
    text: Text = "cleaned",
    likes: Likes = "none",
    likes_cap: int = 40,
    universal_cap: int | None = None,
) -> Pairs:
    """The pairs of one split, in the order of their ids.

    Args:
        db: ``miniature``, or a folder that `negbench build-db` wrote.
        split: which split.
        text: ``cleaned`` texts, or ``raw`` ones with weights and networks as users typed them.
        likes: ``none``: every pair counts once; ``capped``: as often as it was liked, at most
            `likes_cap` times; ``log``: 1 + ln(1 + likes).
        likes_cap: see `likes`.
        universal_cap: of pairs with the same negative prompt keep at most so many, chosen by a
            hash of their ids.

    Raises:
        MissingError: there is no such data set or split.
        ConfigError: the data set has no column for what was asked.
        DataError: too few pairs are left.
    """
    import polars as pl

    try:
        frame = load_db(db, split=split)
    except MissingError as error:
        raise MissingError(f"--db {db}: split {split} is needed: {error}") from error
    names = ("prompt", "negative") if text == "cleaned" else ("prompt_raw", "negative_raw")
    for name in (*names, *(("likes",) if likes != "none" else ())):
        if name not in frame.columns:
            wish = f"--text {text}" if name != "likes" else f"--likes {likes}"
            raise ConfigError(f"--db {db} has no column {name!r}, which {wish} needs; leave it out")
    rows = frame.select(
        pl.col("id").cast(pl.String),
        pl.col(names[0]).fill_null("").str.strip_chars().alias("prompt"),
        pl.col(names[1]).fill_null("").str.strip_chars().alias("negative"),
        (pl.col("likes") if "likes" in frame.columns else pl.lit(0)).fill_null(0).alias("likes"),
    )
    rows = rows.filter((pl.col("prompt") != "") & (pl.col("negative") != "")).sort("id")
    if universal_cap is not None:
        rows = _capped(rows, universal_cap)
    weights = _weights(rows, likes, likes_cap, db=db)
    if weights is not None:
        rows, weights = rows.filter(pl.Series(weights > 0)), weights[weights > 0]
        weights = weights / weights.sum()
    least = MIN_TRAINING if split == "train" else MIN_VALIDATION
    if len(rows) < least:
        raise DataError(
            f"--db {db}: split {split} has {len(rows)} pairs with a prompt and a negative prompt; "
            f"at least {least} are needed, so build a larger data set"
        )
    prompts, negatives = rows["prompt"].to_list(), rows["negative"].to_list()
    told = [rows["id"].to_list(), prompts, negatives]
    digest = sha256_hex(canonical_json([*told, None if weights is None else weights.tolist()]))
    return Pairs(prompts, negatives, weights, digest)


def _capped(rows: pl.DataFrame, cap: int) -> pl.DataFrame:
    import polars as pl

    order = [sha256_hex(f"negbench-universal-cap\0{i}".encode()) for i in rows["id"].to_list()]
    ranked = rows.with_columns(
        pl.Series("order", order),
        pl.col("negative").str.to_lowercase().str.replace_all(r"\s+", " ").alias("same"),
    )
    place = pl.col("order").rank("ordinal").over("same")
    return ranked.filter(place <= cap).drop("order", "same")


def _weights(rows: pl.DataFrame, likes: Likes, cap: int, *, db: str) -> Any:
    import numpy as np

    if likes == "none" or not len(rows):
        return None
    counts = rows["likes"].to_numpy().astype(np.float64).clip(0)
    if not counts.any():
        raise ConfigError(f"--db {db}: no pair has a like, so --likes {likes} weighs nothing")
    return counts.clip(0, cap) if likes == "capped" else 1.0 + np.log1p(counts)
