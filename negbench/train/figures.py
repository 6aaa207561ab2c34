"""How well written negatives match those that people wrote for the same prompts."""

from __future__ import annotations

from collections.abc import Sequence

from negbench.methods.texts import tags_of


def tag_figures(written: Sequence[str], human: Sequence[str]) -> dict[str, float]:
    """Tag-level precision, recall and F1, and exact match.

    Tags are compared in lower case and without weights; sums over all pairs are divided (micro
    averages). A pair matches exactly if both sets of tags are equal.

    Args:
        written: negatives of a model.
        human: a person's negative for the same prompt, one a text of `written`.

    Returns:
        ``precision``, ``recall``, ``f1`` and ``exact``, each in [0, 1], and ``n``, the pairs.
    """
    both = said = meant = exact = 0
    for ours, theirs in zip(written, human, strict=True):
        first, second = set(tags_of(ours)), set(tags_of(theirs))
        both += len(first & second)
        said += len(first)
        meant += len(second)
        exact += first == second
    precision, recall = both / max(said, 1), both / max(meant, 1)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if both else 0.0,
        "exact": exact / max(len(written), 1),
        "n": float(len(written)),
    }
