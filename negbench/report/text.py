"""Text of others on a page: shown as what it is, never run, never in its neighbours' way."""

from __future__ import annotations

import json
import re
import unicodedata
from base64 import b64encode
from hashlib import sha256
from typing import Any

_JOINERS = "\u200c\u200d"
"""Needed to write some scripts and many emoji, harmless by themselves."""

_COMBINING = "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_MARKS = re.compile(f"({_COMBINING}{{5}})({_COMBINING}+)")


def visible(text: str, *, limit: int = 4000) -> str:
    r"""`text` with everything invisible made visible, bounded to `limit` characters.

    Control characters become control pictures (``\x00`` is ``␀``); bidirectional overrides, zero
    widths, tag characters, private use and lone surrogates become their code point in brackets, so
    that a right-to-left override is read and not obeyed. Line breaks, tabs and joiners stay. More
    than five combining marks in a row are counted instead of stacked.
    """
    rest = len(text) - limit
    if rest > 0:
        text = text[:limit]
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in "\n\t" else _shown(c) for c in text)
    text = _MARKS.sub(lambda found: f"{found[1]}⟨{len(found[2])} more marks⟩", text)
    return f"{text}… ⟨{rest} more characters⟩" if rest > 0 else text


def _shown(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if unicodedata.category(char) == "Zs":
        return " "
    if char in _JOINERS or (unicodedata.category(char) == "Cn" and code & 0xFFFE != 0xFFFE):
        return char
    return f"⟨U+{code:04X}⟩"


def script_json(value: Any) -> str:
    """`value` as JSON that may stand inside ``<script type="application/json">``.

    Pure ASCII without ``<``, ``>`` and ``&``: no text in it can end the element, open a comment, or
    be a line separator to some other parser. NaN and infinity are refused.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def content_security_policy(*, style: str, script: str) -> str:
    """A policy for a page that holds exactly this style sheet and this script, and nothing else.

    No request to any host, no frame, form, plug-in or base address; pictures from ``data:`` only;
    and no string may become markup or code at run time (trusted types).
    """
    return "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(source: str) -> str:
    return "sha256-" + b64encode(sha256(source.encode("utf-8")).digest()).decode("ascii")
