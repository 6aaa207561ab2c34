"""Near-duplicates against brute force."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from negbench.database.near import Sets, band_keys, clusters, exact_near
from negbench.database.shingles import normal_text, set_keys, shingle_sets, words_of


def texts(seed: int, bases: int = 120) -> list[str]:
    """Random prompts with edited copies."""
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(200)]
    found = []
    for _ in range(bases):
        words = [rng.choice(vocabulary) for _ in range(rng.randint(1, 30))]
        found.append(" ".join(words))
        for _ in range(rng.randint(0, 4)):
            copy = list(words)
            for _ in range(rng.randint(0, 2)):
                place = rng.randrange(len(copy))
                copy[place : place + rng.randint(0, 1)] = [rng.choice(vocabulary)]
            found.append(" ".join(copy))
    return sorted(set(found))


def sets_of(prompts: list[str]) -> tuple[Sets, list[set[int]]]:
    frame = pl.DataFrame({"t": prompts})
    values, offsets = shingle_sets(frame.select(words_of(pl.col("t"))).to_series())
    _, first = np.unique(set_keys(values, offsets), return_index=True)
    parts = [values[offsets[i] : offsets[i + 1]] for i in sorted(first)]
    flat = np.concatenate(parts)
    begin = np.concatenate([[0], np.cumsum([len(p) for p in parts])])
    return Sets(flat, begin.astype(np.int64)), [set(p.tolist()) for p in parts]


def near_pairs(sets: list[set[int]]) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, j in combinations(range(len(sets)), 2)
        if 5 * len(sets[i] & sets[j]) >= 4 * len(sets[i] | sets[j])
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_clusters_and_join_equal_brute_force(seed: int, tmp_path: Path) -> None:
    sets, plain = sets_of(texts(seed))
    true = near_pairs(plain)
    labels = clusters(sets, band_keys(sets, tmp_path / "bands.npy"))
    parent = list(range(len(plain)))

    def find(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j in true:
        parent[find(i)] = find(j)
    mine = {(i, j) for i, j in combinations(range(len(plain)), 2) if labels[i] == labels[j]}
    assert mine == {(i, j) for i, j in combinations(range(len(plain)), 2) if find(i) == find(j)}

    queries = np.random.default_rng(seed).random(len(plain)) < 0.3
    for partitions in (1, 3):
        found = {
            (min(a, b), max(a, b))
            for left, right in exact_near(
                sets, queries, np.arange(len(plain)), partitions=partitions
            )
            for a, b in zip(left.tolist(), right.tolist(), strict=True)
        }
        assert found == {p for p in true if queries[p[0]] or queries[p[1]]}


def test_near_by_three_shingles_is_near_by_these_sets() -> None:
    """Short texts are compared by words; that must not lose a pair that shingles would find."""
    rng = random.Random(3)
    prompts = sorted({" ".join(rng.choices("abc", k=rng.randint(1, 9))) for _ in range(400)})
    frame = pl.DataFrame({"t": prompts})
    values, offsets = shingle_sets(frame.select(words_of(pl.col("t"))).to_series())
    mine = [set(values[offsets[i] : offsets[i + 1]].tolist()) for i in range(len(prompts))]

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    theirs = [shingles(prompt) for prompt in prompts]
    for i, j in combinations(range(len(prompts)), 2):
        a, b = theirs[i], theirs[j]
        if a and b and 5 * len(a & b) >= 4 * len(a | b):
            assert 5 * len(mine[i] & mine[j]) >= 4 * len(mine[i] | mine[j]), (
                prompts[i],
                prompts[j],
            )


def test_normal_text_levels_signs_case_and_width() -> None:
    frame = pl.DataFrame({"t": ["A Cat; a dog.", "ａ ｃａｔ, A DOG!", "美丽的, x_y", ""]})
    assert frame.select(normal_text(pl.col("t"))).to_series().to_list() == [
        "a cat a dog", "a cat a dog", "美丽的 x_y", "",
    ]  # fmt: skip


def test_hashes_are_the_same_for_ever() -> None:
    """Splits depend on these numbers: they may never change."""
    frame = pl.DataFrame({"t": ["a cat", "one two three four five six"]})
    values, offsets = shingle_sets(frame.select(words_of(pl.col("t"))).to_series())
    assert offsets.tolist() == [0, 2, 6]
    assert set_keys(values, offsets).tolist() == GOLDEN


GOLDEN = [10010455988066592620, 3918494240976654779]
