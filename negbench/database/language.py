"""The language of a text: by script where the script says it, else by py3langid."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any

LANGUAGES = (
    "en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "uk", "tr", "ja", "zh", "ko", "vi", "id",
    "ar", "cs", "sv", "fi", "da", "ro", "hu", "el", "he", "fa", "th", "hi",
)  # fmt: skip
"""Languages told apart; prompts in others are rare, and fewer choices make fewer mistakes."""

_LETTER = re.compile(r"[^\W\d_]")
_SCRIPTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[\u3040-\u30ff]"), "ja"),
    (re.compile(r"[\uac00-\ud7af]"), "ko"),
    (re.compile(r"[\u0e00-\u0e7f]"), "th"),
    (re.compile(r"[\u0900-\u097f]"), "hi"),
    (re.compile(r"[\u0370-\u03ff]"), "el"),
    (re.compile(r"[\u0590-\u05ff]"), "he"),
    (re.compile(r"[\u4e00-\u9fff]"), "zh"),
)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier


def language_of(text: str) -> str:
    """ISO 639-1 code of `text`, ``und`` where there is too little to tell.

    Lists of tags are short and full of names, so ASCII text counts as English unless another
    language is near certain.
    """
    letters = _LETTER.findall(text)
    if len(letters) < 2:
        return "und"
    if not text.isascii():
        for pattern, code in _SCRIPTS:
            count = len(pattern.findall(text))
            if count and count * (3 if code == "zh" else 2) >= len(letters) * 0.3:
                return code
    code, certainty = _identifier().classify(text[:300])
    if code != "en" and text.isascii():
        words = text.split()
        if certainty < 0.9 or len(words) < 4:
            return "en"
    if code in ("ja", "zh", "ko") and not any(
        unicodedata.east_asian_width(c) in "WF" for c in text
    ):
        return "en"
    return str(code)
