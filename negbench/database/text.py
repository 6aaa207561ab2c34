"""Small pure functions on texts: Unicode, entities, control characters, personal data."""

from __future__ import annotations

import html
import re
import unicodedata

from negbench.database.sources.infotext import MARKER, parse_infotext, strip_marker

_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z]{2,31});")
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_EMAIL = re.compile(r"[A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63})*"
                    r"\.[A-Za-z]{2,24}\b")  # fmt: skip
_PHONE = re.compile(
    r"(?<![\w.#:])(?:"
    r"\+\d{1,3}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{2,4}(?:[ .\-]?\d{2,4}){1,4}"
    r"|\(\d{3}\)[ ]?\d{3}[ .\-]\d{4}"
    r"|\d{3}-\d{3,4}-\d{4}|\d{3}\.\d{3}\.\d{4}"
    r"|(?:tel|phone|call|whatsapp|mobile)[ .:]{1,3}\+?\d[\d .\-]{6,16}\d"
    r")(?![\w])",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"\d\d[\d ().\-]{5}")
_HANDLE = re.compile(r"(?<![\w@.:;=\\/>^])@[A-Za-z][\w.]{2,29}(?![\w@])")  # fmt: skip
_SOCIAL = re.compile(
    r"\b(?:https?://)?(?:www\.)?(?:instagram|twitter|x|facebook|tiktok|patreon|t|deviantart"
    r"|artstation|youtube|ko-fi)\.(?:com|me)/@?[\w.\-]{2,60}/?"
    r"|(?<![\w/])u/[A-Za-z0-9_\-]{3,20}\b"
    r"|\b(?:discord|telegram|instagram|twitter|snapchat)\s*(?:id|user|handle)?\s*[:=]\s*@?[\w.]{3,32}"
    r"(?:#\d{4})?"
    r"|(?<![\w])[A-Za-z][\w.]{2,31}#\d{4}\b",
    re.IGNORECASE,
)
EMAIL, PHONE, HANDLE = "<email>", "<phone>", "<handle>"


def fix_unicode(text: str) -> str:
    """Mojibake mended (ftfy), entities read, invisible characters dropped, NFC, LF line ends."""
    if "&" in text:
        for _ in range(2):  # sites escape twice
            if not _ENTITY.search(text):
                break
            text = html.unescape(text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        import ftfy

        text = ftfy.fix_text(text, unescape_html=False, normalization="NFC")
        text = unicodedata.normalize("NFC", text)
    return _INVISIBLE.sub("", text)


def mask_personal(text: str) -> tuple[str, tuple[str, ...]]:
    """E-mail addresses, phone numbers and personal handles replaced by placeholders.

    Returns:
        The text, and the kinds that were found, for example ``("email",)``.

    Faces such as ``@_@`` and plain numbers (seeds, sizes, weights) are left alone.
    """
    kinds: list[str] = []
    if "@" in text:
        masked = _EMAIL.sub(EMAIL, text)
        if masked != text:
            kinds.append("email")
            text = masked
    if any(sign in text for sign in ("/", "#", ":", "=")):
        masked = _SOCIAL.sub(HANDLE, text)
        if masked != text:
            kinds.append("handle")
            text = masked
    if "@" in text:
        masked = _HANDLE.sub(HANDLE, text)
        if masked != text:
            if "handle" not in kinds:
                kinds.append("handle")
            text = masked
    if _DIGITS.search(text) and _PHONE.search(text):
        text = _PHONE.sub(PHONE, text)
        kinds.append("phone")
    return text, tuple(kinds)


def mend_pair(prompt: str | None, negative: str | None) -> tuple[str | None, str | None, bool]:
    """Undo what sites do to pairs: a whole infotext in the prompt, a marker before the negative.

    Returns:
        Prompt, negative and whether anything was mended.
    """
    changed = False
    if prompt is not None and MARKER in prompt:
        parsed = parse_infotext(prompt)
        if parsed is not None and parsed.negative is not None:
            prompt = parsed.prompt
            if negative is None or not negative.strip():
                negative = parsed.negative
            changed = True
    if negative is not None and MARKER in negative:
        stripped = strip_marker(negative)
        parsed = parse_infotext(f"\n{MARKER}{stripped}")
        if parsed is not None and parsed.negative is not None:
            stripped = parsed.negative
        changed = changed or stripped != negative
        negative = stripped
    return prompt, negative, changed
