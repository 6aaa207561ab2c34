"""Texts longer than a CLIP's context, cut into windows that fit.

torchmetrics' CLIPScore cuts the token ids at the context length and so loses the end token that the
text tower pools at; open_clip keeps the end token and drops everything before it that did not fit.
Here nothing is dropped: a text is cut where people separate their words (commas and sentence ends,
then blanks, then anywhere), each window is a text of its own with start and end tokens, and the
text's embedding is the mean of the windows' unit vectors weighted by their numbers of tokens, at
unit length again. A text that fits is one window, and its embedding is the model's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Count = Callable[[str], int]
"""Number of tokens of a text, start and end tokens not counted."""

MAX_RUN = 256
"""Longest run without a blank that is read as it is: byte-pair encoding takes quadratic time."""

_SEGMENTS = re.compile(r"(?<=[,;|\n])(?![,;|\n])|(?<=[.!?:])(?=\s)")
_WORDS = re.compile(r"\s*\S+\s*")
_RUN = re.compile(rf"(\S{{{MAX_RUN}}})(?=\S)")


def break_runs(text: str) -> str:
    """`text` with a blank after every `MAX_RUN` characters of a run that has none."""
    return _RUN.sub(r"\1 ", text)


def windows(text: str, *, count: Count, capacity: int) -> list[tuple[str, int]]:
    """Cut `text` into windows of at most `capacity` tokens.

    Args:
        text: any text; no token of it is dropped.
        count: the tokenizer's number of tokens of a text.
        capacity: the context length less the start and end tokens, at least 1.

    Returns:
        Each window with its number of tokens; one window, the text itself, if it fits. Windows
        without any token are left out, unless the text has none at all.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    text = break_runs(text)
    total = count(text)
    if total <= capacity:
        return [(text, total)]

    def by_characters(piece: str) -> list[str]:
        if count(piece) <= capacity or len(piece) < 2:
            return [piece]
        middle = len(piece) // 2
        return [*by_characters(piece[:middle]), *by_characters(piece[middle:])]

    def by_words(piece: str) -> list[str]:
        return _pack(_WORDS.findall(piece), count, capacity, finer=by_characters)

    cut: list[tuple[str, int]] = []
    for window in _pack(_SEGMENTS.split(text), count, capacity, finer=by_words):
        # Tokens of neighbouring pieces may join or part where the pieces meet.
        whole = count(window) <= capacity
        cut += [(part, count(part)) for part in ([window] if whole else by_characters(window))]
    return [(window, size) for window, size in cut if size > 0] or [(text, total)]


def _pack(
    pieces: Iterable[str], count: Count, capacity: int, *, finer: Callable[[str], list[str]]
) -> list[str]:
    """Join neighbouring pieces while they fit; a piece too long on its own is cut by `finer`."""
    packed: list[str] = []
    current, used = "", 0
    for piece in pieces:
        size = count(piece)
        if used + size > capacity and current.strip():
            packed.append(current)
            current, used = "", 0
        if size > capacity:
            packed += finer(piece)
            continue
        current += piece
        used += size
    if current.strip():
        packed.append(current)
    return packed
