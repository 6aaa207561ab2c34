"""Ranks with their uncertainty: what the data cannot tell apart is a tie.

Entries of a group share cases and seeds, so any two are compared pair by pair: differences of the
same case and noise, summed by prompt, tested by flipping their signs by prompt (for a set metric by
exchanging the two methods' images by prompt). Over all pairs of a column Holm's correction (Scand.
J. Statist. 6, 1979) holds the chance of any false finding at 5 %. The rank set of an entry is then

    { 1 + entries found better, ..., entries - entries found worse }

which is how Mogstad, Romano, Shaikh and Wilhelm (Rev. Econ. Stud. 91, 2024, section 3) turn tests
of all pairs into confidence sets: all true ranks of the column lie in their sets at once with a
chance of at least 95 %. A column is one family; a reader of several columns reads several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from negbench.leaderboard.entry import Entry
from negbench.leaderboard.recompute import metric_of, removal_of
from negbench.leaderboard.values import OWN_TEXT, Values
from negbench.metrics.base import SetMetric
from negbench.stats import holm, mean_summary, sign_flip
from negbench.stats.signflip import EXACT_PROMPTS, random_bits
from negbench.stats.summary import Contrast, gather

ALPHA = 0.05
DRAWS = 19_999
MOST_DRAWS = 400_000
_CHUNK = 2048

Series = list[float | None]
"""A number a sample, None where unscored."""


@dataclass(frozen=True)
class Pair:
    """Two entries of a group compared in one column.

    Attributes:
        first: path of an entry.
        second: path of another.
        contrast: first minus second, with interval and p.
        p_holm: p corrected for all pairs of the column; None where no test was possible.
    """

    first: str
    second: str
    contrast: Contrast
    p_holm: float | None


@dataclass(frozen=True)
class Ranking:
    """A column's ranks.

    Attributes:
        ranks: path -> smallest and largest rank that the data allow.
        pairs: every pair, in the order of paths.
        note: what a reader should know.
    """

    ranks: Mapping[str, tuple[int, int]]
    pairs: tuple[Pair, ...]
    note: str | None = None


Rankings = dict[tuple[int, str], Ranking]
"""Group's number in the table and column -> ranking."""


def rank(
    entries: Mapping[str, tuple[Entry, Values]], name: str, *, higher_is_better: bool
) -> Ranking | None:
    """Rank the entries of a group in one column.

    Args:
        entries: path -> entry and values; equal benchmark, generator and metrics.
        name: an estimate's name.
        higher_is_better: its direction.

    Returns:
        None where entries do not compare: the number is measured against each method's own text,
        or does not follow from a number a sample. An entry without a value has no rank.
    """
    entries = {path: pair for path, pair in entries.items() if _has_value(pair[0], name)}
    paths = sorted(entries)
    if len(paths) < 2:
        return None
    compare = _comparison(entries, name)
    if compare is None:
        return None
    couples = [(a, b) for i, a in enumerate(paths) for b in paths[i + 1 :]]
    draws = min(MOST_DRAWS, max(DRAWS, math.ceil(20 * len(couples) / ALPHA)))
    contrasts = compare(couples, draws)
    adjusted = holm([contrast.p for contrast in contrasts])
    pairs = tuple(
        Pair(a, b, contrast, p)
        for (a, b), contrast, p in zip(couples, contrasts, adjusted, strict=True)
    )
    note = None
    if len(couples) / (draws + 1) > ALPHA:
        note = "too many entries for this test to tell any two apart"
    return Ranking(rank_sets(paths, pairs, higher_is_better=higher_is_better), pairs, note)


def _has_value(entry: Entry, name: str) -> bool:
    return any(e.metric == name and e.value is not None for e in entry.estimates)


def rank_sets(
    paths: Sequence[str], pairs: Sequence[Pair], *, higher_is_better: bool
) -> dict[str, tuple[int, int]]:
    """Smallest and largest rank of each entry, from corrected tests of all pairs."""
    better = dict.fromkeys(paths, 0)
    worse = dict.fromkeys(paths, 0)
    for pair in pairs:
        delta, p = pair.contrast.delta, pair.p_holm
        if p is None or delta is None or p > ALPHA or delta == 0:
            continue
        first_wins = (delta > 0) == higher_is_better
        winner, loser = (pair.first, pair.second) if first_wins else (pair.second, pair.first)
        better[loser] += 1
        worse[winner] += 1
    return {path: (1 + better[path], len(paths) - worse[path]) for path in paths}


Comparison = Callable[[Sequence[tuple[str, str]], int], list[Contrast]]


def _comparison(entries: Mapping[str, tuple[Entry, Values]], name: str) -> Comparison | None:
    """How pairs are compared in a column, or None if they are not."""
    if name in OWN_TEXT:
        return None
    entry, values = next(iter(entries.values()))
    prompts = values.clusters_as_text()
    facts = entry.metrics.get(name)
    if facts is not None and facts.kind == "set":
        metric = metric_of(name, facts)
        if not isinstance(metric, SetMetric):
            return None
        return lambda couples, draws: [
            _set_contrast(metric, entries[a][1].rows["treated", name],
                          entries[b][1].rows["treated", name], prompts, draws)
            for a, b in couples
        ]  # fmt: skip
    series = {path: series_of(*pair, name) for path, pair in entries.items()}
    if any(found is None for found in series.values()):
        return None

    def compare(couples: Sequence[tuple[str, str]], draws: int) -> list[Contrast]:
        known = {path: found for path, found in series.items() if found is not None}
        return paired_contrasts([(known[a], known[b]) for a, b in couples], prompts, draws=draws)

    return compare


def _set_contrast(
    metric: SetMetric,
    first: npt.NDArray[np.float32],
    second: npt.NDArray[np.float32],
    prompts: Sequence[str],
    draws: int,
) -> Contrast:
    from negbench.metrics.inception import InceptionScore
    from negbench.stats import inception_contrast

    if isinstance(metric, InceptionScore):
        return inception_contrast(first, second, prompts, draws=draws)
    return metric.contrast(first, second, prompts)


def series_of(entry: Entry, values: Values, name: str) -> Series | None:
    """The number a sample whose mean an estimate is, or None if there is no such number."""
    if ("treated", name) in values.scores:
        return values.numbers(name)
    spec = removal_of(entry.plan)
    if spec is None or "presence" not in entry.metrics:
        return None

    def present(side: str) -> list[bool | None]:
        return [None if v is None else v > spec.threshold for v in values.numbers("presence", side)]

    def where(twin_shows: bool, side: str) -> Series:  # noqa: FBT001
        found = zip(present("twin"), present(side), strict=True)
        return [float(not p) if t is twin_shows and p is not None else None for t, p in found]

    def minus(first: Series, second: Series) -> Series:
        pairs = zip(first, second, strict=True)
        return [None if a is None or b is None else a - b for a, b in pairs]

    if name == "rsr":
        return where(True, "treated")
    if name == "net_removal":
        return minus(where(True, "treated"), where(True, "placebo"))
    if name == "reverse_activation":
        return [None if v is None else 1.0 - v for v in where(False, "treated")]
    if name == "alignment_lost" and "clip_alignment" in entry.metrics:
        return minus(*(values.numbers("clip_alignment", side) for side in ("twin", "treated")))
    return None


def paired_contrasts(
    couples: Sequence[tuple[Series, Series]], prompts: Sequence[str], *, draws: int = DRAWS
) -> list[Contrast]:
    """`negbench.stats.paired_contrast` of many couples, their signs flipped together.

    Each test is the one of `negbench.stats.sign_flip`, exact up to 16 prompts with a difference;
    beyond that all couples see the same random flips, so that many cost little more than one.

    Args:
        couples: series over the same samples.
        prompts: the prompt of each sample.
        draws: random flips.
    """
    number = {prompt: at for at, prompt in enumerate(sorted(set(prompts)))}
    totals = np.zeros((len(number), len(couples)))
    summaries = []
    for at, (first, second) in enumerate(couples):
        pairs = zip(first, second, strict=True)
        differences = [None if a is None or b is None else a - b for a, b in pairs]
        summaries.append(mean_summary(differences, prompts))
        found = gather(differences, prompts)
        for prompt, total in zip(found.prompts, found.totals, strict=True):
            totals[number[prompt], at] = total
    tested = sign_flips(totals, draws=draws)
    return [
        Contrast(
            delta=s.value,
            ci95=s.ci95,
            p=p if s.n_prompts > 1 and s.value is not None else None,
            n=s.n_scored,
            n_dropped=s.n_unscored,
            n_prompts=s.n_prompts,
            note=s.note,
        )
        for s, p in zip(summaries, tested, strict=True)
    ]


def sign_flips(totals: npt.NDArray[np.float64], *, draws: int, seed: int = 0) -> list[float]:
    """Two-sided sign-flip p of each column of `totals`, (prompts, columns).

    Args:
        totals: sum of the differences of each prompt; 0 where a prompt has none.
        draws: random flips for columns with more than 16 prompts that differ.
        seed: of the flips.
    """
    moved = (totals != 0).sum(axis=0)
    p = [sign_flip(totals[:, at])[0] if moved[at] <= EXACT_PROMPTS else math.nan
         for at in range(totals.shape[1])]  # fmt: skip
    open_ = [at for at, value in enumerate(p) if math.isnan(value)]
    if not open_:
        return p
    t = totals[:, open_]
    t = t / np.abs(t).max(axis=0)
    whole = t.sum(axis=0)
    limit = np.abs(whole) - 1e-12 * np.abs(t).sum(axis=0)
    rng = np.random.default_rng(seed)
    extreme = np.zeros(len(open_), dtype=np.int64)
    for start in range(0, draws, _CHUNK):
        flips = random_bits(rng, min(_CHUNK, draws - start), len(t))
        extreme += (np.abs(whole - 2.0 * (flips @ t)) >= limit).sum(axis=0)
    for at, count in zip(open_, extreme, strict=True):
        p[at] = float((count + 1) / (draws + 1))
    return p
