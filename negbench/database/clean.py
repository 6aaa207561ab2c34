"""Raw records to clean rows: every row is kept, changed or excluded with a reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from negbench.database import nsfw as words
from negbench.database.language import language_of
from negbench.database.tags import Network, Parsed, parse_tags
from negbench.database.text import fix_unicode, mask_personal, mend_pair
from negbench.types import MAX_TEXT

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

CUT = 2000
"""Characters of text that `excluded.parquet` keeps of an excluded row."""
PLACEHOLDERS = ("unknown", "undefined", "none", "null", "nan", "n/a", "test prompt", "prompt")

_TAGS = "list<struct<tag:string,weight:float>>"


@dataclass(frozen=True)
class Rules:
    """What cleaning may be told.

    Attributes:
        languages: keep only prompts in these languages; empty = all.
        nsfw: ``keep`` (labeled) or ``exclude``.
    """

    languages: tuple[str, ...] = ()
    nsfw: str = "keep"


@dataclass(frozen=True, slots=True)
class CleanText:
    """One text after cleaning, and what was done to it."""

    raw: str
    parsed: Parsed
    masked: tuple[str, ...]
    changes: tuple[str, ...]
    names: frozenset[str]


@dataclass
class TextCache:
    """Cleaned texts by raw text; universal negatives come by the hundred thousand."""

    limit: int = 50_000
    known: dict[str, CleanText] = field(default_factory=dict)

    def get(self, text: str) -> CleanText:
        """The cleaned form of `text`."""
        found = self.known.get(text)
        if found is None:
            found = clean_text(text)
            if len(self.known) >= self.limit:
                self.known.clear()
            self.known[text] = found
        return found


def clean_text(raw: str) -> CleanText:
    """Mend, mask and take apart one text; `raw` in the result is masked too."""
    changes: list[str] = []
    text = fix_unicode(raw)
    if text != raw:
        changes.append("unicode")
    same = text == raw
    text, masked = mask_personal(text)
    masked_raw = text if same else mask_personal(raw)[0]
    if masked:
        changes.append("masked")
    parsed = parse_tags(text)
    if parsed.networks:
        changes.append("networks")
    if parsed.weighted:
        changes.append("weights")
    names = frozenset(tag.text for tag in parsed.tags)
    return CleanText(masked_raw, parsed, masked, tuple(changes), names)


def clean_frame(raw: pl.DataFrame, rules: Rules, cache: TextCache | None = None) -> pl.DataFrame:
    """Clean one shard of raw records.

    Args:
        raw: columns of `RawRecord`, ``id`` and ``skipped`` (the reason of a `Skip`, else null).
        rules: what to exclude.
        cache: cleaned texts of earlier shards.

    Returns:
        The same rows in order, with clean texts, tags, labels, ``step`` and ``reason`` (null for
        rows that stay). See `negbench.database.schema` for the columns.
    """
    import polars as pl

    cache = cache or TextCache()
    skipped = raw["skipped"].to_list()
    pairs = zip(raw["prompt"].to_list(), raw["negative"].to_list(), skipped, strict=True)
    empty = clean_text("")
    reasons: list[tuple[str, str] | None] = []
    left: list[CleanText] = []
    right: list[CleanText] = []
    mended: list[bool] = []
    for raw_prompt, raw_negative, skip in pairs:
        prompt, negative = raw_prompt, raw_negative
        changed = False
        reason: tuple[str, str] | None = None
        if skip is not None:
            reason = ("read", skip)
        elif (prompt and len(prompt) > MAX_TEXT) or (negative and len(negative) > MAX_TEXT):
            reason = ("text", f"text longer than {MAX_TEXT} characters")
        else:
            prompt, negative, changed = mend_pair(prompt, negative)
            if prompt is None or not prompt.strip():
                reason = ("text", "no prompt")
            elif negative is None or not negative.strip():
                reason = ("text", "no negative prompt")
        reasons.append(reason)
        mended.append(changed)
        long = reason is not None and reason[1].startswith("text longer")
        left.append(_cut(prompt) if long else (cache.get(prompt) if prompt else empty))
        right.append(_cut(negative) if long else (cache.get(negative) if negative else empty))
    frame = raw.drop("skipped", "prompt", "negative").with_columns(
        pl.Series("prompt", [item.parsed.plain for item in left], pl.String),
        pl.Series("negative", [item.parsed.plain for item in right], pl.String),
        pl.Series("prompt_raw", [item.raw for item in left], pl.String),
        pl.Series("negative_raw", [item.raw for item in right], pl.String),
        pl.Series("tags_in_both", [_both(a, b) for a, b in zip(left, right, strict=True)],
                  pl.List(pl.String)),
        pl.Series("networks", pl.from_arrow(_networks(left, right))),
        pl.Series("prompt_tags", pl.from_arrow(_tags(left))),
        pl.Series("negative_tags", pl.from_arrow(_tags(right))),
        pl.Series("masked", [sorted({*a.masked, *b.masked}) for a, b in
                             zip(left, right, strict=True)], pl.List(pl.String)),
        pl.Series("changes", [_changes(a, b, mended=m) for a, b, m in
                              zip(left, right, mended, strict=True)], pl.List(pl.String)),
        pl.Series("step", [r[0] if r else None for r in reasons], pl.String),
        pl.Series("reason", [r[1] if r else None for r in reasons], pl.String),
    )  # fmt: skip
    frame = _label(frame)
    return _exclude(frame, rules)


def _cut(text: str | None) -> CleanText:
    """A text that is too long to clean; only its beginning is kept, for the excluded."""
    raw, _ = mask_personal((text or "")[:CUT].encode("utf-8", "replace").decode("utf-8"))
    return CleanText(raw, Parsed("", (), (), weighted=False), (), (), frozenset())


def _both(left: CleanText, right: CleanText) -> list[str]:
    return sorted(left.names & right.names)


def _changes(left: CleanText, right: CleanText, *, mended: bool) -> list[str]:
    found = {*left.changes, *right.changes}
    if mended:
        found.add("marker")
    return sorted(found)


def _tags(texts: list[CleanText]) -> pa.Array:
    """Tags as ``list<struct<tag, weight>>``, built flat."""
    import pyarrow as pa

    offsets = [0]
    names: list[str] = []
    weights: list[float] = []
    for text in texts:
        names += [tag.text for tag in text.parsed.tags]
        weights += [tag.weight for tag in text.parsed.tags]
        offsets.append(len(names))
    values = pa.StructArray.from_arrays(
        [pa.array(names, pa.large_string()), pa.array(weights, pa.float32())], ["tag", "weight"]
    )
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)


def _networks(left: list[CleanText], right: list[CleanText]) -> pa.Array:
    import pyarrow as pa

    offsets = [0]
    found: list[tuple[Network, str]] = []
    for a, b in zip(left, right, strict=True):
        found += [(item, "prompt") for item in a.parsed.networks]
        found += [(item, "negative") for item in b.parsed.networks]
        offsets.append(len(found))
    values = pa.StructArray.from_arrays(
        [
            pa.array([item.kind for item, _ in found], pa.large_string()),
            pa.array([item.name for item, _ in found], pa.large_string()),
            pa.array([item.weight for item, _ in found], pa.float32()),
            pa.array([side for _, side in found], pa.large_string()),
        ],
        ["kind", "name", "weight", "side"],
    )
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)


def _label(frame: pl.DataFrame) -> pl.DataFrame:
    """Language of prompts, nsfw by the source's flag and by words."""
    import polars as pl

    prompts = frame["prompt"].unique(maintain_order=True)
    languages = [language_of(text) for text in prompts.to_list()]
    table = pl.DataFrame({"prompt": prompts, "language": languages},
                         schema={"prompt": pl.String, "language": pl.String})  # fmt: skip
    frame = frame.join(table, on="prompt", how="left", maintain_order="left")
    lower = pl.col("prompt").str.to_lowercase()
    flag = pl.col("nsfw").str.to_lowercase()
    by_source = flag.is_not_null() & ~flag.is_in(list(words.SAFE_FLAGS))
    sexual = lower.str.contains(words.SEXUAL)
    return frame.with_columns(
        by_source.alias("_flag"),
        sexual.alias("_sexual"),
        (sexual & lower.str.contains(words.MINORS)).alias("_minors"),
    ).with_columns(
        (pl.col("_flag") | pl.col("_sexual")).alias("nsfw"),
        pl.when(pl.col("_flag") & pl.col("_sexual")).then(pl.lit("both"))
        .when(pl.col("_flag")).then(pl.lit("source"))
        .when(pl.col("_sexual")).then(pl.lit("words")).otherwise(None).alias("nsfw_by"),
    )  # fmt: skip


def _exclude(frame: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """The first reason that holds, in the funnel's order."""
    import polars as pl

    from negbench.database.shingles import normal_text

    frame = frame.with_columns(
        normal_text(pl.col("prompt")).alias("_p"), normal_text(pl.col("negative")).alias("_n")
    )
    checks: list[tuple[str, str, Any]] = [
        ("clean", "prompt is empty after cleaning", pl.col("_p") == ""),
        ("clean", "negative prompt is empty after cleaning", pl.col("_n") == ""),
        ("clean", "a placeholder instead of a prompt", pl.col("_p").is_in(list(PLACEHOLDERS))),
        ("clean", "a placeholder instead of a negative prompt",
         pl.col("_n").is_in(["unknown", "undefined", "none", "null", "nan", "n a"])),
        ("clean", "prompt and negative prompt are the same", pl.col("_p") == pl.col("_n")),
        ("safety", "sexual terms with terms for minors", pl.col("_minors")),
    ]  # fmt: skip
    if rules.nsfw == "exclude":
        checks.append(("safety", "not safe for work", pl.col("nsfw")))
    if rules.languages:
        checks.append(
            ("language", "another language", ~pl.col("language").is_in(list(rules.languages)))
        )
    free = pl.col("reason").is_null()
    step: Any = pl.when(~free).then(pl.col("step"))
    reason: Any = pl.when(~free).then(pl.col("reason"))
    for name, text, condition in checks:
        step = step.when(condition).then(pl.lit(name))
        reason = reason.when(condition).then(pl.lit(text))
    frame = frame.with_columns(
        step.otherwise(None).alias("step"), reason.otherwise(None).alias("reason")
    )
    withheld = pl.col("reason") == "sexual terms with terms for minors"
    texts = ("prompt", "negative", "prompt_raw", "negative_raw")
    out = pl.col("reason").is_not_null()
    empty_tags = [
        pl.when(out).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("prompt_tags", "negative_tags", "networks", "tags_in_both")
    ]
    frame = frame.with_columns(
        *(
            pl.when(withheld).then(None).when(out).then(pl.col(name).str.slice(0, CUT))
            .otherwise(pl.col(name)).alias(name)
            for name in texts
        ),
        *empty_tags,
    )  # fmt: skip
    return frame.drop("_flag", "_sexual", "_minors", "_p", "_n")


def reason_key(reason: str) -> str:
    """A reason as the funnel counts it: numbers and details taken out."""
    text = re.split(r"[;:]", reason, maxsplit=1)[0] if len(reason) > 40 else reason
    text = re.sub(r"\([^()]*\)", "", text)
    text = re.sub(r"\d+", "N", text)
    return " ".join(text.split())[:120]
