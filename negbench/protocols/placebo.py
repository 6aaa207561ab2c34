"""The placebo of removal: an unrelated concept, named in the negative prompt in place of the own.

A concept also leaves a picture by chance when anything at all is changed. How often, the placebo
arm shows: the same rule with the name of something that has nothing to do with the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from negbench.errors import DataError, one_line
from negbench.protocols.case_sets import check_concepts, tagged
from negbench.types import Case, canonical_json, sha256_hex

SMALL = frozenset(
    {"a", "an", "and", "are", "at", "behind", "beside", "by", "for", "from", "her", "his", "in",
     "into", "is", "its", "near", "of", "on", "or", "over", "some", "the", "their", "to", "under",
     "with"}
)  # fmt: skip
"""Words that relate nothing."""


def choose_placebos(cases: Sequence[Case], pool: Sequence[Case]) -> dict[str, str]:
    """An unrelated concept for each case, by case id.

    Candidates are the concepts of `pool` in the case's own category, else those of any category,
    without

    - every concept that a case of the same prompt names: the prompt implies those;
    - what shares a word with the case's prompt, its concept or a word tagged ``related:``, and what
      names the case's concept as related in turn.

    Among them the one with the largest sha256 of case id and concept is taken, so that the choice
    depends neither on order nor on `limit`, and changes little when the pool grows.

    Args:
        cases: whose placebos; every one needs a concept.
        pool: cases whose concepts may be taken.

    Raises:
        ConfigError: a case has no concept.
        DataError: nothing unrelated is left for a case.
    """
    check_concepts(cases)
    offered: dict[str, list[Case]] = {}
    implied: dict[str, set[str]] = {}
    for case in pool:
        if case.concept:
            offered.setdefault(case.concept, []).append(case)
            implied.setdefault(case.prompt, set()).add(case.concept)
    return {case.id: _placebo(case, offered, implied.get(case.prompt, set())) for case in cases}


def _placebo(case: Case, offered: Mapping[str, Sequence[Case]], implied: set[str]) -> str:
    concept = str(case.concept)
    taken = _stems(" ".join([case.prompt, concept, *tagged(case, "related")]))
    unrelated = [
        other
        for other, named in offered.items()
        if other not in implied
        and not _stems(other) & taken
        and not any(
            _stems(word) & _stems(concept) for source in named for word in tagged(source, "related")
        )
    ]
    category = tagged(case, "category")
    same = [
        other
        for other in unrelated
        if any(tagged(c, "category") == category for c in offered[other])
    ]
    candidates = same or unrelated
    if not candidates:
        raise DataError(
            f"case {one_line(case.id, limit=60)!r}: no concept is unrelated to it, so there is no "
            "placebo; add cases with other concepts, or name a case_set in the benchmark's [data]"
        )
    return max(candidates, key=lambda other: _rank(case.id, other))


def _rank(case_id: str, concept: str) -> str:
    return sha256_hex(canonical_json(["negbench-placebo-concept", 1, case_id, concept]))


def _stems(text: str) -> set[str]:
    """Words without the endings of plural, past and participle: "glasses" and "glass" are one."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return {stem(word) for word in words if word not in SMALL}


def named_in(concept: str, prompt: str) -> bool:
    """Whether the prompt has every word of the concept, inflected or not."""
    words = _stems(concept)
    return bool(words) and words <= _stems(prompt)


def stem(word: str) -> str:
    """`word` without a plain English ending: glasses, cracked, snowing, rusty."""
    for ending in ("ing", "ies", "es", "ed", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
