"""Rows with any column names to records: names as people write them, nested JSON included."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from negbench.database.records import SETTING_FIELDS, RawRecord, Skip
from negbench.errors import ConfigError

ALIASES: dict[str, tuple[str, ...]] = {
    "prompt": (
        "prompt", "positiveprompt", "positive", "fullprompt", "promptpositive", "pos", "posprompt",
        "textprompt", "prompttext", "originalprompt", "rawprompt", "normalprompt", "inputprompt",
    ),
    "negative": (
        "negativeprompt", "negative", "negprompt", "promptnegative", "neg", "uc", "negatives",
        "negativeprompts", "negativetext", "undesiredcontent", "uncondprompt", "negativepromptraw",
        "rawnegativeprompt", "unprompt", "antiprompt",
    ),
    "id": ("id", "imageid", "uid", "uuid", "postid", "rowid", "civitaiid", "key", "hash"),
    "model": ("model", "modelname", "basemodel", "checkpoint", "ckpt", "sdmodelname"),
    "sampler": ("sampler", "samplername", "scheduler"),
    "steps": ("steps", "step", "numinferencesteps", "numsteps", "samplingsteps"),
    "cfg_scale": ("cfgscale", "cfg", "guidancescale", "guidance", "scale"),
    "seed": ("seed", "noiseseed"),
    "width": ("width", "w", "imagewidth"),
    "height": ("height", "h", "imageheight"),
    "likes": ("likes", "likecount", "heartcount", "reactioncount", "reactions", "stars", "upvotes"),
    "nsfw": ("nsfwlevel", "nsfw", "isnsfw", "imagensfw"),
    "created": ("createdat", "created", "timestamp", "date", "createddate", "datecreated"),
    "url": ("url", "imageurl", "link", "sourceurl"),
    "license": ("license", "licence"),
}  # fmt: skip
"""Field -> names it goes by, in order of preference, lower case without signs."""

NESTED = ("meta", "metadata", "generationparams", "params", "parameters", "settings")
"""Keys under which rows keep a JSON object (or its text) with the two texts."""

FIELDS = frozenset({"prompt", "negative", "id", *SETTING_FIELDS})
_MAX_NESTED_TEXT = 2_000_000


def plain(name: str) -> str:
    """A column name in lower case, letters and digits only."""
    return re.sub(r"[^0-9a-z]", "", name.lower())


def parse_map(items: Iterable[str]) -> dict[str, str]:
    """``prompt=a,negative=b`` (given once or many times) as field -> column.

    Raises:
        ConfigError: an item is not ``field=column`` or the field does not exist.
    """
    mapping: dict[str, str] = {}
    for item in items:
        for pair in item.split(","):
            if not pair.strip():
                continue
            name, sign, column = (part.strip() for part in pair.partition("="))
            if not sign or not column or name not in FIELDS:
                raise ConfigError(
                    f"--map {pair.strip()!r} is not field=column; fields: prompt, negative, id, "
                    f"{', '.join(sorted(set(SETTING_FIELDS) - {'convention'}))}"
                )
            mapping[name] = column
    return mapping


class Columns:
    """Finds the fields of records in rows of one table.

    Args:
        mapping: the user's own choice of columns or dotted paths; wins over names.
    """

    def __init__(self, mapping: Mapping[str, str] | None = None) -> None:
        self.mapping = dict(mapping or {})
        self._cache: dict[tuple[str, ...], dict[str, str]] = {}

    def locate(self, names: Iterable[str]) -> dict[str, str]:
        """Field -> column among `names`, by usual names alone."""
        names = tuple(names)
        found = self._cache.get(names)
        if found is None:
            by_plain: dict[str, str] = {}
            for name in names:
                by_plain.setdefault(plain(name), name)
            found = {}
            for target, aliases in ALIASES.items():
                for alias in aliases:
                    if alias in by_plain:
                        found[target] = by_plain[alias]
                        break
            if len(self._cache) < 4096:
                self._cache[names] = found
        return found

    def complete(self, row: Mapping[str, Any]) -> bool:
        """Whether both a prompt and a negative can be looked up in rows like this one."""
        values = self.values(row)
        return "prompt" in values and "negative" in values

    def nested(self, row: Mapping[str, Any]) -> bool:
        """Whether a row keeps its texts in a nested object, as picture sites do (null counts)."""
        names = {plain(key): row[key] for key in row if isinstance(key, str)}
        if "url" not in names:
            return False
        return any(key in names and isinstance(names[key], (dict, type(None))) for key in NESTED)

    def values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Field -> value for every field that `row` has, nested objects included."""
        names = tuple(key for key in row if isinstance(key, str))
        here = self.locate(names)
        values = {field: row[column] for field, column in here.items()}
        for name in names:
            if plain(name) in NESTED and not ("prompt" in values and "negative" in values):
                inner = _object(row[name])
                if inner is not None:
                    inner_values = self._nested(inner)
                    values = {**values, **{k: v for k, v in inner_values.items() if k != "id"}}
        stats = row.get("stats")
        if "likes" not in values and isinstance(stats, dict):
            inner = self.locate(tuple(key for key in stats if isinstance(key, str)))
            if "likes" in inner:
                values["likes"] = stats[inner["likes"]]
        for field, column in self.mapping.items():
            values.pop(field, None)
            got, value = _dotted(row, column)
            if got:
                values[field] = value
        return values

    def _nested(self, inner: Mapping[str, Any]) -> dict[str, Any]:
        """Values of a ``meta`` object; Civitai nests one more ``meta`` on some queries."""
        names = tuple(key for key in inner if isinstance(key, str))
        found = self.locate(names)
        values = {field: inner[column] for field, column in found.items()}
        if "prompt" not in values and isinstance(inner.get("meta"), dict):
            deeper = inner["meta"]
            found = self.locate(tuple(key for key in deeper if isinstance(key, str)))
            values.update({field: deeper[column] for field, column in found.items()})
        return values

    def record(
        self,
        row: Mapping[str, Any],
        *,
        source: str,
        source_id: str,
        licence: str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> RawRecord | Skip:
        """The record of one row, or the reason why it gives none.

        Args:
            row: the row.
            source: name of the source.
            source_id: id of the row within it.
            licence: licence for rows that state none.
            values: `values(row)`, where the caller has it already.
        """
        if values is None:
            values = self.values(row)
        prompt, negative = values.get("prompt"), values.get("negative")
        for name, value in (("prompt", prompt), ("negative prompt", negative)):
            if value is not None and not isinstance(value, str):
                if isinstance(value, float) and math.isnan(value):
                    continue
                return Skip(source, source_id, f"{name} is {_kind(value)}, not text")
        prompt = prompt if isinstance(prompt, str) else None
        negative = negative if isinstance(negative, str) else None
        if prompt is None and negative is None:
            if any(plain(key) in NESTED and row[key] is None for key in row):
                return Skip(source, source_id, "no generation metadata (meta is null)")
            return Skip(source, source_id, "no prompt and no negative prompt")
        if negative is None and prompt is not None and "negative" not in values:
            prompt, negative = split_horde(prompt)
        if not (is_utf8(prompt) and is_utf8(negative)):
            return Skip(source, source_id, "text is not valid UTF-8")
        width, height = as_int(values.get("width")), as_int(values.get("height"))
        return RawRecord(
            source=source,
            source_id=source_id,
            prompt=prompt,
            negative=negative,
            model=as_text(values.get("model")),
            sampler=as_text(values.get("sampler")),
            steps=as_int(values.get("steps")),
            cfg_scale=as_float(values.get("cfg_scale")),
            seed=as_int(values.get("seed")),
            width=width,
            height=height,
            likes=as_int(values.get("likes")),
            nsfw=as_flag(values.get("nsfw")),
            created=as_text(values.get("created")),
            url=as_text(values.get("url"), limit=2000),
            license=as_text(values.get("license")) or licence,
        )


def split_horde(prompt: str) -> tuple[str, str | None]:
    """AI Horde's ``positive###negative{np}`` in one string, taken apart, the slot left out."""
    positive, sign, negative = prompt.partition("###")
    if not sign:
        return prompt, None
    return positive.replace("{np}", "").strip(" ,"), negative.replace("{np}", "").strip(" ,")


def is_utf8(text: str | None) -> bool:
    """Whether `text` has a UTF-8 form (holds no lone surrogate)."""
    if text is None or text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def as_text(value: Any, *, limit: int = 300) -> str | None:
    """A short label, or None; anything that is not a label is left out."""
    if isinstance(value, dict):
        value = value.get("name") or value.get("model_name") or value.get("key")
    if value is None or isinstance(value, (list, bytes, bool)):
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    text = str(value).replace("\x00", "").strip()
    return text[:limit] if text and is_utf8(text) else None


def as_int(value: Any) -> int | None:
    """An integer within 64 bits, or None."""
    number = as_float(value) if not isinstance(value, int) else value
    if number is None or isinstance(number, bool) or not -(2**63) <= number < 2**63:
        return None
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,19}\s*", value):
        whole = int(value)
        return whole if -(2**63) <= whole < 2**63 else None
    return int(number)


def as_float(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or value is None or isinstance(value, (dict, list, bytes)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_flag(value: Any) -> str | None:
    """A flag or level as text: ``true``, ``false``, ``None``, ``Soft``, ``4``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return as_text(value, limit=40)


def _object(value: Any) -> dict[str, Any] | None:
    if isinstance(value, dict):
        return value
    if isinstance(value, str) and value.lstrip()[:1] == "{" and len(value) < _MAX_NESTED_TEXT:
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None
    return None


def _dotted(row: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    """The value at a column name or a dotted path, objects in JSON text included."""
    if path in row:
        return True, row[path]
    value: Any = row
    for step in path.split("."):
        inner = _object(value) if not isinstance(value, Mapping) else value
        if inner is None or step not in inner:
            return False, None
        value = inner[step]
    return True, value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", bytes: "bytes"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "no text")
