"""Near-duplicates: MinHash to find them, exact Jaccard to be sure, an exact join for evaluation.

Sets come flat (values, offsets) and distinct: equal sets are one set here. All results depend on
the sets alone, not on their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

PERMUTATIONS = 256
BANDS, ROWS = 42, 6
"""42 bands of 6 rows find a pair of Jaccard 0.8 with probability 1 - (1 - 0.8**6)**42 > 0.99999."""
THRESHOLD = (4, 5)
"""Near means a Jaccard index of at least 4/5, compared in whole numbers."""
MINHASH_SEED = 20240617
ROUNDS = 6
"""Rounds of pivots tried in one bucket; what is left over is found by other bands or the join."""
CHUNK = 200_000


@dataclass
class Sets:
    """Distinct sets of 64-bit hashes, flat, sorted within each set.

    Attributes:
        values: all hashes.
        offsets: where each set begins; length n + 1.
    """

    values: NDArray[np.uint64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of hashes of each set."""
        import numpy as np

        sizes: NDArray[np.int64] = np.diff(self.offsets)
        return sizes

    def series(self) -> pl.Series:
        """The sets as a polars list column, without a copy of the values."""
        import polars as pl
        import pyarrow as pa

        array = pa.LargeListArray.from_arrays(pa.array(self.offsets), pa.array(self.values))
        series = pl.from_arrow(array)
        assert isinstance(series, pl.Series)
        return series

    def near(self, left: NDArray[Any], right: NDArray[Any], series: pl.Series) -> NDArray[np.bool_]:
        """Whether each pair of sets has a Jaccard index of at least `THRESHOLD`."""
        import numpy as np
        import polars as pl

        sizes = self.sizes
        a, b = sizes[left], sizes[right]
        top, bottom = THRESHOLD
        possible = bottom * np.minimum(a, b) >= top * np.maximum(a, b)
        result = np.zeros(len(left), bool)
        places = np.flatnonzero(possible)
        for start in range(0, len(places), CHUNK):
            part = places[start : start + CHUNK]
            frame = pl.DataFrame({"a": series.gather(left[part]), "b": series.gather(right[part])})
            common = (
                frame.select(pl.col("a").list.set_intersection("b").list.len())
                .to_series().to_numpy().astype(np.int64)
            )  # fmt: skip
            # |a & b| / |a | b| >= top / bottom, in whole numbers
            result[part] = bottom * common >= top * (a[part] + b[part] - common)
        return result


def band_keys(sets: Sets, path: Path) -> NDArray[np.uint64]:
    """MinHash signatures (rensa, 256 permutations) folded into one key a band, kept on disk.

    Returns:
        A memory map of shape (`BANDS`, n).
    """
    import numpy as np
    import rensa

    from negbench.database.shingles import combine

    n = len(sets)
    keys = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint64, shape=(BANDS, max(n, 1)))
    step = 16_384
    for start in range(0, n, step):
        stop = min(start + step, n)
        first, last = int(sets.offsets[start]), int(sets.offsets[stop])
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            np.ascontiguousarray(sets.values[first:last]),
            (sets.offsets[start : stop + 1] - first).astype(np.uint64),
            PERMUTATIONS,
            MINHASH_SEED,
        )
        digests = _matrix(matrix, stop - start)
        for band in range(BANDS):
            columns = [digests[:, band * ROWS + row].astype(np.uint64) for row in range(ROWS)]
            keys[band, start:stop] = combine(columns)
    return keys


def _matrix(matrix: Any, rows: int) -> NDArray[np.uint32]:
    """Rensa's digest matrix as an array of shape (rows, PERMUTATIONS)."""
    import numpy as np

    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(rows, PERMUTATIONS)


def clusters(sets: Sets, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Connected components of near pairs found by the bands.

    Returns:
        For each set, the number of its cluster.
    """
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(sets)
    labels = np.arange(n, dtype=np.int64)
    if n < 2:
        return labels
    series = sets.series()
    for band in range(BANDS):
        left, right = _band_edges(sets, series, np.asarray(keys[band, :n]), labels)
        if not len(left):
            continue
        graph = coo_matrix(
            (np.ones(len(left), np.int8), (labels[left], labels[right])), shape=(n, n)
        )
        _, merged = connected_components(graph, directed=False)
        labels = merged[labels].astype(np.int64)
    return labels


def _band_edges(
    sets: Sets, series: pl.Series, keys: NDArray[np.uint64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Verified near pairs of one band: every member of a bucket against a few pivots."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    same = sorted_keys[1:] == sorted_keys[:-1]
    grouped = np.concatenate([[False], same]) | np.concatenate([same, [False]])
    members = order[grouped]
    buckets = np.cumsum(np.concatenate([[True], ~same]))[grouped]
    lefts: list[NDArray[np.int64]] = []
    rights: list[NDArray[np.int64]] = []
    for _ in range(ROUNDS):
        if len(members) < 2:
            break
        first = np.concatenate([[True], buckets[1:] != buckets[:-1]])
        pivot = members[np.maximum.accumulate(np.where(first, np.arange(len(members)), 0))]
        open_ = ~first & (labels[pivot] != labels[members])
        near = np.zeros(len(members), bool)
        near[open_] = sets.near(pivot[open_], members[open_], series)
        if near.any():
            lefts.append(pivot[near])
            rights.append(members[near])
        rest = open_ & ~near
        members, buckets = members[rest], buckets[rest]
    if not lefts:
        none = np.zeros(0, np.int64)
        return none, none
    return np.concatenate(lefts), np.concatenate(rights)


def exact_near(
    sets: Sets, queries: NDArray[np.bool_], groups: NDArray[np.int64], *, partitions: int = 0
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All near pairs of a query with any set of another group; none is missed.

    Prefix filtering (Chaudhuri, Ganti and Kaushik 2006): with hashes in one order, two sets of
    Jaccard t or more share a hash among the first ``n - ceil(t * n) + 1`` of each. The order is
    rarest first, by counts in 2**22 cells, so that prefixes seldom meet.

    Args:
        sets: distinct sets.
        queries: which sets to search for (validation and test).
        groups: pairs within one group are left out (they share a split).
        partitions: parts of the hash space to work through; 0 = by size.

    Yields:
        Arrays of queries and of the sets near them.
    """
    import numpy as np
    import polars as pl

    n = len(sets)
    if n < 2 or not queries.any():
        return
    tokens, owners = _prefixes(sets)
    partitions = partitions or max(1, len(tokens) // 4_000_000)
    series = sets.series()
    sizes = sets.sizes
    part_of = (tokens >> np.uint64(40)) % np.uint64(partitions)
    top, bottom = THRESHOLD
    for part in range(partitions):
        chosen = part_of == np.uint64(part)
        token, owner = tokens[chosen], owners[chosen]
        order = np.argsort(token, kind="stable")
        token, owner = token[order], owner[order]
        asked = queries[owner]
        starts = np.searchsorted(token, token[asked], side="left")
        stops = np.searchsorted(token, token[asked], side="right")
        who = owner[asked]
        counts = stops - starts
        for asking, met in _expand(who, starts, counts, owner):
            keep = groups[asking] != groups[met]
            keep &= ~queries[met] | (asking < met)
            a, b = sizes[asking], sizes[met]
            keep &= bottom * np.minimum(a, b) >= top * np.maximum(a, b)
            pairs = pl.DataFrame({"l": asking[keep], "r": met[keep]}).unique(maintain_order=True)
            left, right = pairs["l"].to_numpy(), pairs["r"].to_numpy()
            near = sets.near(left, right, series)
            if near.any():
                yield left[near], right[near]


def _expand(
    who: NDArray[Any], starts: NDArray[Any], counts: NDArray[Any], owner: NDArray[Any]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of each asking set with its bucket, at most some millions at a time."""
    import numpy as np

    bound = 4_000_000
    total = np.cumsum(counts)
    first = 0
    while first < len(who):
        base = total[first - 1] if first else 0
        last = int(np.searchsorted(total, base + bound, side="right"))
        last = max(last, first + 1)
        size = counts[first:last]
        left = np.repeat(who[first:last], size)
        inner = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        right = owner[np.repeat(starts[first:last], size) + inner]
        yield left.astype(np.int64), right.astype(np.int64)
        first = last


def _prefixes(sets: Sets) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Prefix hashes of all sets of 5 or more (smaller ones are near only to themselves)."""
    import numpy as np

    cells = np.uint64(2**22 - 1)
    counts = np.zeros(2**22, np.int32)
    step = 2_000_000
    for start in range(0, len(sets.values), step):
        part = (sets.values[start : start + step] & cells).astype(np.int64)
        counts += np.bincount(part, minlength=2**22).astype(np.int32)
    top, bottom = THRESHOLD
    found: list[NDArray[np.uint64]] = []
    owners: list[NDArray[np.int32]] = []
    n = len(sets)
    chunk = 100_000
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        first = int(sets.offsets[start])
        values = sets.values[first : int(sets.offsets[stop])]
        sizes = sets.sizes[start:stop]
        owner = np.repeat(np.arange(stop - start), sizes)
        rarity = counts[(values & cells).astype(np.int64)]
        order = np.lexsort((values, rarity, owner))
        place = np.arange(len(values)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        length = sizes - -(-top * sizes // bottom) + 1
        length = np.where(sizes >= 4, length, 0)
        kept = place < length[owner]
        found.append(values[order][kept])
        owners.append((owner[kept] + start).astype(np.int32))
    return np.concatenate(found), np.concatenate(owners)
