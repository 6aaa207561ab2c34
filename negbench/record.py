"""A run on disk: what was asked, what came out of it, sample by sample.

    <out>/<benchmark>/<method>/<plan digest, 12>/
        run.json             header: plan, status, provenance, estimates; rewritten atomically
        samples/<w>.jsonl    one line a sample, append-only, one file a writer, merged on read
        rows/                what each image adds to a set metric (class probabilities)

Times and devices are provenance, not results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from negbench.errors import RecordError
from negbench.files import read_json, read_lines, write_json
from negbench.types import Estimate, Guidance, PairedDifference, Ref, Score, Spec, Treatment

if TYPE_CHECKING:
    import pandas as pd

RUN_SCHEMA = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Schema version -> function that turns a header of that version into the next one."""


class Plan(Spec):
    """What a run draws; its digest names the run.

    Attributes:
        benchmark: name, version and everything that chose the cases.
        dataset: sha256 over all cases.
        n_cases: how many cases there are.
        replicates: noises a case.
        method: the method's identity.
        treatments: sha256 over what the method decided, so that a method whose code changed
            without a new version is another plan.
        guidance: plain CFG of the twins.
        treatment_guidance: the rule that carries treatments without a rule of their own.
        generator: the generator's identity.
    """

    schema_: Literal[1] = 1
    benchmark: Ref
    dataset: str
    n_cases: int
    replicates: int
    method: Ref
    treatments: str
    guidance: Guidance
    treatment_guidance: Guidance
    generator: Ref


class ImageResult(BaseModel):
    """One image of a sample: its request's key, its pixels' digest, its cost and scores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    image: str
    evaluations: int
    facts: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Score] = Field(default_factory=dict)


class Sample(BaseModel):
    """One case drawn with one noise: the treated image, its twin, and a protocol's further arms.

    Attributes:
        arms: arm -> image (`negbench.requests.ARMS`); empty in the quality protocol.
        placebo: the unrelated concept of the arm ``placebo``, None without that arm.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    case: str
    replicate: int
    seed: int
    prompt: str
    concept: str | None = None
    tags: tuple[str, ...] = ()
    treatment: Treatment
    treated: ImageResult
    twin: ImageResult
    arms: dict[str, ImageResult] = Field(default_factory=dict)
    placebo: str | None = None
    metrics: dict[str, str] = Field(default_factory=dict)
    """Metric name -> digest of the metric that made the scores."""

    @model_serializer(mode="wrap")
    def _without_blanks(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A sample without arms has the fields that it had before there were arms."""
        return _without(dump(self), ("arms", "placebo"))

    def images(self) -> dict[str, ImageResult]:
        """All images by side: ``treated``, ``twin`` and the arms."""
        return {"treated": self.treated, "twin": self.twin, **self.arms}

    @property
    def id(self) -> tuple[str, int]:
        """Case and replicate."""
        return self.case, self.replicate


class Breakdown(BaseModel):
    """The same numbers over a part of the cases.

    Attributes:
        by: what the cases are parted by, for example ``category``.
        group: the part, for example ``attribute``.
        n_cases: cases in it.
    """

    model_config = ConfigDict(extra="forbid")

    by: str
    group: str
    n_cases: int
    estimates: list[Estimate] = Field(default_factory=list)
    paired: list[PairedDifference] = Field(default_factory=list)


class Record(BaseModel):
    """The header of a run, `run.json`."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = RUN_SCHEMA
    plan: Plan
    plan_digest: str
    status: Literal["running", "partial", "complete"]
    label: str
    provenance: dict[str, Any]
    metrics: dict[str, Ref]
    n_samples: int
    n_expected: int
    estimates: list[Estimate] = Field(default_factory=list)
    twin_estimates: list[Estimate] = Field(default_factory=list)
    paired: list[PairedDifference] = Field(default_factory=list)
    breakdown: list[Breakdown] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    folder: Path | None = Field(default=None, exclude=True)

    @model_serializer(mode="wrap")
    def _without_blanks(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A record without a breakdown has the fields that it had before there were any."""
        return _without(dump(self), ("breakdown",))

    def samples(self) -> list[Sample]:
        """All samples of the run in a fixed order (by case and replicate)."""
        if self.folder is None:
            return []
        return sorted(read_samples(self.folder).values(), key=lambda sample: sample.id)

    def to_pandas(self) -> pd.DataFrame:
        """One row a sample: case, prompt, negative, seed, a column a score.

        Columns of the twin begin with ``twin_``, those of further arms with the arm's name.

        A score that does not exist is NaN there, and its reason stands in ``<metric>_unscored``.
        """
        import pandas as pd

        return pd.DataFrame([_flat(sample) for sample in self.samples()])


def _without(data: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`data` without those of `names` that are empty."""
    return {key: value for key, value in data.items() if value or key not in names}


def _flat(sample: Sample) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case": sample.case,
        "replicate": sample.replicate,
        "seed": sample.seed,
        "prompt": sample.prompt,
        "negative": sample.treatment.negative_text(),
        "tags": list(sample.tags),
        "key": sample.treated.key,
        "twin_key": sample.twin.key,
    }
    if sample.arms:
        row |= {"concept": sample.concept, "placebo": sample.placebo}
        row |= {f"{arm}_key": image.key for arm, image in sample.arms.items()}
    for side, image in sample.images().items():
        prefix = "" if side == "treated" else f"{side}_"
        for name, score in image.scores.items():
            row[prefix + name] = score.value
            if score.unscored is not None:
                row[f"{prefix}{name}_unscored"] = score.unscored
    return row


def run_folder(out: Path, plan: Plan) -> Path:
    """Where the run of `plan` lies: the same plan is the same folder."""
    benchmark = f"{plan.benchmark.name}@{plan.benchmark.version}"
    return out / safe_name(benchmark) / safe_name(plan.method.name) / plan.digest()[:12]


def safe_name(name: str) -> str:
    """`name` as one path component: letters, digits and ``@+._-``, never hidden, at most 80."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "@+._-") else "_" for c in name)
    return kept.lstrip(".")[:80] or "_"


def read_samples(folder: Path) -> dict[tuple[str, int], Sample]:
    """Samples by case and replicate, all writers merged; later scores join earlier ones.

    Raises:
        RecordError: a line is damaged or belongs to a newer version; file and line are named.
    """
    merged: dict[tuple[str, int], Sample] = {}
    for path in sorted((folder / "samples").glob("*.jsonl")):
        for number, line in enumerate(read_lines(path), start=1):
            try:
                sample = Sample.model_validate(line)
            except ValidationError as error:
                first = error.errors()[0]
                raise RecordError(
                    f"{path}:{number}: not a sample of this version of negbench "
                    f"({'.'.join(map(str, first['loc']))}: {first['msg']}); "
                    "move the file away and give the same command again"
                ) from error
            known = merged.get(sample.id)
            merged[sample.id] = sample if known is None else _join(known, sample)
    return merged


def _join(first: Sample, second: Sample) -> Sample:
    before, after = first.images(), second.images()
    if {k: v.image for k, v in before.items()} != {k: v.image for k, v in after.items()}:
        return second
    joined = {
        side: image.model_copy(update={"scores": {**before[side].scores, **image.scores}})
        for side, image in after.items()
    }
    return second.model_copy(
        update={
            "metrics": {**first.metrics, **second.metrics},
            "treated": joined.pop("treated"),
            "twin": joined.pop("twin"),
            "arms": joined,
        }
    )


def save_record(folder: Path, record: Record) -> None:
    """Write ``run.json`` atomically; failing to write is an error, never a warning."""
    write_json(folder / "run.json", record.model_dump(mode="json"))


def load_record(folder: str | Path) -> Record:
    """Read a run from its folder (or its ``run.json``), migrating older headers.

    Raises:
        RecordError: no run is there, it is damaged, foreign, or newer than this version.
    """
    path = Path(folder)
    if path.name == "run.json":
        path = path.parent
    header = path / "run.json"
    if not header.is_file():
        raise RecordError(
            f"{path} is no run: it has no run.json; give a folder that evaluate wrote"
        )
    data = migrate(read_json(header), source=header)
    try:
        record = Record.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecordError(
            f"{header} is not a negbench run ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "move the folder away and run again"
        ) from error
    if record.plan.digest() != record.plan_digest:
        raise RecordError(
            f"{header}: plan and plan_digest disagree, so the file was edited; "
            "move the folder away and run again"
        )
    record.folder = path
    return record


def migrate(data: Mapping[str, Any], *, source: Path) -> dict[str, Any]:
    """`data` brought to the present schema, step by step."""
    header = dict(data)
    version = header.get("schema_version")
    if not isinstance(version, int):
        raise RecordError(f"{source} has no schema_version, so it is not a negbench run")
    if version > RUN_SCHEMA:
        raise RecordError(
            f"{source} has schema {version}, this version reads up to {RUN_SCHEMA}; "
            "upgrade negbench"
        )
    while version < RUN_SCHEMA:
        if version not in MIGRATIONS:
            raise RecordError(f"{source} has schema {version}, which nothing can read")
        header = MIGRATIONS[version](header)
        version = int(header["schema_version"])
    return header


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """Run folders named by `paths`: runs themselves, or folders that hold runs at any depth."""
    found: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.name == "run.json":
            path = path.parent
        if (path / "run.json").is_file():
            found.append(path)
            continue
        below = sorted(header.parent for header in path.rglob("run.json"))
        if not below:
            raise RecordError(f"{path} holds no run; give a folder that evaluate wrote")
        found.extend(below)
    return list(dict.fromkeys(found))
