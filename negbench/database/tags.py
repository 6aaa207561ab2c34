r"""Prompts taken apart: tags with weights, networks, and the plain text that is left.

The grammar is AUTOMATIC1111's: ``(a)`` weighs 1.1, ``[a]`` 1/1.1, ``(a:1.3)`` 1.3, ``\(`` is a
bracket, ``[a:b:0.5]`` changes a to b on the way, ``[a|b]`` takes turns, ``BREAK`` starts a new
chunk, ``AND`` joins prompts that may end in ``:weight``. ``{a}`` and ``1.2::a::`` are NovelAI's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

ROUND = 1.1
CURLY = 1.05
MAX_TAGS = 2000
"""Most tags kept of one text."""

_NETWORK = re.compile(
    r"<\s*(lora|lyco|locon|loha|hypernet|hypernetwork|embed|embedding|ti)\s*:\s*([^<>:]{1,300})"
    r"((?::[^<>]{0,300})?)>",
    re.IGNORECASE,
)
_EMBEDDING = re.compile(r"\bembedding:\s*([\w\-./\\]{1,200})", re.IGNORECASE)
_KINDS = {
    "lora": "lora", "lyco": "lora", "locon": "lora", "loha": "lora", "hypernet": "hypernetwork",
    "hypernetwork": "hypernetwork", "embed": "embedding", "embedding": "embedding",
    "ti": "embedding",
}  # fmt: skip
KNOWN_EMBEDDINGS = frozenset(
    (files("negbench.database") / "embeddings.txt").read_text(encoding="utf-8").split()
)
"""Names of textual inversions that stand bare in negative prompts, lower case."""
_EMBEDDING_TAGS = KNOWN_EMBEDDINGS | {name.replace("_", " ") for name in KNOWN_EMBEDDINGS}

_SPECIAL = re.compile(
    r"\\[()\[\]{}\\|:]"  # an escaped sign
    r"|\bBREAK\b|\bAND\b"
    r"|(?<![\w.])-?\d+(?:\.\d+)?::(?!\d)|::"  # NovelAI's weight and its end
    r"|:\s*(-?\d*\.?\d+)\s*\)"  # the end of (word:1.3)
    r"|[()\[\]{}|]"
)
_PLAIN = re.compile(r"[\\()\[\]{}<|]|::|\bBREAK\b|\bAND\b")
_BARE_WEIGHT = re.compile(r"\s*:\s*([0-2]\.\d{1,3})\s*$")
_BARE_IN_PLAIN = re.compile(r"(?<=\w)\s*:\s*[0-2]\.\d{1,3}(?=\s*(?:[,，)]|$))")
_AND_WEIGHT = re.compile(r":\s*(-?\d*\.?\d+)\s*$")
_SPACES = re.compile(r"\s+")
_SEPARATORS = re.compile(r"[,\n，、；]")
_COMMAS = frozenset(",\n，、；")


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag: lower-case text with spaces for underscores, and its weight (1 = plain)."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Network:
    """A LoRA, hypernetwork or embedding that the text calls by name."""

    kind: str
    name: str
    weight: float


@dataclass(frozen=True, slots=True)
class Parsed:
    """A text taken apart.

    Attributes:
        plain: the text without weights, networks and keywords, spaces tidied.
        tags: tags in order, with weights.
        networks: networks in order.
        weighted: whether any attention syntax was found.
    """

    plain: str
    tags: tuple[Tag, ...]
    networks: tuple[Network, ...]
    weighted: bool


@dataclass(slots=True)
class _Span:
    text: str
    weight: float
    literal: bool = False
    cut: bool = False  # a chunk ends here


def parse_tags(text: str) -> Parsed:
    """Take a prompt apart; any text has a reading, unbalanced brackets included."""
    networks: list[Network] = []
    if "<" in text or ":" in text:
        text = _networks(text, networks)
    weighted = _PLAIN.search(text) is not None
    spans = _spans(text) if weighted else [_Span(text, 1.0)]
    tags = _tags(spans)
    kept: list[Tag] = []
    for tag in tags:
        if tag.text in _EMBEDDING_TAGS:
            name = tag.text.replace(" ", "_")
            networks.append(Network("embedding", name, tag.weight))
        else:
            kept.append(tag)
    plain = _plain("".join("," if span.cut else span.text for span in spans))
    if len(kept) < len(tags):
        plain = ", ".join(
            part
            for part in (item.strip() for item in plain.split(","))
            if part and part.lower().replace(" ", "_") not in KNOWN_EMBEDDINGS
        )
    return Parsed(plain, tuple(kept), tuple(networks), weighted)


def _networks(text: str, networks: list[Network]) -> str:
    def found(match: re.Match[str]) -> str:
        kind = _KINDS[match.group(1).lower()]
        numbers = match.group(3).lstrip(":").split(":")
        networks.append(Network(kind, match.group(2).strip(), _number(numbers[0], 1.0)))
        return ""

    def embedding(match: re.Match[str]) -> str:
        networks.append(Network("embedding", match.group(1).rstrip("."), 1.0))
        return ""

    text = _NETWORK.sub(found, text)
    if "embedding:" in text.lower():
        text = _EMBEDDING.sub(embedding, text)
    return text


def _number(text: str, default: float) -> float:
    try:
        value = float(text)
    except ValueError:
        return default
    return value if -100.0 <= value <= 100.0 else default


def _spans(text: str) -> list[_Span]:
    """Pieces of text with the weight that brackets give them."""
    spans: list[_Span] = []
    opened: list[tuple[str, int]] = []
    weights: list[float] = []  # one factor a span, multiplied as brackets close
    chunk = 0  # first span of the current AND part
    novel: tuple[float, int] | None = None
    position = 0

    def add(piece: str, *, literal: bool = False, cut: bool = False) -> None:
        if piece:
            spans.append(_Span(piece, 1.0, literal, cut))
            weights.append(1.0)

    def scale(start: int, factor: float) -> None:
        for index in range(start, len(weights)):
            weights[index] *= factor

    def end_part(part_start: int) -> None:
        """A part joined by AND may end in ``:weight``."""
        if len(spans) > part_start and (match := _AND_WEIGHT.search(spans[-1].text)):
            spans[-1].text = spans[-1].text[: match.start()]
            scale(part_start, _number(match.group(1), 1.0))

    joined = False
    for match in _SPECIAL.finditer(text):
        add(text[position : match.start()])
        position = match.end()
        sign = match.group()
        if sign[0] == "\\" and len(sign) == 2:
            add(sign[1], literal=True)
        elif sign == "BREAK":
            add("BREAK", cut=True)
        elif sign == "AND":
            end_part(chunk)
            joined = True
            add("AND", cut=True)
            chunk = len(spans)
        elif sign.endswith("::"):
            if novel is not None:
                scale(novel[1], novel[0])
                novel = None
            elif len(sign) == 2:
                add("::")
            if len(sign) > 2:
                novel = (_number(sign[:-2], 1.0), len(spans))
        elif match.group(1) is not None:
            if any(kind == "(" for kind, _ in opened):
                start = _close(opened, "(")
                scale(start, _number(match.group(1), 1.0))
            else:
                add(sign)
        elif sign in "([{":
            opened.append((sign, len(spans)))
        elif sign == "|":
            add("|" if not opened or opened[-1][0] == "(" else ",")
        else:
            pair = {")": "(", "]": "[", "}": "{"}[sign]
            if not any(kind == pair for kind, _ in opened):
                add(sign, literal=True)
            elif pair == "[":
                start = _close(opened, pair)
                if not _schedule(spans, weights, start):
                    scale(start, 1 / ROUND)
            else:
                start = _close(opened, pair)
                body = "".join(span.text for span in spans[start:])
                if pair == "{" and body.strip().lower() in ("prompt", "p", "np"):
                    del spans[start:], weights[start:]  # the slot of a style template
                else:
                    scale(start, ROUND if pair == "(" else CURLY)
    add(text[position:])
    if joined:
        end_part(chunk)
    if novel is not None:
        scale(novel[1], novel[0])
    for kind, start in opened:  # A1111: what is never closed weighs to the end
        scale(start, {"(": ROUND, "[": 1 / ROUND, "{": CURLY}[kind])
    for span, weight in zip(spans, weights, strict=True):
        span.weight = weight
    return spans


def _close(opened: list[tuple[str, int]], kind: str) -> int:
    """Where the innermost open bracket of this kind began; it is closed."""
    for index in range(len(opened) - 1, -1, -1):
        if opened[index][0] == kind:
            return opened.pop(index)[1]
    raise AssertionError("checked by the caller")


def _schedule(spans: list[_Span], weights: list[float], start: int) -> bool:
    """``[a:b:0.5]``, ``[a:0.5]``, ``[a::0.5]``, ``[a|b]``: both texts stay, each as a tag."""
    body = "".join(span.text for span in spans[start:] if not span.cut)
    match = re.fullmatch(r"(.*?)(?::(.*?))?:\s*(\d*\.?\d+)\s*", body, re.DOTALL)
    if match is None:
        return "," in body and any(span.text == "," for span in spans[start:])
    texts = [part.strip() for part in (match.group(1), match.group(2)) if part and part.strip()]
    weight = weights[start] if start < len(weights) else 1.0
    del spans[start:], weights[start:]
    spans.append(_Span(", ".join(texts), weight))
    weights.append(weight)
    return True


def _tags(spans: list[_Span]) -> list[Tag]:
    """Split at commas and line breaks, but not in quotes nor within escaped brackets."""
    if len(spans) == 1 and spans[0].weight == 1.0 and '"' not in spans[0].text:
        return _simple_tags(spans[0].text)
    tags: list[Tag] = []
    parts: list[str] = []
    mass = total = 0.0
    depth = 0
    quoted = False

    def flush() -> None:
        nonlocal mass, total
        joined = "".join(parts)
        weight = mass / total if total else 1.0
        if ":" in joined and (bare := _BARE_WEIGHT.search(joined)):  # brackets left out
            joined = joined[: bare.start()]
            weight *= float(bare.group(1))
        text = tag_text(joined)
        if text and len(tags) < MAX_TAGS:
            tags.append(Tag(text, round(weight, 4)))
        parts.clear()
        mass = total = 0.0

    def take(piece: str, weight: float) -> None:
        nonlocal mass, total
        parts.append(piece)
        size = float(len(piece.strip()))
        mass += size * weight
        total += size

    for span in spans:
        if span.cut:
            flush()
            quoted, depth = False, 0
            continue
        if span.literal:
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(span.text, 0)
            depth = max(depth, 0)
            take(span.text, span.weight)
            continue
        if depth == 0 and not quoted and '"' not in span.text:
            pieces = _SEPARATORS.split(span.text)
            for index, piece in enumerate(pieces):
                if index:
                    flush()
                take(piece, span.weight)
            continue
        start = 0
        for index, sign in enumerate(span.text):
            if sign == '"':
                quoted = not quoted and '"' in span.text[index + 1 :]
            elif sign in _COMMAS and not quoted and depth == 0:
                take(span.text[start:index], span.weight)
                flush()
                start = index + 1
            elif sign == "\n":
                quoted, depth = False, 0
        take(span.text[start:], span.weight)
    flush()
    return tags


@lru_cache(maxsize=200_000)
def tag_text(text: str) -> str:
    """A tag as it is compared: lower case, spaces for underscores (but not in faces as ``^_^``)."""
    text = " ".join(text.split()).strip(" .;:")
    if "_" in text and len(text) > 3:
        text = text.replace("_", " ").strip()
    return text.lower()


def _simple_tags(text: str) -> list[Tag]:
    """Tags of a text without quotes and brackets, all of weight 1 but for a bare ``tag:1.2``."""
    tags: list[Tag] = []
    for piece in _SEPARATORS.split(text):
        weight = 1.0
        if ":" in piece and (bare := _BARE_WEIGHT.search(piece)):
            weight = round(float(bare.group(1)), 4)
            name = tag_text(piece[: bare.start()])
        else:
            name = tag_text(piece)
        if name:
            tags.append(Tag(name, weight))
    return tags[:MAX_TAGS]


def _plain(text: str) -> str:
    """Text with tidy commas and spaces; line breaks become commas where none stands."""
    text = re.sub(r"[ \t\r\f\v]*\n[ \t\r\f\v\n]*", "\n", text)
    text = re.sub(r"(?<=[,，、.;:!?])\n", " ", text)
    text = text.replace("\n", ", ")
    text = re.sub(r"\s+([,;])", r"\1", text)
    text = re.sub(r",(?:\s*,)+", ",", text)
    text = re.sub(r",(?=[^\s\d])", ", ", text)
    if ":" in text:
        text = _BARE_IN_PLAIN.sub("", text)
    return _SPACES.sub(" ", text).strip(" ,")
