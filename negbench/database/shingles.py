"""Texts to sets of hashes: words, word 3-shingles, and the two rules for short texts.

A set is stored flat: all hashes in one array, and where each text's begin (CSR).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

SHINGLE = 3
SHORT = 5
"""Texts below this many words are compared by their words, not by shingles."""
WORDS = r"[\p{L}\p{M}\p{N}_]+"
"""A word: a run of letters, digits and underscores, in any script."""
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def normal_text(column: pl.Expr) -> pl.Expr:
    """The form in which texts are compared: NFKC, lower case, words with single spaces.

    Signs between words are left out, so that ``a cat, a dog`` and ``A cat; a dog.`` are equal.
    """
    return words_of(column).list.join(" ")


def words_of(column: pl.Expr) -> pl.Expr:
    """Words of a text column, as a list column."""
    return column.str.normalize("NFKC").str.to_lowercase().str.extract_all(WORDS)


def hash_text(texts: list[str]) -> NDArray[np.uint64]:
    """64-bit hashes of texts, the same on every machine and version (blake2b)."""
    import numpy as np

    blake = hashlib.blake2b
    joined = b"".join(blake(text.encode("utf-8"), digest_size=8).digest() for text in texts)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)


def shingle_sets(words: pl.Series) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Sets of hashes of a list-of-words column.

    Returns:
        Flat hashes, sorted and unique within each text, and offsets of length n + 1.
        Texts of `SHORT` words or more give their word 3-shingles. Shorter ones, and those that
        repeat themselves so much that they have fewer than three shingles, give their words.
        Near by shingles is then near by these sets too, for texts of any length.
    """
    import numpy as np

    lengths = words.list.len().to_numpy().astype(np.int64)
    flat = words.explode(empty_as_null=False) if lengths.sum() else words.explode()
    flat = flat.drop_nulls()
    starts = np.concatenate([[0], np.cumsum(lengths)])
    coded = flat.rank("dense").to_numpy().astype(np.int64) - 1 if len(flat) else np.zeros(0, int)
    vocabulary = flat.unique().sort().to_list() if len(flat) else []
    word_hashes = hash_text(vocabulary)[coded] if vocabulary else np.zeros(0, np.uint64)

    is_long = lengths >= SHORT
    values, offsets = _sets(word_hashes, starts, is_long)
    poor = is_long & (np.diff(offsets) < 3)
    if poor.any():
        values, offsets = _sets(word_hashes, starts, is_long & ~poor)
    return values, offsets


def _sets(
    word_hashes: NDArray[np.uint64], starts: NDArray[np.int64], is_long: NDArray[np.bool_]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Shingles of the texts marked long, words of the others."""
    import numpy as np

    lengths = np.diff(starts)
    n = len(lengths)
    counts = np.where(is_long, lengths - (SHINGLE - 1), lengths)
    owner = np.repeat(np.arange(n), counts)
    begin = np.concatenate([[0], np.cumsum(counts)])
    place = starts[:-1][owner] + (np.arange(begin[-1]) - begin[:-1][owner])
    with np.errstate(over="ignore"):
        values = _mix(word_hashes[place] if len(place) else np.zeros(0, np.uint64))
        rows = is_long[owner]
        inner = place[rows]
        values[rows] = combine([word_hashes[inner], word_hashes[inner + 1], word_hashes[inner + 2]])
    return unique_sets(values, owner, n)


def combine(parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """One hash of several in order (a polynomial over 2**64, mixed by splitmix64)."""
    import numpy as np

    with np.errstate(over="ignore"):
        value = np.zeros_like(parts[0])
        for part in parts:
            value = _mix(value * np.uint64(_MIX[0]) + part + np.uint64(_MIX[0]))
    return value


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer (Steele, Lea and Flood 2014)."""
    import numpy as np

    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * np.uint64(_MIX[1])
        value = (value ^ (value >> np.uint64(27))) * np.uint64(_MIX[2])
        return value ^ (value >> np.uint64(31))


def unique_sets(
    values: NDArray[np.uint64], owner: NDArray[Any], n: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Values sorted and without repeats within each owner, and offsets."""
    import numpy as np

    order = np.lexsort((values, owner))
    values, owner = values[order], owner[order]
    if len(values):
        keep = np.ones(len(values), bool)
        keep[1:] = (values[1:] != values[:-1]) | (owner[1:] != owner[:-1])
        values, owner = values[keep], owner[keep]
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=n), out=offsets[1:])
    return values, offsets


def set_keys(values: NDArray[np.uint64], offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One hash of each whole set; equal sets have equal keys."""
    import numpy as np

    sizes = np.diff(offsets)
    with np.errstate(over="ignore"):
        mixed = _mix(values + np.uint64(_MIX[0]))
        sums = np.concatenate([[np.uint64(0)], np.cumsum(mixed, dtype=np.uint64)])
        total = sums[offsets[1:]] - sums[offsets[:-1]]
        return _mix(total + sizes.astype(np.uint64) * np.uint64(_MIX[2]))
