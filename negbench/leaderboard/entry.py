"""One entry: a whole run in one small file, known by its plan, sealed by its digest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from negbench.errors import RecordError
from negbench.record import Plan, safe_name
from negbench.types import Estimate, PairedDifference, Ref, Spec, canonical_json, sha256_hex

ENTRY_SCHEMA: Literal[1] = 1
MAX_ENTRY_BYTES = 1_000_000
VALUES_SUFFIX = ".values.parquet"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, Field(pattern=r"^[\w.+ ()/-]{0,120}$")]


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an https:// address")
    if any(c.isspace() or not c.isprintable() or c in "<>\"'`\\" for c in text):
        raise ValueError("an address holds no spaces, quotes, brackets or control characters")
    return text


Address = Annotated[str, Field(max_length=500), AfterValidator(_web_address)]


class MetricFacts(Spec):
    """What a column means: the metric's identity, unit and direction.

    Attributes:
        ref: name, version, parameters and digests of weights.
        kind: a number an image, or one for the whole set.
        needs_twin: True if it compares an image with its twin.
        bounds: smallest and largest value there can be; None where there is no end.
    """

    ref: Ref
    kind: Literal["image", "set"]
    unit: str = Field(max_length=40)
    higher_is_better: bool | None
    needs_twin: bool
    bounds: tuple[float | None, float | None] | None = None


class Provenance(Spec):
    """With what it was drawn; no result. Times are of one machine and compare with nothing.

    Attributes:
        device: ``cpu``, ``cuda``, ... ; the class whose tolerance `verify` takes.
        seconds: wall time of the sessions that drew images of this run, other methods' included.
        images_drawn: images that those sessions drew; what a cache held is not in it.
        finished: when the last session ended, UTC.
    """

    negbench: Version
    python: Version
    machine: Version
    versions: dict[str, Version]
    device: Version
    gpu: Version | None = None
    threads: int | None = None
    seconds: float | None = None
    images_drawn: int | None = None
    evaluations_drawn: int | None = None
    finished: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")] | None = None


class Declared(Spec):
    """What the submitter says; nobody checked it."""

    paper: Address | None = None
    code: Address | None = None
    report: Address | None = None
    overlap: str | None = Field(default=None, max_length=2000)
    contact: str | None = Field(default=None, max_length=200)


class ValuesFile(Spec):
    """The sidecars beside the entry: names, sha256 of their bytes, how many samples they have.

    `twins` is shared by entries whose twins are equal. `texts` is False where prompts and negatives
    are withheld because they carry no licence.
    """

    file: str = Field(max_length=200)
    sha256: Sha256
    twins: str = Field(pattern=r"^twins-[0-9a-f]{12}\.parquet$")
    twins_sha256: Sha256
    samples: int = Field(ge=1)
    texts: bool

    @model_validator(mode="after")
    def _named_by_content(self) -> Self:
        if self.twins != twins_name(self.twins_sha256):
            raise ValueError("the twins' file is not named by its sha256")
        return self


def twins_name(sha256: str) -> str:
    """File name of twins with these bytes."""
    return f"twins-{sha256[:12]}.parquet"


class Entry(Spec):
    """A whole run of one method on one benchmark with one generator."""

    schema_version: Literal[1] = ENTRY_SCHEMA
    plan: Plan
    plan_digest: Sha256
    generator_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")
    metrics: dict[str, MetricFacts]
    estimates: tuple[Estimate, ...]
    twin_estimates: tuple[Estimate, ...]
    paired: tuple[PairedDifference, ...]
    notes: tuple[Annotated[str, Field(max_length=1000)], ...] = Field(default=(), max_length=40)
    values: ValuesFile
    provenance: Provenance
    declared: Declared = Declared()
    seal: Sha256

    @model_validator(mode="after")
    def _sealed(self) -> Self:
        if self.plan.digest() != self.plan_digest:
            raise ValueError("plan and plan_digest disagree")
        if self.values.file != self.stem + VALUES_SUFFIX:
            raise ValueError("the sidecar is not named as the entry is")
        if self.sealing() != self.seal:
            raise ValueError("content and seal disagree")
        return self

    def sealing(self) -> str:
        """sha256 over everything but `seal` itself."""
        return self.model_copy(update={"seal": ""}).digest()

    @property
    def benchmark(self) -> str:
        """Name and version, for example ``miniature-quality@1``."""
        return f"{self.plan.benchmark.name}@{self.plan.benchmark.version}"

    @property
    def path(self) -> str:
        """Where the entry belongs, below ``entries/``; a function of its content alone."""
        generator = f"{self.generator_name}-{self.plan.generator.digest()[:12]}"
        return f"{safe_name(self.benchmark)}/{generator}/{self.stem}.json"

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return f"{safe_name(self.plan.method.name)}-{self.plan_digest[:12]}"

    @property
    def title(self) -> str:
        """What the table calls it: the method, and the rule if it is not plain CFG."""
        rule = self.plan.treatment_guidance.kind
        return self.plan.method.name if rule == "cfg" else f"{self.plan.method.name} + {rule}"

    def to_bytes(self) -> bytes:
        """The file: JSON with sorted keys, indented by one."""
        return pretty(self.model_dump(mode="json"))


def pretty(value: Any) -> bytes:
    """JSON with sorted keys, indented by one, ending in a line break; NaN is refused."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8") + b"\n"


def sealed(**fields: Any) -> Entry:
    """An entry with its seal."""
    draft = Entry.model_construct(**fields, seal="")
    dumped = draft.model_dump(mode="json", warnings=False)
    return Entry.model_validate({**dumped, "seal": sha256_hex(canonical_json(dumped))})


def parse_entry(data: bytes, *, where: str) -> Entry:
    """The entry in `data`.

    Raises:
        RecordError: it is damaged, edited, foreign, or newer than this version; `where` is named.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise RecordError(f"{where}: {len(data)} bytes, an entry has at most {MAX_ENTRY_BYTES}")
    try:
        value = json.loads(data, object_pairs_hook=_no_double, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: not valid JSON: {error}; add the run again") from error
    if not isinstance(value, dict):
        raise RecordError(f"{where}: not an entry; add the run again")
    version = value.get("schema_version")
    if isinstance(version, int) and version > ENTRY_SCHEMA:
        raise RecordError(
            f"{where}: schema {version}, this version reads up to {ENTRY_SCHEMA}; upgrade negbench"
        )
    try:
        entry = Entry.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RecordError(
            f"{where}: {place + ': ' if place else ''}{first['msg']}; an entry is never edited, "
            "add the run again"
        ) from error
    if entry.to_bytes() != data:
        raise RecordError(f"{where}: not written as negbench writes it; add the run again")
    return entry


def read_entry(path: Path) -> Entry:
    """The entry in a file; see `parse_entry`."""
    try:
        if path.stat().st_size > MAX_ENTRY_BYTES:
            raise RecordError(f"{path}: larger than {MAX_ENTRY_BYTES} bytes, so it is no entry")
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_entry(data, where=str(path))


def _no_double(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_LOCAL = re.compile(r"(?<![\w:/.])(?:~[\w.-]*/|/(?!\s)|[A-Za-z]:\\|\\\\)[^\s'\"]+")


def without_paths(text: str) -> str:
    """`text` with paths of this machine cut down to their last part."""
    return _LOCAL.sub(lambda match: "…/" + re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], text)


def holds_path(value: Any) -> bool:
    """Whether some string in `value` is a path of a machine (or of somebody's home)."""
    if isinstance(value, str):
        return bool(re.match(r"(?:~[\w.-]*/|/|[A-Za-z]:\\|\\\\)\S", value))
    if isinstance(value, dict):
        return any(holds_path(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(holds_path(item) for item in value)
