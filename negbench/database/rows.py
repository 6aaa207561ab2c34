"""What has to be known of all rows at once: a few numbers a row, never their texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.database.clean import Rules, TextCache, clean_frame

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from negbench.database.near import Sets

SPLITS = ("train", "validation", "test")

_CACHE = TextCache()


@dataclass(frozen=True)
class CleanShard:
    """A shard after cleaning: its rows and, beside them, its keys and sets."""

    rows: Path
    keys: Path


def clean_shard(raw: Path, out: Path, rules: Rules) -> CleanShard:
    """Clean one raw shard; runs in worker processes."""
    import polars as pl

    frame = clean_frame(pl.read_parquet(raw), rules, _CACHE)
    return write_shard(frame, out, prior=None)


def write_shard(frame: pl.DataFrame, out: Path, *, prior: NDArray[np.int8] | None) -> CleanShard:
    """Write a clean shard and the keys of its rows.

    Args:
        frame: clean rows.
        out: path of the Parquet file; keys go to the same name with ``.npz``.
        prior: split in the previous data set (0, 1, 2), for rows that come from there.
    """
    import numpy as np
    import polars as pl

    from negbench.database.shingles import (
        hash_text,
        normal_text,
        set_keys,
        shingle_sets,
        words_of,
    )

    frame.write_parquet(out, compression="zstd", compression_level=1)
    alive = frame["reason"].is_null()
    texts = frame.select(
        words_of(pl.col("prompt").fill_null("")).alias("words"),
        normal_text(pl.col("negative").fill_null("")).alias("negative"),
    )
    unique = texts["words"].list.join(" ")
    first = pl.DataFrame({"t": unique, "alive": alive}).with_row_index("row")
    first = first.filter(pl.col("alive")).unique("t", keep="first", maintain_order=True)
    chosen = first["row"].to_numpy()
    values, offsets = shingle_sets(texts["words"].gather(chosen))
    keys_of_text = dict(zip(first["t"].to_list(), set_keys(values, offsets).tolist(), strict=True))
    set_key = np.array([keys_of_text.get(text, 0) for text in unique.to_list()], dtype=np.uint64)
    _, distinct = np.unique(set_keys(values, offsets), return_index=True)
    distinct.sort()
    sizes = np.diff(offsets)[distinct]
    starts = offsets[:-1][distinct]
    flat = _ranges(starts, sizes)
    paired = (unique + "\x1f" + texts["negative"]).to_list()
    hexes = "".join(frame["id"].to_list())
    ids = np.frombuffer(bytes.fromhex(hexes), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    np.savez(
        out.with_suffix(".npz"),
        ids=ids,
        alive=alive.to_numpy(),
        pair=hash_text(paired),
        negative=hash_text(texts["negative"].to_list()),
        set_key=set_key,
        prior=np.full(len(frame), -1, np.int8) if prior is None else prior,
        sets_key=set_keys(values, offsets)[distinct],
        sets_values=values[flat],
        sets_offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    )
    return CleanShard(out, out.with_suffix(".npz"))


def _ranges(starts: NDArray[Any], sizes: NDArray[Any]) -> NDArray[np.int64]:
    """Indices of several runs, one after the other."""
    import numpy as np

    total = int(sizes.sum())
    before = np.cumsum(sizes) - sizes
    result: NDArray[np.int64] = np.arange(total) + np.repeat(starts - before, sizes)
    return result


@dataclass
class RowTable:
    """Numbers of all rows, in the order of the shards.

    Attributes:
        ids: 128-bit ids as two 64-bit numbers, shape (n, 2).
        alive: rows that cleaning kept.
        pair: hash of both normal texts.
        negative: hash of the normal negative prompt.
        set_key: hash of the prompt's set.
        prior: split that is given to a row, -1 where the rule decides.
        firm: rows of frozen lists and previous data sets, which nothing excludes.
        barred: rows that a frozen list keeps out, because a cap once did.
        starts: first row of each shard, and n.
    """

    ids: NDArray[np.uint64]
    alive: NDArray[np.bool_]
    pair: NDArray[np.uint64]
    negative: NDArray[np.uint64]
    set_key: NDArray[np.uint64]
    prior: NDArray[np.int8]
    firm: NDArray[np.bool_]
    barred: NDArray[np.bool_]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.alive)

    @property
    def order(self) -> NDArray[np.int64]:
        """Rows by id."""
        import numpy as np

        return np.lexsort((self.ids[:, 1], self.ids[:, 0]))

    def hex_id(self, row: int) -> str:
        """The id of a row, 32 hex digits."""
        high, low = (int(part) for part in self.ids[row])
        return f"{high:016x}{low:016x}"


def load_rows(shards: Iterable[CleanShard]) -> RowTable:
    """The table of all rows of these shards."""
    import numpy as np

    names = ("ids", "alive", "pair", "negative", "set_key", "prior")
    parts: dict[str, list[Any]] = {name: [] for name in names}
    lengths = [0]
    for shard in shards:
        with np.load(shard.keys) as data:
            for name in names:
                parts[name].append(data[name])
            lengths.append(len(data["alive"]))
    if len(lengths) == 1:
        empty, no = np.zeros(0, np.uint64), np.zeros(0, bool)
        return RowTable(
            ids=np.zeros((0, 2), np.uint64), alive=no, pair=empty, negative=empty, set_key=empty,
            prior=np.zeros(0, np.int8), firm=no, barred=no, starts=np.zeros(1, np.int64),
        )  # fmt: skip
    joined = {name: np.concatenate(parts[name]) for name in names}
    return RowTable(
        **joined,
        firm=joined["prior"] >= 0,
        barred=np.zeros(len(joined["alive"]), bool),
        starts=np.cumsum(lengths).astype(np.int64),
    )


def load_sets(shards: Iterable[CleanShard], wanted: NDArray[np.uint64]) -> Sets:
    """The sets with these keys (sorted, distinct), in the order of the keys."""
    import numpy as np

    from negbench.database.near import Sets

    shards = list(shards)
    have = np.zeros(len(wanted), bool)
    sizes = np.zeros(len(wanted), np.int64)
    picked: list[tuple[Any, Any]] = []
    for shard in shards:
        with np.load(shard.keys) as data:
            keys, offsets = data["sets_key"], data["sets_offsets"]
        if not len(wanted) or not len(keys):
            picked.append((np.zeros(0, np.int64), np.zeros(0, np.int64)))
            continue
        place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
        new = (wanted[place] == keys) & ~have[place]
        index = np.flatnonzero(new)
        have[place[index]] = True
        sizes[place[index]] = np.diff(offsets)[index]
        picked.append((index, place[index]))
    offsets_all = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    values = np.zeros(int(offsets_all[-1]), np.uint64)
    for shard, (index, place) in zip(shards, picked, strict=True):
        if not len(index):
            continue
        with np.load(shard.keys) as data:
            flat, offsets = data["sets_values"], data["sets_offsets"]
        size = np.diff(offsets)[index]
        values[_ranges(offsets_all[:-1][place], size)] = flat[_ranges(offsets[:-1][index], size)]
    return Sets(values, offsets_all)
