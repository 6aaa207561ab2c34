"""What a source yields: a raw record, or a reason why there is none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any

SETTING_FIELDS = (
    "model",
    "sampler",
    "steps",
    "cfg_scale",
    "seed",
    "width",
    "height",
    "likes",
    "nsfw",
    "created",
    "url",
    "license",
    "convention",
)
"""Everything of a `RawRecord` but its two texts and where it is from."""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One pair as its source has it, before any cleaning.

    Attributes:
        source: name of the source, the same on every machine (no absolute path).
        source_id: id of the record within its source: a relative path, a row number or an id.
        prompt: the prompt, or None where the record has none.
        negative: the negative prompt; None = the record has none, "" = present and empty.
        model: checkpoint name.
        sampler: sampler (and schedule) name.
        steps: number of sampling steps.
        cfg_scale: guidance scale.
        seed: seed.
        width: pixels.
        height: pixels.
        likes: likes, hearts or reactions.
        nsfw: the source's own flag or level, as text (``true``, ``None``, ``Soft``, ``X``).
        created: ISO 8601 time as the source gives it.
        url: address of the picture or post.
        license: licence of the record, if the source states one.
        convention: the metadata convention it was read with, for pictures.
    """

    source: str
    source_id: str
    prompt: str | None
    negative: str | None
    model: str | None = None
    sampler: str | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    likes: int | None = None
    nsfw: str | None = None
    created: str | None = None
    url: str | None = None
    license: str | None = None
    convention: str | None = None

    def row_id(self) -> str:
        """32 hex digits, a function of source, source id and both raw texts alone."""
        return row_id(self.source, self.source_id, self.prompt, self.negative)

    def as_json(self) -> dict[str, Any]:
        """The record as `negbench db read` prints it; settings that are not known are left out."""
        settings = {
            name: value for name in SETTING_FIELDS if (value := getattr(self, name)) is not None
        }
        return {
            "source": self.source,
            "source_id": self.source_id,
            "prompt": self.prompt,
            "negative": self.negative,
            "settings": settings,
        }


@dataclass(frozen=True, slots=True)
class Skip:
    """Something in a source that gives no record, and why."""

    source: str
    source_id: str
    reason: str

    def row_id(self) -> str:
        """32 hex digits, a function of source, source id and the reason."""
        return row_id(self.source, self.source_id, "skipped", self.reason)

    def as_json(self) -> dict[str, Any]:
        """The skip as `negbench db read` prints it."""
        return {"source": self.source, "source_id": self.source_id, "reason": self.reason}


RECORD_FIELDS = tuple(field.name for field in fields(RawRecord))


def row_id(source: str, source_id: str, prompt: str | None, negative: str | None) -> str:
    """First 128 bits of a sha256 over the four parts, each told apart from its neighbor."""
    digest = hashlib.sha256(b"negbench-row/1")
    for part in (source, source_id, prompt, negative):
        data = b"\xff" if part is None else part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:32]
