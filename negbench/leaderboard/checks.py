"""Everything that must hold in a leaderboard's folder; what does not is told in one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from negbench.errors import MissingError, NegbenchError, RecordError, one_line
from negbench.leaderboard import lock
from negbench.leaderboard.add import ENTRIES, benchmark_of, whole_benchmark
from negbench.leaderboard.entry import Entry, holds_path, parse_entry
from negbench.leaderboard.recompute import differences, recompute
from negbench.leaderboard.tolerance import twins_apart
from negbench.leaderboard.values import MAX_BYTES, Values, from_parquet
from negbench.protocols import load_benchmark
from negbench.protocols.cases import dataset_digest, load_cases, order_key
from negbench.requests import Requests
from negbench.types import ImageRequest, Treatment, seed_of, sha256_hex

if TYPE_CHECKING:
    from negbench.protocols import Benchmark
    from negbench.types import Case


@dataclass(frozen=True)
class Checked:
    """An entry with its values; both files are what they say they are."""

    entry: Entry
    values: Values
    sha256: str


@dataclass
class Board:
    """A leaderboard's folder as read: whole entries by path, problems, remarks, the lock."""

    root: Path
    entries: dict[str, Checked] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    lines: list[lock.Added | lock.Withdrawn] = field(default_factory=list)


def check(board: str | Path, *, against: Path | None = None, built: bool = True) -> Board:
    """Check a leaderboard's folder.

    Args:
        board: the folder.
        against: an older `entries.lock`; every line of it must still be there.
        built: also hold the generated files against a rebuild.

    Returns:
        The board with all problems found; `remarks` says what could not be checked here.
    """
    found = read_board(board)
    if against is not None:
        if not against.is_file():
            raise RecordError(f"--against {against}: no such file; give an older entries.lock")
        gone = lock.lost(found.lines, lock.read_lock(against))
        found.problems += [f"{lock.LOCK}: a line went missing since {against}: {g}" for g in gone]
    for name, checked in found.entries.items():
        problems = [*_entry_problems(checked, found.remarks)]
        found.problems += [f"{ENTRIES}/{name}: {one_line(problem)}" for problem in problems]
    found.problems += _twin_problems(found.entries)
    if built and not found.problems:
        from negbench.leaderboard.build import stale_files

        found.problems += [
            f"{name}: {why}; run `negbench leaderboard build`"
            for name, why in stale_files(found).items()
        ]
    found.remarks = list(dict.fromkeys(found.remarks))
    return found


def read_board(board: str | Path) -> Board:
    """Read the lock and all entries; what cannot be read is among the problems.

    Raises:
        RecordError: there is no folder, or its lock is damaged.
    """
    found = Board(root=Path(board))
    if not found.root.is_dir():
        raise RecordError(f"{found.root} is no folder; `negbench leaderboard add` makes one")
    found.lines = lock.read_lock(found.root / lock.LOCK)
    expected = lock.current(found.lines)
    root = found.root / ENTRIES
    seen: set[str] = set()
    used: set[Path] = set()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found.problems.append(f"{ENTRIES}/{one_line(name)}: a link; an entry is a plain file")
        elif path.is_file() and path.suffix == ".json":
            seen.add(name)
            try:
                checked = _read(path, name, expected.get(name), used)
            except NegbenchError as error:
                found.problems.append(str(error))
            else:
                found.entries[name] = checked
    for name in sorted(set(expected) - seen):
        found.problems.append(
            f"{ENTRIES}/{one_line(name)}: in {lock.LOCK} but not there; an entry is only taken out "
            "by `negbench leaderboard withdraw`"
        )
    if not found.problems:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix != ".json" and path not in used:
                name = one_line(path.relative_to(found.root).as_posix())
                found.problems.append(f"{name}: belongs to no entry; remove it")
    return found


def read_entry_files(board: str | Path, name: str) -> Checked:
    """One entry with its values, held to the lock.

    Raises:
        MissingError: there is no such entry.
        RecordError: a file was changed.
    """
    root = Path(board)
    path = root / ENTRIES / name
    if ".." in Path(name).parts or not path.is_file():
        raise MissingError(f"no entry {one_line(name)} in {root}; give its path below entries/")
    line = lock.current(lock.read_lock(root / lock.LOCK)).get(name)
    return _read(path, name, line, set())


def _read(path: Path, name: str, line: lock.Added | None, used: set[Path]) -> Checked:
    where = f"{ENTRIES}/{one_line(name)}"
    data = _bytes(path, where)
    digest = sha256_hex(data)
    if line is None:
        raise RecordError(f"{where}: not in {lock.LOCK}; add the run with `leaderboard add`")
    if line.sha256 != digest:
        raise RecordError(
            f"{where}: changed since it was added (sha256 {digest[:12]}, {lock.LOCK} has "
            f"{line.sha256[:12]}); restore it, or withdraw it and add the run again"
        )
    entry = parse_entry(data, where=where)
    if entry.path != name:
        raise RecordError(f"{where}: its content belongs at {ENTRIES}/{entry.path}")
    parts = []
    for file, sha in (
        (entry.values.file, entry.values.sha256),
        (entry.values.twins, entry.values.twins_sha256),
    ):
        beside = path.with_name(file)
        used.add(beside)
        if beside.is_symlink() or not beside.is_file():
            raise RecordError(f"{where}: its values {file} are missing; add the run again")
        part = _bytes(beside, f"{where} ({file})")
        if sha256_hex(part) != sha:
            raise RecordError(f"{where}: {file} changed since it was added; restore it")
        parts.append(part)
    values = from_parquet(parts[0], parts[1], entry.metrics, where=where)
    return Checked(entry=entry, values=values, sha256=digest)


def _bytes(path: Path, where: str) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise RecordError(f"{where}: larger than {MAX_BYTES} bytes; remove it")
    return path.read_bytes()


@cache
def _cases(title: str) -> tuple[Case, ...]:
    return tuple(load_cases(load_benchmark(title))[0])


def _entry_problems(checked: Checked, remarks: list[str]) -> Iterator[str]:
    entry, values = checked.entry, checked.values
    yield from _sample_problems(entry, values)
    if holds_path(entry.model_dump(mode="json", include={"plan", "provenance", "notes"})):
        yield "holds a path of some machine"
    bench = benchmark_of(entry.plan.benchmark.name, entry.plan.benchmark.version)
    if bench is None:
        remarks.append(f"{entry.benchmark} is not shipped here: its cases were not checked")
    else:
        yield from _benchmark_problems(entry, values, bench, remarks)
    named = {estimate.metric for estimate in entry.estimates}
    for name in sorted(set(entry.metrics) - named):
        yield f"no estimate of {name}; a metric is scored or has a reason"
    try:
        summary, unknown = recompute(entry.plan, entry.metrics, values)
    except (NegbenchError, ValueError, KeyError) as error:
        yield f"cannot be computed again: {error}"
        return
    remarks += [f"{name} is not installed here and was not computed again" for name in unknown]
    yield from differences(entry, summary, skip=unknown)


def _sample_problems(entry: Entry, values: Values) -> Iterator[str]:
    plan = entry.plan
    n = len(values.cases)
    if n != entry.values.samples or n != plan.n_cases * plan.replicates:
        yield (
            f"{n} samples; its plan has {plan.n_cases} cases with {plan.replicates} noises and it "
            f"claims {entry.values.samples}"
        )
        return
    if values.sides[:2] != ("treated", "twin"):
        yield "its values lack treated images or twins"
        return
    order = [(order_key(case), case, replicate) for case, replicate in values.ids]
    if order != sorted(order) or len(set(order)) != n:
        yield "its samples are doubled or out of order"
    if {replicate for _, replicate in values.ids} != set(range(plan.replicates)):
        yield "its samples have other noises than its plan"
    if set(values.clusters) != set(range(len(set(values.clusters)))):
        yield "its prompts are not numbered one by one"
    for (side, name), scores in values.scores.items():
        low, high = entry.metrics[name].bounds or (None, None)
        for score in scores:
            if score.value is not None and (
                (low is not None and score.value < low) or (high is not None and score.value > high)
            ):
                yield f"{side} {name} of {score.value} is outside what the metric can have"
                break
    if (values.treatments is not None) != entry.values.texts:
        yield "says otherwise than its values whether texts are withheld"
    elif values.treatments is not None and values.prompts is not None:
        yield from _request_problems(entry, values, values.treatments, values.prompts)


def _request_problems(
    entry: Entry, values: Values, treatments: Sequence[Treatment], prompts: Sequence[str]
) -> Iterator[str]:
    """Seeds and keys follow from texts and plan."""
    plan = entry.plan
    requests = Requests(plan.generator, entry.benchmark, plan.guidance, plan.treatment_guidance)
    number = {prompt: at for at, prompt in enumerate(sorted(set(prompts)))}
    for at, (case, replicate) in enumerate(values.ids):
        prompt, applied = prompts[at], treatments[at]
        where = f"sample {one_line(case, limit=40)}/{replicate}"
        if values.clusters[at] != number[prompt]:
            yield f"{where}: its prompt has another number"
            return
        seed = seed_of(entry.benchmark, prompt, replicate)
        if values.seeds[at] != seed:
            yield f"{where}: seed {values.seeds[at]}, the benchmark's is {seed}"
            return
        wanted = {
            "treated": applied,
            "twin": Treatment(prompt=prompt, guidance=plan.guidance),
            "all_steps": requests.all_steps(applied),
        }
        for side, treatment in wanted.items():
            if side not in values.sides:
                continue
            if treatment.guidance is None:
                yield f"{where}: its treatment has no rule"
                return
            key = ImageRequest(generator=plan.generator, treatment=treatment, seed=seed).key()
            if not key.startswith(values.keys[side][at]):
                yield f"{where}: the {side} image is not of the request that its texts make"
                return


def _benchmark_problems(
    entry: Entry, values: Values, bench: Benchmark, remarks: list[str]
) -> Iterator[str]:
    yield from whole_benchmark(entry.plan, bench)
    for name in sorted(set(bench.metrics) - set(entry.metrics)):
        yield f"no {name}, which {entry.benchmark} asks for"
    for name in sorted(set(entry.metrics) & set(bench.metrics)):
        told = entry.metrics[name].ref.params
        asked = {k: v for k, v in bench.metrics[name].items() if k in told}
        if name != entry.metrics[name].ref.name or any(
            told[k] != v for k, v in asked.items() if not isinstance(told[k], dict)
        ):
            yield f"{name} was measured with other parameters than {entry.benchmark} has"
    try:
        cases = _cases(bench.title)
    except NegbenchError:
        remarks.append(f"the data of {entry.benchmark} are not here: its cases were not checked")
        return
    if dataset_digest(cases) != entry.plan.dataset:
        yield "its cases are not the benchmark's"
        return
    by_id = {case.id: case for case in cases}
    if set(values.cases) != set(by_id):
        yield "its samples are of other cases than the benchmark's"
    elif values.prompts is not None:
        for case, prompt, tags in zip(values.cases, values.prompts, values.tags, strict=True):
            if by_id[case].prompt != prompt or by_id[case].tags != tags:
                yield f"case {one_line(case, limit=40)} has another prompt or other tags"
                return


def _twin_problems(entries: dict[str, Checked]) -> Iterator[str]:
    """Twins belong to the benchmark, not to the method: those of two entries have to agree."""
    groups: dict[tuple[str, str, str], list[tuple[str, Checked]]] = {}
    for name, checked in entries.items():
        plan = checked.entry.plan
        key = (checked.entry.benchmark, plan.dataset, plan.generator.digest())
        groups.setdefault(key, []).append((name, checked))
    for members in groups.values():
        counts = Counter(checked.entry.values.twins for _, checked in members)
        usual = max(counts, key=lambda twins: (counts[twins], twins))
        first = next(c for _, c in members if c.entry.values.twins == usual)
        for name, checked in members:
            if checked.entry.values.twins == usual:
                continue
            if why := twins_apart(checked.entry, checked.values, first.entry, first.values):
                yield f"{ENTRIES}/{name}: its twins are not those of {first.entry.path}: {why}"
