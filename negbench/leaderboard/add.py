"""From a run to an entry: checks, then two small files and a line in the lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from negbench.errors import DataError, MissingError, RecordError, UnknownNameError
from negbench.files import write_atomic
from negbench.hub import parse
from negbench.leaderboard import lock
from negbench.leaderboard.entry import (
    VALUES_SUFFIX,
    Declared,
    Entry,
    MetricFacts,
    Provenance,
    ValuesFile,
    holds_path,
    read_entry,
    sealed,
    twins_name,
    without_paths,
)
from negbench.leaderboard.recompute import differences, facts_of, recompute, without_weights
from negbench.leaderboard.values import Values, from_samples, to_parquet
from negbench.protocols import Benchmark, load_benchmark
from negbench.record import Plan, Record, load_record, safe_name
from negbench.store import FeatureStore
from negbench.summary import RunSummary
from negbench.types import Ref, sha256_hex

ENTRIES = "entries"
FREE_SOURCES = ("miniature",)
"""Data sets whose text may be passed on; of others an entry keeps ids and numbers only."""


@dataclass(frozen=True)
class Addition:
    """What `add_run` did: the entry, its file, and whether it is new."""

    entry: Entry
    path: Path
    new: bool


def benchmark_of(name: str, version: int) -> Benchmark | None:
    """The shipped benchmark of that name and version, or None."""
    try:
        return load_benchmark(f"{name}@{version}")
    except UnknownNameError:
        return None


def add_run(
    run: str | Path,
    board: str | Path,
    *,
    declared: Declared | None = None,
    generator_name: str | None = None,
    texts: bool | None = None,
) -> Addition:
    """Check a run and add it as an entry.

    Args:
        run: folder of a run.
        board: folder of the leaderboard.
        declared: what the submitter says.
        generator_name: short name of the generator for people; its digest is added to it.
        texts: keep prompts and negatives in the sidecar; None: where the data are free.

    Returns:
        The entry. Adding the same run again changes nothing.

    Raises:
        RecordError: the run is not whole, or was edited.
        DataError: the run is no whole benchmark, or its plan names files of this machine.
    """
    record = load_record(run)
    where = record.folder
    if record.status != "complete" or record.n_samples != record.n_expected:
        raise RecordError(
            f"{where}: {record.n_samples} of {record.n_expected} samples are there; give the "
            "evaluate command again, then add it"
        )
    plan = record.plan
    bench = benchmark_of(plan.benchmark.name, plan.benchmark.version)
    if bench is not None:
        for problem in whole_benchmark(record.plan, bench):
            raise DataError(f"{where}: {problem}; an entry is a whole benchmark")
    elif plan.benchmark.name.endswith("+prompts"):
        raise DataError(f"{where}: drawn with --prompts; an entry is a whole benchmark")
    if holds_path(plan.model_dump(mode="json")):
        raise DataError(
            f"{where}: the plan holds a path of this machine, so nobody else could draw it; an "
            "identity has digests, see CONTRIBUTING, A method"
        )
    metrics = {
        name: facts_of(without_weights(name, ref), ref=ref)
        for name, ref in record.metrics.items()
        if bench is None or name in bench.metrics
    }
    if bench is not None and (absent := sorted(set(bench.metrics) - set(metrics))):
        raise DataError(
            f"{where}: no {absent[0]}; give the evaluate command again without --metric"
        )
    keep = texts
    if keep is None:
        keep = bench is not None and bench.data.source in FREE_SOURCES
    values = _values(record, metrics, texts=keep)
    claims = _claims(record, metrics)
    summary, unknown = recompute(plan, metrics, values)
    for problem in differences(claims, summary, skip=unknown):
        raise RecordError(
            f"{where}: {problem}, so a file was edited or is of another version; run again in a "
            "new folder"
        )
    data, twins = to_parquet(values)
    entry = sealed(
        plan=plan,
        plan_digest=record.plan_digest,
        generator_name=generator_name or _generator_name(plan.generator),
        metrics=metrics,
        estimates=tuple(claims.estimates),
        twin_estimates=tuple(claims.twin_estimates),
        paired=tuple(claims.paired),
        notes=tuple(without_paths(note)[:1000] for note in record.notes[:40]),
        values=ValuesFile(
            file=_stem(plan.method.name, record.plan_digest) + VALUES_SUFFIX,
            sha256=sha256_hex(data),
            twins=twins_name(sha256_hex(twins)),
            twins_sha256=sha256_hex(twins),
            samples=len(values.cases),
            texts=keep,
        ),
        provenance=_provenance(record),
        declared=declared or Declared(),
    )
    return _write(entry, data, twins, Path(board))


def _claims(record: Record, metrics: Mapping[str, MetricFacts]) -> RunSummary:
    """The record's numbers without those of metrics that the benchmark does not have."""
    others = set(record.metrics) - set(metrics)
    return RunSummary(
        estimates=[e for e in record.estimates if e.metric not in others],
        twin_estimates=[e for e in record.twin_estimates if e.metric not in others],
        paired=[p for p in record.paired if p.metric not in others],
    )


def _stem(method: str, digest: str) -> str:
    return f"{safe_name(method)}-{digest[:12]}"


def _write(entry: Entry, values: bytes, twins: bytes, board: Path) -> Addition:
    path = board / ENTRIES / entry.path
    lines = lock.read_lock(board / lock.LOCK)
    known = lock.current(lines).get(entry.path)
    added = lock.Added(
        entry=entry.path, sha256=sha256_hex(entry.to_bytes()), values=entry.values.sha256
    )
    if known is not None and known != added:
        raise DataError(
            f"{path} is there with other numbers or another declaration, and an entry is never "
            "edited; `negbench leaderboard withdraw` it with a reason, then add the run"
        )
    if known is None and path.is_file() and read_entry(path) != entry:
        raise DataError(f"{path} is there but not in {lock.LOCK}; remove it, then add the run")
    write_atomic(path.with_name(entry.values.twins), twins)
    write_atomic(path.with_name(entry.values.file), values)
    write_atomic(path, entry.to_bytes())
    if known is None:
        lock.append(board / lock.LOCK, added)
    return Addition(entry=entry, path=path, new=known is None)


def withdraw(entry_path: str, board: str | Path, *, reason: str) -> lock.Withdrawn:
    """Take an entry out, openly: its files go, its line and the reason stay in the lock.

    Raises:
        MissingError: there is no such entry.
    """
    root = Path(board)
    name = relative_path(entry_path, root)
    known = lock.current(lock.read_lock(root / lock.LOCK)).get(name)
    if known is None:
        raise MissingError(f"no entry {name} in {root / lock.LOCK}; give its path below entries/")
    line = lock.Withdrawn(entry=name, sha256=known.sha256, reason=" ".join(reason.split()))
    lock.append(root / lock.LOCK, line)
    path = root / ENTRIES / name
    path.unlink(missing_ok=True)
    path.with_name(path.name.removesuffix(".json") + VALUES_SUFFIX).unlink(missing_ok=True)
    kept = {read_entry(other).values.twins for other in path.parent.glob("*.json")}
    for twins in path.parent.glob("twins-*.parquet"):
        if twins.name not in kept:
            twins.unlink()
    return line


def relative_path(entry_path: str, board: Path) -> str:
    """`entry_path`, given in full or below the board, as it stands below ``entries/``."""
    root = (board / ENTRIES).resolve()
    for candidate in (Path(entry_path), board / entry_path, root / entry_path):
        whole = candidate.resolve()
        if whole.is_file() and whole.is_relative_to(root):
            return whole.relative_to(root).as_posix()
    return entry_path.removeprefix(f"{ENTRIES}/")


def whole_benchmark(plan: Plan, bench: Benchmark) -> list[str]:
    """Where a plan is not the benchmark as it is shipped, in words."""
    problems = []
    wanted = bench.data.cases
    if wanted is not None and plan.n_cases != wanted:
        problems.append(f"{plan.n_cases} cases of {wanted} (--limit)")
    if plan.replicates != bench.replicates:
        problems.append(f"{plan.replicates} noises a case instead of {bench.replicates}")
    if plan.guidance != bench.guidance:
        problems.append(f"twins drawn at scale {plan.guidance.scale:g} (--scale)")
    removal = bench.removal.model_dump(mode="json") if bench.removal is not None else {}
    expected = {"protocol": bench.protocol, "cases": plan.n_cases, **removal}
    if any(plan.benchmark.params.get(key) != value for key, value in expected.items()):
        problems.append("the benchmark's parameters are not those of this version")
    return problems


def _values(record: Record, metrics: Mapping[str, MetricFacts], *, texts: bool) -> Values:
    assert record.folder is not None
    rows = {
        name: FeatureStore(record.folder, facts.ref, kind="rows")
        for name, facts in metrics.items()
        if facts.kind == "set"
    }
    samples = record.samples()
    digests = {name: facts.ref.digest() for name, facts in metrics.items()}
    for sample in samples:
        if any(sample.metrics.get(name) != digest for name, digest in digests.items()):
            raise RecordError(
                f"{record.folder}: sample {sample.case} was scored by another version of a metric; "
                "give the evaluate command again"
            )
    try:
        return from_samples(samples, metrics, rows, texts=texts)
    except KeyError as error:
        raise RecordError(
            f"{record.folder}: no row of image {str(error)[:14]}; run again in a new folder"
        ) from error


def _generator_name(generator: Ref) -> str:
    from negbench.generators.resolve import resolve

    if generator.name != "diffusers":
        return safe_name(generator.name)[:40]
    shipped = resolve().ref()
    if generator.params.get("weights") == shipped.params.get("weights"):
        return "miniature"
    return safe_name(str(generator.params.get("family", "diffusers")))[:40]


def _provenance(record: Record) -> Provenance:
    about = record.provenance
    generator = about.get("generator", {})
    sessions = [s for s in about.get("sessions", []) if isinstance(s, dict)]
    drawing = [s for s in sessions if s.get("images_drawn")]
    device = str(generator.get("device", "cpu")).partition(":")[0]
    versions = {str(k): str(v) for k, v in about.get("versions", {}).items()}
    commit = generator.get("commit")
    if generator.get("repo") and parse(str(generator["repo"])) is not None:
        versions["generator"] = f"{generator['repo']} {str(commit or '')[:12]}".strip()
    return Provenance(
        negbench=str(about.get("negbench", "")),
        python=str(about.get("python", "")),
        machine=str(about.get("machine", "")),
        versions=versions,
        device=device,
        gpu=generator.get("gpu"),
        threads=generator.get("threads"),
        seconds=sum(float(s["seconds"]) for s in drawing) if drawing else None,
        images_drawn=sum(int(s["images_drawn"]) for s in drawing) if drawing else None,
        evaluations_drawn=sum(int(s["evaluations_drawn"]) for s in drawing) if drawing else None,
        finished=sessions[-1].get("finished") if sessions else None,
    )
