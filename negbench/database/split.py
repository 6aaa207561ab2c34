"""Which row goes where: duplicates, clusters, splits that leak nothing and stay fixed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.database.near import Sets, band_keys, clusters, exact_near
from negbench.database.rows import SPLITS, CleanShard, RowTable, load_sets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TRAIN, VALIDATION, TEST, EXCLUDED = 0, 1, 2, 3
RULE = "negbench-split/1"

DUPLICATE = "exact duplicate"
AGAIN = "the same record was read before"
FROZEN = "near a row of the frozen validation or test split"
LEAK = "near a row of another split"
CAPPED = "negative prompt shared by too many rows of the split"


@dataclass(frozen=True)
class SplitRules:
    """The numbers of the split rule.

    Attributes:
        train: share of clusters that go to training; the rest is halved.
        large: clusters with more than this share of the rows go to training.
        cap_share: share of a split's rows that may have one negative prompt (evaluation splits).
        cap_rows: rows that may have it in any case.
        grow: new rows may join validation and test (a new version of the evaluation lists).
    """

    train: float = 0.8
    large: float = 0.005
    cap_share: float = 0.01
    cap_rows: int = 10
    grow: bool = True


@dataclass
class Decision:
    """Where each row goes.

    Attributes:
        split: 0 train, 1 validation, 2 test, 3 excluded (here or by cleaning), -1 = the row is in
            the previous data set and the row from there stands for it.
        reason: number of a reason in `reasons` for rows excluded here, -1 for others.
        near: row that an excluded row repeats or comes near, -1 = none.
        cluster: key of each kept row's cluster.
        same_negative: kept rows with the row's negative prompt.
        reasons: texts of the reasons.
        clusters: number of clusters of kept rows.
    """

    split: NDArray[np.int8]
    reason: NDArray[np.int8]
    near: NDArray[np.int64]
    cluster: NDArray[np.uint64]
    same_negative: NDArray[np.int64]
    reasons: tuple[str, ...] = (AGAIN, DUPLICATE, FROZEN, LEAK, CAPPED)
    clusters: int = 0
    large_clusters: int = 0


def split_of(key: int, rules: SplitRules) -> int:
    """Split of a cluster by its key, the smallest key of its sets; a function of texts alone."""
    digest = hashlib.sha256(f"{RULE} {key:016x}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < rules.train:
        return TRAIN
    return VALIDATION if place < rules.train + (1 - rules.train) / 2 else TEST


def decide(rows: RowTable, shards: list[CleanShard], rules: SplitRules, folder: Path) -> Decision:
    """Exact duplicates, clusters, splits, the exact join, and the cap, in this order."""
    import numpy as np

    n = len(rows)
    decision = Decision(
        split=np.where(rows.alive, TRAIN, EXCLUDED).astype(np.int8),
        reason=np.full(n, -1, np.int8),
        near=np.full(n, -1, np.int64),
        cluster=np.zeros(n, np.uint64),
        same_negative=np.zeros(n, np.int64),
    )
    _exact(rows, decision)
    kept = np.flatnonzero((decision.split == TRAIN) & rows.alive)
    wanted = np.unique(rows.set_key[kept])
    sets = load_sets(shards, wanted)
    path = folder / "bands.npy"
    labels = clusters(sets, band_keys(sets, path))
    path.unlink(missing_ok=True)
    set_of = np.searchsorted(wanted, rows.set_key)
    _assign(rows, decision, rules, kept, wanted, set_of, labels)
    _join(rows, decision, sets, set_of)
    _cap(rows, decision, rules)
    _count(rows, decision)
    return decision


def _exact(rows: RowTable, decision: Decision) -> None:
    """Rows of the previous data set first, then the smallest id, stand for all that equal them."""
    import numpy as np

    old = rows.firm
    place = np.lexsort((~old, rows.ids[:, 1], rows.ids[:, 0]))
    ids = rows.ids[place]
    again = np.zeros(len(ids), bool)
    again[1:] = (ids[1:] == ids[:-1]).all(axis=1)
    first = _heads(place, again)
    of_old = again & old[first]
    decision.split[place[of_old]] = -1
    twice = again & ~old[first] & rows.alive[place] & rows.alive[first]
    _exclude(decision, place[twice], 0, first[twice])

    kept = np.flatnonzero(rows.alive & (decision.split == TRAIN))
    order = kept[np.lexsort((rows.ids[kept, 1], rows.ids[kept, 0], ~old[kept], rows.pair[kept]))]
    pair = rows.pair[order]
    same = np.zeros(len(pair), bool)
    same[1:] = pair[1:] == pair[:-1]
    first = _heads(order, same)
    double = same & ~old[order]
    _exclude(decision, order[double], 1, first[double])


def _heads(order: NDArray[Any], same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each place in `order`, the row that begins its run of equals."""
    import numpy as np

    starts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    heads: NDArray[np.int64] = order[starts]
    return heads


def _exclude(decision: Decision, which: NDArray[Any], reason: int, near: Any) -> None:
    decision.split[which] = EXCLUDED
    decision.reason[which] = reason
    decision.near[which] = near


def _assign(
    rows: RowTable,
    decision: Decision,
    rules: SplitRules,
    kept: NDArray[np.int64],
    wanted: NDArray[np.uint64],
    set_of: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> None:
    """Give each cluster a split; earlier rows keep theirs, whatever the cluster."""
    import numpy as np

    if not len(kept):
        return
    _, label = np.unique(labels, return_inverse=True)
    number = int(label.max()) + 1
    key = np.full(number, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(key, label, wanted)
    row_label = label[set_of[kept]]
    size = np.bincount(row_label, minlength=number)
    large = size > max(1.0, rules.large * len(kept))
    prior = rows.prior[kept]
    seen = np.zeros((number, 3), bool)
    old = prior >= 0
    seen[row_label[old], prior[old]] = True
    by_hash = np.array([split_of(int(k), rules) for k in key], np.int8)
    by_hash[large] = TRAIN
    if not rules.grow:
        by_hash[:] = TRAIN
    one = seen.sum(axis=1) == 1
    chosen = np.where(one, seen.argmax(axis=1), by_hash).astype(np.int8)
    chosen[seen.sum(axis=1) > 1] = EXCLUDED
    if not rules.grow:
        chosen[seen[:, VALIDATION] | seen[:, TEST]] = EXCLUDED
    split = np.where(old, prior, chosen[row_label]).astype(np.int8)
    decision.split[kept] = split
    decision.cluster[kept] = key[row_label]
    lost = kept[split == EXCLUDED]
    if len(lost):
        head = np.full(number, -1, np.int64)
        olds = kept[old]
        evaluation = olds[rows.prior[olds] != TRAIN]
        head[label[set_of[olds]]] = olds
        head[label[set_of[evaluation]]] = evaluation
        _exclude(decision, lost, 2, head[label[set_of[lost]]])
    decision.clusters = number
    decision.large_clusters = int(large.sum())


def _join(rows: RowTable, decision: Decision, sets: Sets, set_of: NDArray[np.int64]) -> None:
    """Exclude rows that come near a row of another split, by an exact set-similarity join.

    Earlier rows are never excluded. Of two new rows the one of the smaller claim goes: training
    before validation before test.
    """
    import numpy as np

    kept = np.flatnonzero((decision.split >= 0) & (decision.split < EXCLUDED))
    if not len(kept):
        return
    n = len(sets)
    index = set_of[kept]
    split = np.full(n, -1, np.int64)
    split[index] = decision.split[kept]
    old = np.zeros(n, bool)
    old[index[rows.firm[kept]]] = True
    head = np.full(n, -1, np.int64)
    by_id = kept[np.lexsort((rows.ids[kept, 1], rows.ids[kept, 0]))][::-1]
    head[set_of[by_id]] = by_id
    loser = np.full(n, -1, np.int64)
    groups = np.where(split < 0, -np.arange(n) - 10, split)
    queries = (split == VALIDATION) | (split == TEST)
    for asking, met in exact_near(sets, queries, groups):
        live = (split[asking] >= 0) & (split[met] >= 0)
        left, right = asking[live], met[live]
        claim_left = old[left] * 10 + split[left]
        claim_right = old[right] * 10 + split[right]
        goes = np.where(claim_left < claim_right, left, right)
        stays = np.where(claim_left < claim_right, right, left)
        # the smallest neighbor is named, whatever the order pairs come in
        order = np.lexsort((stays, goes))[::-1]
        known = loser[goes[order]]
        best = np.where(known < 0, stays[order], np.minimum(known, stays[order]))
        loser[goes[order]] = best
    lost = kept[(loser[index] >= 0) & ~rows.firm[kept]]
    _exclude(decision, lost, 3, head[loser[set_of[lost]]])


def _cap(rows: RowTable, decision: Decision, rules: SplitRules) -> None:
    """At most so many rows of validation, and of test, share one negative prompt."""
    import numpy as np

    barred = rows.barred & (decision.split >= 0) & (decision.split < EXCLUDED)
    _exclude(decision, np.flatnonzero(barred), 4, -1)
    for split in (VALIDATION, TEST):
        chosen = np.flatnonzero(decision.split == split)
        if not len(chosen):
            continue
        bound = max(rules.cap_rows, int(rules.cap_share * len(chosen)))
        new = ~rows.firm[chosen]
        order = chosen[
            np.lexsort((rows.ids[chosen, 1], rows.ids[chosen, 0], new, rows.negative[chosen]))
        ]
        negative = rows.negative[order]
        same = np.concatenate([[False], negative[1:] == negative[:-1]])
        begin = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        rank = np.arange(len(order)) - begin
        over = order[(rank >= bound) & ~rows.firm[order]]
        _exclude(decision, over, 4, -1)


def _count(rows: RowTable, decision: Decision) -> None:
    import numpy as np

    kept = np.flatnonzero((decision.split >= 0) & (decision.split < EXCLUDED))
    if not len(kept):
        return
    _, inverse, counts = np.unique(rows.negative[kept], return_inverse=True, return_counts=True)
    decision.same_negative[kept] = counts[inverse]
    decision.clusters = len(np.unique(decision.cluster[kept]))


def describe(rules: SplitRules) -> dict[str, Any]:
    """The split rule as the manifest tells it."""
    from negbench.database import near
    from negbench.database.shingles import SHINGLE, SHORT

    return {
        "name": RULE,
        "text": "NFKC, lower case, words",
        "sets": f"word {SHINGLE}-shingles; words for texts of fewer than {SHORT} words",
        "near": f"Jaccard >= {near.THRESHOLD[0]}/{near.THRESHOLD[1]}",
        "minhash": {"library": "rensa", "permutations": near.PERMUTATIONS, "bands": near.BANDS,
                    "rows": near.ROWS, "seed": near.MINHASH_SEED},
        "cluster": "connected components of verified pairs",
        "assignment": "sha256 of the smallest set key of the cluster",
        "shares": dict(zip(SPLITS, (rules.train, (1 - rules.train) / 2, (1 - rules.train) / 2),
                           strict=True)),
        "large_cluster_share": rules.large,
        "cap_same_negative": {"share": rules.cap_share, "rows": rules.cap_rows},
        "exact_join": "validation and test against everything, prefix filtering",
    }  # fmt: skip
