"""The sidecars of an entry: what every sample scored, as two small parquet files.

Twins are the same for every method, so they lie in a file of their own that entries share.

A row a sample, in the order of the benchmark's cases. For each picture of a sample (``treated``,
``twin`` and a protocol's arms): the first 8 bytes of its request's key and of its pixels' digest,
what it cost, and for each metric its score or the reason why there is none; for a set metric the
float32 row that it adds. `cluster` numbers the prompts in sorted order: statistics group by prompt,
and their random draws follow that order, so that they come out the same where prompts are withheld.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from negbench.errors import RecordError
from negbench.protocols.cases import order_key
from negbench.requests import ARMS
from negbench.types import Score, Treatment, canonical_json

if TYPE_CHECKING:
    from negbench.leaderboard.entry import MetricFacts
    from negbench.record import Sample
    from negbench.store import FeatureStore

SIDES = ("treated", "twin", *ARMS)
DIGEST_BYTES = 8
MAX_BYTES = 64_000_000
MAX_UNPACKED = 1_000_000_000
MAX_SAMPLES = 1_000_000

OWN_TEXT = ("clip_to_negative",)
"""Metrics that hold a picture against the method's own text, so that methods do not compare."""

Column = tuple[str, str]
"""Side and metric."""


@dataclass(frozen=True)
class Values:
    """What every sample scored; all sequences run over samples.

    Attributes:
        sides: ``treated``, ``twin`` and the protocol's arms.
        cases: id of each sample's case.
        replicates: noise.
        seeds: 32-bit seed.
        clusters: number of the prompt in sorted order.
        tags: labels of the case.
        keys: side -> first 8 bytes of the request's key, in hex.
        images: side -> first 8 bytes of the pixels' digest, in hex.
        evaluations: side -> denoiser predictions spent.
        scores: (side, metric) -> scores; metrics that score images.
        rows: (side, metric) -> float32 (samples, d); metrics that score sets.
        prompts: or None if withheld; so `concepts`, `placebos` and `treatments`.
        concepts: what should go, or None.
        placebos: the unrelated concept, or None.
        treatments: what the method decided, resolved.
    """

    sides: tuple[str, ...]
    cases: tuple[str, ...]
    replicates: tuple[int, ...]
    seeds: tuple[int, ...]
    clusters: tuple[int, ...]
    tags: tuple[tuple[str, ...], ...]
    keys: Mapping[str, tuple[str, ...]]
    images: Mapping[str, tuple[str, ...]]
    evaluations: Mapping[str, tuple[int, ...]]
    scores: Mapping[Column, tuple[Score, ...]]
    rows: Mapping[Column, npt.NDArray[np.float32]]
    prompts: tuple[str, ...] | None
    concepts: tuple[str | None, ...] | None
    placebos: tuple[str | None, ...] | None
    treatments: tuple[Treatment, ...] | None

    @property
    def ids(self) -> list[tuple[str, int]]:
        """Case and replicate of each sample."""
        return list(zip(self.cases, self.replicates, strict=True))

    def clusters_as_text(self) -> list[str]:
        """The cluster of each sample as text, sorted as the prompts are."""
        return [f"{number:07d}" for number in self.clusters]

    def numbers(self, metric: str, side: str = "treated") -> list[float | None]:
        """The scores of an image metric; None where unscored."""
        return [score.value for score in self.scores[side, metric]]


def from_samples(
    samples: Iterable[Sample],
    metrics: Mapping[str, MetricFacts],
    rows: Mapping[str, FeatureStore],
    *,
    texts: bool,
) -> Values:
    """The values of a run.

    Args:
        samples: all samples, in any order.
        metrics: which columns.
        rows: for each set metric, what each image adds, by image digest.
        texts: keep prompts, concepts and treatments.
    """
    ordered = sorted(samples, key=lambda sample: (order_key(sample.case), sample.replicate))
    number = {prompt: at for at, prompt in enumerate(sorted({s.prompt for s in ordered}))}
    sides = tuple(side for side in SIDES if side in ordered[0].images())
    results = {side: [sample.images()[side] for sample in ordered] for side in sides}
    size = 2 * DIGEST_BYTES
    scored = [name for name, facts in metrics.items() if facts.kind == "image"]
    sets = [name for name, facts in metrics.items() if facts.kind == "set"]
    return Values(
        sides=sides,
        cases=tuple(s.case for s in ordered),
        replicates=tuple(s.replicate for s in ordered),
        seeds=tuple(s.seed for s in ordered),
        clusters=tuple(number[s.prompt] for s in ordered),
        tags=tuple(s.tags for s in ordered),
        keys={side: tuple(r.key[:size] for r in found) for side, found in results.items()},
        images={side: tuple(r.image[:size] for r in found) for side, found in results.items()},
        evaluations={side: tuple(r.evaluations for r in found) for side, found in results.items()},
        scores={
            (side, name): tuple(r.scores[name] for r in found)
            for side, found in results.items()
            for name in scored
        },
        rows={
            (side, name): np.stack([rows[name][r.image] for r in found])
            for side, found in results.items()
            for name in sets
        },
        prompts=tuple(s.prompt for s in ordered) if texts else None,
        concepts=tuple(s.concept for s in ordered) if texts else None,
        placebos=tuple(s.placebo for s in ordered) if texts else None,
        treatments=tuple(s.treatment for s in ordered) if texts else None,
    )


TEXTS = ("prompt", "concept", "placebo", "treatment")


def to_parquet(values: Values) -> tuple[bytes, bytes]:
    """The sidecars' bytes, the entry's own and the twins'.

    Equal values give equal bytes with one version of pyarrow.
    """
    import pyarrow as pa

    def packed(digests: Iterable[str]) -> Any:
        return pa.array([bytes.fromhex(text) for text in digests], pa.binary(DIGEST_BYTES))

    ids: dict[str, Any] = {
        "case": pa.array(values.cases, pa.string()),
        "replicate": pa.array(values.replicates, pa.int32()),
    }
    columns: dict[str, Any] = {
        "seed": pa.array(values.seeds, pa.uint32()),
        "cluster": pa.array(values.clusters, pa.int32()),
        "tags": pa.array([json.dumps(tags, ensure_ascii=False) for tags in values.tags]),
    }
    if values.treatments is not None:
        dumped = [canonical_json(t.model_dump(mode="json")).decode() for t in values.treatments]
        lists = (values.prompts, values.concepts, values.placebos, dumped)
        columns |= {n: pa.array(t, pa.string()) for n, t in zip(TEXTS, lists, strict=True)}
    for side in values.sides:
        columns[f"{side}:key"] = packed(values.keys[side])
        columns[f"{side}:image"] = packed(values.images[side])
        columns[f"{side}:spent"] = pa.array(values.evaluations[side], pa.int32())
    for (side, name), scores in sorted(values.scores.items()):
        columns[f"{side}.{name}"] = pa.array([s.value for s in scores], pa.float64())
        if any(s.unscored is not None for s in scores):
            columns[f"{side}.{name}.unscored"] = pa.array([s.unscored for s in scores])
    for (side, name), rows in sorted(values.rows.items()):
        for at in range(rows.shape[1]):
            columns[f"{side}.{name}.{at}"] = pa.array(rows[:, at], pa.float32())
    twins = {name: column for name, column in columns.items() if _shared(name)}
    own = {name: column for name, column in columns.items() if name not in twins}
    return _packed({**ids, **own}), _packed({**ids, **twins})


def _shared(column: str) -> bool:
    """Whether a column is the same for every method: of the twin, and not of the own negative."""
    side, _, rest = column.replace(":", ".", 1).partition(".")
    return side == "twin" and rest.partition(".")[0] not in OWN_TEXT


def _packed(columns: dict[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns)
    split = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    packed = [field.name for field in table.schema if pa.types.is_fixed_size_binary(field.type)]
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        compression_level=19,
        use_dictionary=[name for name in columns if name not in (*split, *packed)],
        column_encoding=dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        write_statistics=False,
        store_schema=False,
    )
    return buffer.getvalue()


def from_parquet(
    own: bytes, twins: bytes, metrics: Mapping[str, MetricFacts], *, where: str
) -> Values:
    """The values in two sidecars.

    Raises:
        RecordError: one is damaged, too large, does not fit the other, or has not the columns that
            `metrics` call for.
    """
    import pyarrow as pa

    try:
        columns, others = _columns(own, where=where), _columns(twins, where=f"{where} (twins)")
        for name in ("case", "replicate"):
            if columns[name].to_pylist() != others.pop(name).to_pylist():
                raise RecordError(f"{where}: its twins are of other samples; add the run again")
        if alien := [name for name in others if not _shared(name)]:
            raise RecordError(f"{where}: twins have a column {alien[0][:80]!r}")
        return _Reader({**columns, **others}).values(metrics)
    except RecordError:
        raise
    except KeyError as error:
        raise RecordError(f"{where}: no column {error}; add the run again") from error
    except (pa.ArrowException, ValueError, TypeError, OSError, OverflowError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecordError(f"{where}: damaged: {text}; add the run again") from error


def _columns(data: bytes, *, where: str) -> dict[str, Any]:
    import pyarrow.parquet as pq

    if len(data) > MAX_BYTES:
        raise RecordError(f"{where}: {len(data)} bytes, a sidecar has at most {MAX_BYTES}")
    file = pq.ParquetFile(io.BytesIO(data))
    facts = file.metadata
    groups = [facts.row_group(i).total_byte_size for i in range(facts.num_row_groups)]
    if facts.num_rows > MAX_SAMPLES or sum(groups) > MAX_UNPACKED:
        raise RecordError(f"{where}: unpacks to more than a sidecar may have")
    table = file.read()
    columns = {name: table.column(name) for name in table.column_names}
    if len(columns) != len(table.column_names):
        raise RecordError(f"{where}: a column stands twice")
    return columns


class _Reader:
    """Takes columns one by one; what is left over at the end belongs to no entry."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = dict(columns)

    def take(self, name: str) -> tuple[Any, ...]:
        return tuple(self.columns.pop(name).to_pylist())

    def values(self, metrics: Mapping[str, MetricFacts]) -> Values:
        sides = tuple(side for side in SIDES if f"{side}:key" in self.columns)
        scores: dict[Column, tuple[Score, ...]] = {}
        rows: dict[Column, npt.NDArray[np.float32]] = {}
        for side in sides:
            for name, facts in metrics.items():
                if facts.kind == "set":
                    rows[side, name] = self._rows(f"{side}.{name}")
                else:
                    scores[side, name] = self._scores(f"{side}.{name}")
        texts: dict[str, Any] = dict.fromkeys(TEXTS)
        if "treatment" in self.columns:
            texts = {name: self.take(name) for name in TEXTS}
            texts["treatment"] = tuple(
                Treatment.model_validate(json.loads(text)) for text in texts["treatment"]
            )
        found = Values(
            sides=sides,
            cases=self.take("case"),
            replicates=self.take("replicate"),
            seeds=self.take("seed"),
            clusters=self.take("cluster"),
            tags=tuple(tuple(map(str, json.loads(text))) for text in self.take("tags")),
            keys={side: tuple(d.hex() for d in self.take(f"{side}:key")) for side in sides},
            images={side: tuple(d.hex() for d in self.take(f"{side}:image")) for side in sides},
            evaluations={side: self.take(f"{side}:spent") for side in sides},
            scores=scores,
            rows=rows,
            prompts=texts["prompt"],
            concepts=texts["concept"],
            placebos=texts["placebo"],
            treatments=texts["treatment"],
        )
        if self.columns:
            raise ValueError(f"a column that no entry has: {min(self.columns)[:80]!r}")
        return found

    def _rows(self, stem: str) -> npt.NDArray[np.float32]:
        parts: list[Any] = []
        while f"{stem}.{len(parts)}" in self.columns:
            parts.append(self.columns.pop(f"{stem}.{len(parts)}").to_numpy())
        if not parts:
            raise KeyError(f"{stem}.0")
        stacked: npt.NDArray[np.float32] = np.stack(parts, axis=1).astype(np.float32)
        if not np.isfinite(stacked).all():
            raise ValueError(f"{stem} is not finite")
        return stacked

    def _scores(self, name: str) -> tuple[Score, ...]:
        numbers = self.take(name)
        reasons: Sequence[str | None] = [None] * len(numbers)
        if f"{name}.unscored" in self.columns:
            reasons = self.take(f"{name}.unscored")
        pairs = zip(numbers, reasons, strict=True)
        return tuple(Score(value=value, unscored=reason) for value, reason in pairs)
