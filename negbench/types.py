"""The vocabulary of negbench: small frozen types whose canonical bytes are their identity.

Everything that determines the pixels of an image sits in one `ImageRequest`; the sha256 of its
canonical JSON is the image's key. Times, devices, paths and method names are not in it, so equal
requests are drawn once and shared by every method.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from negbench.errors import ConfigError

MAX_TEXT = 20_000
"""Longest prompt or negative prompt, in characters; longer input is refused, never cut silently."""

REQUEST_SCHEMA: Literal[1] = 1
SEED_BITS = 32
"""`torch.Generator("cpu").manual_seed` uses the low 32 bits only, so seeds are 32-bit numbers."""


def _normal(value: Any) -> Any:
    """Strings in NFC, recursively; a lone surrogate is refused because it has no UTF-8 form."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError("text holds a lone surrogate, which has no UTF-8 form") from error
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        return {_normal(key): _normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_normal(item) for item in value)
    return value


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; refuses NaN and infinity."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def sha256_hex(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


class Spec(BaseModel):
    """A frozen value with canonical bytes; unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _nfc(cls, data: Any) -> Any:
        return _normal(data)

    def canonical(self) -> bytes:
        """The canonical JSON of this value: equal values have equal bytes on every machine."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """sha256 of `canonical()`, 64 hex digits."""
        return sha256_hex(self.canonical())


class Ref(Spec):
    """Names a component and every argument it was built with.

    `params` come from a validated config with its defaults made explicit, so that 7 and 7.0, or a
    default given and left out, are one identity.
    """

    name: str
    version: int = 1
    params: dict[str, JsonValue] = Field(default_factory=dict)


class Case(Spec):
    """One question of a benchmark: a prompt and what is known about it.

    Attributes:
        id: unique within its benchmark.
        prompt: what the picture should show.
        negative: a user's own negative prompt, or None.
        concept: what should not be seen, in removal benchmarks.
        tags: labels to break results down by.
    """

    id: str = Field(min_length=1, max_length=200)
    prompt: str = Field(max_length=MAX_TEXT)
    negative: str | None = Field(default=None, max_length=MAX_TEXT)
    concept: str | None = Field(default=None, max_length=MAX_TEXT)
    tags: tuple[str, ...] = ()


_PLACE = re.compile(r"<embedding:[0-9a-f]{8}>")


def embedding_place(digest: str) -> str:
    """What stands in a text where an embedding goes: ``<embedding:3fa9c1d2>``."""
    return f"<embedding:{digest[:8]}>"


def holds_embedding(text: str) -> bool:
    """Whether an embedding goes somewhere in `text`, so that not all of it can be read."""
    return _PLACE.search(text) is not None


class Negative(Spec):
    """One negative prompt and its weight (1 = plain).

    Attributes:
        text: the words; where an embedding is given, its `embedding_place` stands in them.
        weight: 1 is plain.
        embedding: digest of a learned embedding (`negbench.embedding.Embedding`), or None, which is
            left out of the canonical bytes.
    """

    text: str = Field(max_length=MAX_TEXT)
    weight: float = 1.0
    embedding: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.embedding is not None and embedding_place(self.embedding) not in self.text:
            raise ValueError(
                f"the text of a negative with an embedding holds its place, "
                f"{embedding_place(self.embedding)}"
            )
        return self

    @model_serializer(mode="wrap")
    def _lean(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        if values.get("embedding") is None:
            values.pop("embedding", None)
        return values


def join_negatives(negatives: Sequence[Negative]) -> Negative:
    """Plain negatives as one text joined by commas.

    Raises:
        ConfigError: two different embeddings among them.
    """
    embeddings = {item.embedding for item in negatives if item.embedding is not None}
    if len(embeddings) > 1:
        raise ConfigError(
            f"{len(embeddings)} embeddings in one negative prompt: a text holds one; take a rule "
            "that keeps negatives apart, for example --guidance perp_neg"
        )
    text = ", ".join(item.text for item in negatives)
    return Negative(text=text, embedding=next(iter(embeddings), None))


class Guidance(Spec):
    """A guidance rule by name and version, its scale (diffusers' convention) and its parameters."""

    kind: str = "cfg"
    version: int = 1
    scale: float = 7.5
    params: dict[str, JsonValue] = Field(default_factory=dict)


class Treatment(Spec):
    """What a method decided for one case.

    `guidance` None means the plan's own rule and scale; a request holds it resolved.
    """

    prompt: str = Field(max_length=MAX_TEXT)
    negatives: tuple[Negative, ...] = ()
    guidance: Guidance | None = None

    def negative_text(self) -> str:
        """All negatives as one comma separated text, for metrics and for people."""
        return ", ".join(negative.text for negative in self.negatives if negative.text.strip())


class ImageRequest(Spec):
    """Everything that determines the pixels of one image."""

    schema_: Literal[1] = REQUEST_SCHEMA
    generator: Ref
    treatment: Treatment
    seed: int = Field(ge=0, lt=2**SEED_BITS)

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        if self.treatment.guidance is None:
            raise ValueError("a request needs a resolved guidance rule")
        return self

    @property
    def guidance(self) -> Guidance:
        """The resolved guidance rule."""
        assert self.treatment.guidance is not None
        return self.treatment.guidance

    def key(self) -> str:
        """The image's key: the digest of this request."""
        return self.digest()


class Score(BaseModel):
    """A number or the reason why there is none; never NaN, never a filler."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None = None
    unscored: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.value is None) == (self.unscored is None):
            raise ValueError("a score is a value or a reason, exactly one of them")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a score must be finite, got {self.value}")
        return self

    @classmethod
    def of(cls, value: float) -> Score:
        """The score `value`; a value that is not finite becomes a reason."""
        number = float(value)
        if math.isfinite(number):
            return cls(value=number)
        return cls(unscored=f"not finite: {number}")

    @classmethod
    def missing(cls, reason: str) -> Score:
        """No score, and why."""
        return cls(unscored=reason)


class Estimate(BaseModel):
    """A headline number: value with a 95 % interval, how many were scored, unit and direction.

    `customary` has numbers that people are used to see beside it, without an interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: str
    value: float | None
    ci95: tuple[float, float] | None
    n_scored: int
    n_unscored: int
    n_prompts: int
    higher_is_better: bool | None
    unit: str
    note: str | None = None
    customary: dict[str, float] = Field(default_factory=dict)


class PairedDifference(BaseModel):
    """Method minus baseline on the same cases and seeds, clustered by prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: str
    baseline: str
    delta: float | None
    ci95: tuple[float, float] | None
    p: float | None
    n: int
    n_unscored: int
    n_prompts: int
    higher_is_better: bool | None
    unit: str
    note: str | None = None


def seed_of(benchmark: str, prompt: str, replicate: int) -> int:
    """The seed of one replicate of a prompt: a 32-bit number, the same for every method.

    Args:
        benchmark: name and version, for example ``miniature-quality@1``.
        prompt: the case's prompt; NFC normal form is taken.
        replicate: counts from 0.

    Returns:
        An integer in [0, 2**32), from the first four bytes of a sha256.
    """
    text = canonical_json(["negbench-seed", 1, benchmark, _normal(prompt), int(replicate)])
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
