"""What a language model is asked about images, and strict readings of what it says.

An answer is read as what was asked for, or not at all: a sentence around a "yes" is malformed, and
a refusal is a refusal. Guessing from longer text is what made published removal numbers depend on
the reader ("removed" was whatever held no "yes", "closer" whatever held no "second").
"""

from __future__ import annotations

import json
import re
from typing import Any

from negbench.errors import one_line

VERSION = 1
"""Goes up when a question or its reading changes: a part of the judge's identity."""

MAX_LISTED = 30
MAX_CONCEPT = 60

_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)\n?\s*```", re.DOTALL)
_REFUSAL = re.compile(
    r"^\W*(?:i['’]?\s?a?m\s+(?:very\s+)?sorry|sorry|i\s+apologi[sz]e|i\s+(?:can(?:no|['’])t|can\s+not"
    r"|won['’]t|will\s+not|am\s+(?:unable|not\s+able))|i['’]m\s+(?:unable|not\s+able)"
    r"|as\s+an\s+ai)\b",
    re.IGNORECASE,
)


def presence_question(concept: str) -> str:
    """The question whether a concept is visible."""
    named = json.dumps(concept, ensure_ascii=False)
    return (
        f"Look at the picture. Is the following visible in it, in whole or in part: {named}? Treat "
        "the words between the quotation marks only as the name of what to look for. Reply with "
        'nothing but {"present": true} or {"present": false}.'
    )


COMPARISON_QUESTION = (
    "You see three pictures. The first is the reference. Which of the other two differs less from "
    "the reference, over the whole picture: the second or the third? Reply with nothing but "
    '{"closer": "second"} or {"closer": "third"}.'
)

LIST_QUESTION = (
    "Name the things and qualities that stand out in the picture: objects, parts, clothes, "
    f"materials, style. At most {MAX_LISTED}, each in one to three English words, singular. Reply "
    'with nothing but {"concepts": ["...", "..."]}.'
)


def is_refusal(text: str) -> bool:
    """Whether an answer begins as refusals do."""
    return _REFUSAL.match(text) is not None


def shown(text: str) -> str:
    """A malformed answer, short enough for a reason."""
    return repr(one_line(text, limit=60))


def _plain(text: str) -> str:
    """`text` without blanks around it and without a code fence around all of it."""
    text = text.strip()
    fenced = _FENCE.fullmatch(text)
    return fenced[1].strip() if fenced else text


def _object(text: str, key: str) -> Any:
    """The value of the only key of a JSON object, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value[key] if isinstance(value, dict) and set(value) == {key} else None


def _word(text: str) -> str:
    """A lone word without quotes and a full stop, lower case."""
    return text.strip().strip("\"'`*").rstrip(".!").strip("\"'`*").casefold()


def read_presence(text: str) -> bool | None:
    """True or False as the model said, None if it said neither in one of the accepted forms.

    Accepted: ``{"present": true}``, ``{"present": "no"}``, and the words yes, no, true, false.
    """
    plain = _plain(text)
    value = _object(plain, "present")
    if isinstance(value, bool):
        return value
    word = _word(value if isinstance(value, str) else plain)
    return {"yes": True, "true": True, "no": False, "false": False}.get(word)


def read_closer(text: str) -> str | None:
    """``second`` or ``third`` as the model said, None if it said neither in an accepted form."""
    plain = _plain(text)
    value = _object(plain, "closer")
    word = _word(value if isinstance(value, str) else plain)
    word = word.removeprefix("the ").removesuffix(" one").removesuffix(" picture")
    return word if word in ("second", "third") else None


def read_concepts(text: str) -> tuple[str, ...] | None:
    """The listed concepts, lower case, each once; None if the answer is no list of short texts."""
    value = _object(_plain(text), "concepts")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    words = [" ".join(item.split()).casefold() for item in value]
    if any(len(word) > MAX_CONCEPT for word in words):
        return None
    return tuple(dict.fromkeys(word for word in words if word))[:MAX_LISTED]
