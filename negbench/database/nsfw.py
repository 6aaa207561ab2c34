"""Not safe for work: by the source's flag, and by a short list of plain words."""

from __future__ import annotations

import re

_SEXUAL = (
    "nsfw", "nude", "nudes", "nudity", "naked", "topless", "bottomless", "porn", "porno",
    "pornographic", "pornography", "hentai", "sex", "sexual", "sexually", "explicit", "erotic",
    "erotica", "orgasm", "cum", "cumshot", "semen", "penis", "vagina", "pussy", "cock", "dick",
    "blowjob", "fellatio", "cunnilingus", "masturbation", "masturbating", "nipple", "nipples",
    "areola", "areolae", "genitals", "genitalia", "pubic", "anal", "anus", "bdsm", "bondage",
    "fetish", "futanari", "handjob", "titjob", "paizuri", "creampie", "gangbang", "threesome",
    "intercourse", "penetration", "spread legs", "cameltoe", "lewd", "ecchi", "ahegao", "slut",
    "whore", "milf", "tits", "boobs", "breasts out", "rating:explicit", "rating:questionable",
    "rating explicit", "rating questionable", "uncensored", "xxx", "r18", "r-18",
)  # fmt: skip
_MINORS = (
    "loli", "lolita", "lolicon", "shota", "shotacon", "child", "children", "kid", "kids",
    "toddler", "infant", "preteen", "pre-teen", "underage", "minor", "minors", "schoolgirl",
    "schoolboy", "little girl", "little boy", "young girl", "young boy", "kindergarten",
    "elementary school", "middle school", "teen", "teens", "teenage", "teenager",
)  # fmt: skip


def _pattern(words: tuple[str, ...]) -> str:
    longest_first = sorted(words, key=len, reverse=True)
    inner = "|".join(re.escape(word).replace(r"\ ", r"[ _\-]") for word in longest_first)
    return rf"(?:^|[^\p{{L}}\p{{N}}])(?:{inner})(?:$|[^\p{{L}}\p{{N}}])"


SEXUAL = _pattern(_SEXUAL)
"""Regular expression (Rust syntax, for polars) over lower-case prompts."""
MINORS = _pattern(_MINORS) + r"|\b(?:[1-9]|1[0-7])[ \-]?(?:yo|y/o|year[s]?[ \-]old)\b"
"""Terms for minors; a prompt with these and sexual ones never enters a data set."""

SAFE_FLAGS = ("none", "false", "0", "1", "pg", "safe", "sfw", "no", "general", "g")
"""Values of a source's flag that mean safe for work, lower case."""
