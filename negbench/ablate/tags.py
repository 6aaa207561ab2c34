"""A negative prompt taken apart at its commas, every tag spelled as it stands."""

from __future__ import annotations

from collections.abc import Sequence

from negbench.errors import ConfigError

MAX_TAGS = 200
_OPEN, _CLOSE = "([{<", ")]}>"


def split_tags(text: str) -> list[str]:
    """The tags between commas and line breaks that stand outside brackets.

    ``(worst quality, low quality:1.4), blurry`` has two tags: what one pair of brackets weighs
    together stays together. Brackets that are never closed bind nothing.

    Raises:
        ConfigError: there is no tag, or there are more than `MAX_TAGS`.
    """
    tags = [tag for tag in _pieces(text) if tag]
    if not tags:
        raise ConfigError("there is no tag to leave out; write for example 'worst quality, blurry'")
    if len(tags) > MAX_TAGS:
        raise ConfigError(f"{len(tags)} tags are more than {MAX_TAGS}; leave some out yourself")
    return tags


def _pieces(text: str) -> list[str]:
    pieces, depth, start = [], 0, 0
    escaped = False
    for at, sign in enumerate(text):
        if escaped:
            escaped = False
        elif sign == "\\":
            escaped = True
        elif sign in _OPEN:
            depth += 1
        elif sign in _CLOSE:
            depth = max(0, depth - 1)
        elif sign in ",\n" and depth == 0:
            pieces.append(text[start:at].strip())
            start = at + 1
    if depth:
        return [piece.strip() for piece in text.replace("\n", ",").split(",")]
    return [*pieces, text[start:].strip()]


def without(tags: Sequence[str], index: int) -> str:
    """All tags but one, joined as people write them."""
    return ", ".join(tag for at, tag in enumerate(tags) if at != index)


def shown(tags: Sequence[str]) -> list[str]:
    """A name for each tag; one that stands twice is told apart by ``#2``."""
    counts: dict[str, int] = {}
    names = []
    for tag in tags:
        counts[tag] = counts.get(tag, 0) + 1
        names.append(tag if counts[tag] == 1 else f"{tag} #{counts[tag]}")
    return names
