"""Negative prompts as texts: taken apart into tags, compared, tidied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from negbench.errors import MissingError
from negbench.methods.base import Method, Pair
from negbench.types import Case, Negative, Treatment

MAX_WRITTEN = 1_000
"""Longest text, in characters, that a method which makes up its text may write."""


def treatment(case: Case, negative: str) -> Treatment:
    """The case's own prompt with one negative prompt; with none if the text is blank."""
    text = negative.strip()
    return Treatment(prompt=case.prompt, negatives=(Negative(text=text),) if text else ())


def tags_of(text: str) -> list[str]:
    """The tags of a prompt, lower case and without weights, each once, in order."""
    from negbench.database.tags import parse_tags

    return list(dict.fromkeys(tag.text for tag in parse_tags(text).tags if tag.text))


def joined(tags: Iterable[str]) -> str:
    """Tags as one comma separated text, cut at a whole tag where it would grow too long."""
    text = ""
    for tag in tags:
        longer = f"{text}, {tag}" if text else tag
        if len(longer) > MAX_WRITTEN:
            break
        text = longer
    return text


def tidied(text: str) -> str:
    """A written negative prompt with each tag once, spelled as it was first, and bounded length."""
    seen: dict[str, str] = {}
    for piece in re.split(r"[,\n]", text):
        tag = " ".join(piece.split())
        if tag.strip(" .;:"):
            seen.setdefault(tag.casefold(), tag[:MAX_WRITTEN])
    return joined(seen.values())


def training_pairs(method: Method, *, name: str) -> Sequence[Pair]:
    """The training pairs of a method that needs them.

    Raises:
        MissingError: the benchmark's data set has none.
    """
    pairs = method.training.pairs() if method.training is not None else ()
    kept = [pair for pair in pairs if pair.negative.strip()]
    if not kept:
        raise MissingError(
            f"method {name} learns from a training split, and there is none here; choose a "
            "benchmark or a --db that has one"
        )
    return kept
