"""The A1111 infotext: prompt, ``Negative prompt:``, and a line of settings.

Written by AUTOMATIC1111's webui, Forge, reForge, SD.Next, Civitai, Fooocus (scheme a1111) and many
ComfyUI nodes. Settings may hold commas, colons, quotes and JSON in their values.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

MARKER = "Negative prompt:"
_KEY = re.compile(r"(?:^|,)\s*([A-Za-z][\w \-/+.()]{0,60}?):\s*")
_KNOWN = (
    "steps", "sampler", "cfg scale", "seed", "size", "model", "model hash", "clip skip", "version",
    "schedule type", "denoising strength", "backend", "app", "created date", "civitai resources",
)  # fmt: skip


@dataclass(frozen=True)
class Infotext:
    """An infotext taken apart; `negative` None = it has no marker."""

    prompt: str
    negative: str | None
    settings: dict[str, str] = field(default_factory=dict)


def parse_infotext(text: str) -> Infotext | None:
    """Take an infotext apart; None if `text` has neither a marker nor a line of settings.

    The prompt is what stands before the first line that starts with the marker, the negative what
    follows up to the last line of settings. A marker written twice is read as one.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    start = _settings_line(lines)
    body = lines if start is None else lines[:start]
    settings = {} if start is None else parse_settings("\n".join(lines[start:]))
    first = next((i for i, line in enumerate(body) if line.lstrip().startswith(MARKER)), None)
    if first is None:
        if start is None:
            return None
        return Infotext("\n".join(body), None, settings)
    negative = [strip_marker(line) if MARKER in line else line for line in body[first:]]
    return Infotext("\n".join(body[:first]), "\n".join(negative), settings)


def strip_marker(text: str) -> str:
    """`text` without markers at its start."""
    while (rest := text.lstrip()).startswith(MARKER):
        text = rest[len(MARKER) :]
    return text


def _settings_line(lines: list[str]) -> int | None:
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].lstrip().startswith("Steps: "):
            return index
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index].strip()
        if not line:
            continue
        keys = [match.group(1).lower() for match in _KEY.finditer(line)]
        known = [key for key in keys if key in _KNOWN]
        if keys and keys[0] in _KNOWN and (len(known) >= 2 or len(known) == len(keys)):
            return index
        if not line.startswith(("Template", "Negative Template", '"')):
            return None
    return None


def parse_settings(text: str) -> dict[str, str]:
    """``Key: value, Key: "quoted, value", Hashes: {...}`` as a dict; values keep their commas."""
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _KEY.match(text, position) or _KEY.search(text, position)
        if match is None:
            break
        key = match.group(1).strip()
        value, position = _value(text, match.end())
        found.setdefault(key, value)
    return found


def _value(text: str, start: int) -> tuple[str, int]:
    if start < len(text) and text[start] in '"{[':
        try:
            value, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            pass
        else:
            return (value if isinstance(value, str) else text[start:end]), end
    following = _KEY.search(text, start)
    while following is not None and text[following.start()] != ",":
        following = _KEY.search(text, following.start() + 1)
    end = len(text) if following is None else following.start()
    return text[start:end].strip(), end
