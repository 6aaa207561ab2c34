"""From entries to the table and every generated file; the same entries give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.errors import RecordError
from negbench.files import write_atomic
from negbench.leaderboard import exports
from negbench.leaderboard.add import benchmark_of
from negbench.leaderboard.entry import Entry, pretty
from negbench.leaderboard.lock import Withdrawn
from negbench.leaderboard.ranks import Ranking, Rankings, rank
from negbench.leaderboard.rerun import command_of
from negbench.leaderboard.table import Cell, Column, Difference, Gone, Group, Row, Table
from negbench.leaderboard.values import OWN_TEXT
from negbench.stats import holm
from negbench.types import canonical_json, sha256_hex

if TYPE_CHECKING:
    from negbench.leaderboard.checks import Board, Checked
    from negbench.types import Estimate

METHOD_OF_RANKS = (
    "pairs of entries on the same cases and seeds; signs flipped by prompt, for a set metric "
    "images exchanged by prompt; Holm's correction over all pairs of a column at 5 %; rank set "
    "from one more than the entries found better to all but those found worse (Mogstad, Romano, "
    "Shaikh and Wilhelm, Rev. Econ. Stud. 91, 2024, section 3)"
)
ARM = ("_all_steps", "_empty", "_placebo")
CONDITIONS = ("base_rate", "absent_rate", "cr_both_removed")
"""Numbers that describe a run and judge nothing; they stand on the entry's page only."""

OWN_BASELINE = "measured against each method's own negative prompt, so entries do not compare"
NO_SERIES = "a ratio over the whole set, without a test between entries"
NEITHER = "neither direction is better"


def build(board: Board) -> dict[str, bytes]:
    """All generated files by path below the folder.

    Raises:
        RecordError: the board has problems; a table is made of whole entries only.
    """
    from negbench.leaderboard.page import render
    from negbench.leaderboard.schema import schemas

    if board.problems:
        more = f" (and {len(board.problems) - 1} more)" if len(board.problems) > 1 else ""
        raise RecordError(f"{board.root}: {board.problems[0]}{more}")
    table, rankings = make_table(board)
    files = {
        "leaderboard.json": pretty(table.model_dump(mode="json")),
        "leaderboard.csv": exports.as_csv(table).encode("utf-8"),
        "leaderboard.parquet": exports.as_parquet(table),
        "comparisons.csv": exports.comparisons_as_csv(table, rankings).encode("utf-8"),
    }
    files |= {f"schema/{name}": data for name, data in schemas().items()}
    return files | render(table, board, rankings)


GENERATED = ("leaderboard.*", "comparisons.csv", "index.html", "pages/**/*", "schema/*")


def write(board: Board) -> list[str]:
    """Build and write what changed; remove pages of entries that are gone.

    Returns:
        Paths that changed.
    """
    files = build(board)
    changed = []
    for name, data in files.items():
        path = board.root / name
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)
            changed.append(name)
    for name in _present(board.root) - set(files):
        (board.root / name).unlink()
        changed.append(name)
    return sorted(changed)


def stale_files(board: Board) -> dict[str, str]:
    """Generated files that are not what a rebuild gives, and how they differ.

    The parquet file is compared by its content: its bytes are those of one version of pyarrow.
    """
    files = build(board)
    stale = {}
    for name, data in files.items():
        path = board.root / name
        if not path.is_file():
            stale[name] = "missing"
        elif path.read_bytes() != data and not (
            name.endswith(".parquet") and _equal_tables(path.read_bytes(), data)
        ):
            stale[name] = "not what a rebuild gives"
    return stale | dict.fromkeys(sorted(_present(board.root) - set(files)), "left over")


def _present(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for pattern in GENERATED
        for path in root.glob(pattern)
        if path.is_file()
    }


def _equal_tables(first: bytes, second: bytes) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return bool(pq.read_table(io.BytesIO(first)).equals(pq.read_table(io.BytesIO(second))))
    except (pa.ArrowException, OSError, ValueError):
        return False


Key = tuple[str, str, str, str, str]


def group_key(entry: Entry) -> Key:
    """What has to be equal for two entries to be compared."""
    metrics = {name: facts.model_dump(mode="json") for name, facts in entry.metrics.items()}
    plan = entry.plan
    return (
        plan.benchmark.name,
        f"{plan.benchmark.version:06d}",
        plan.generator.digest(),
        sha256_hex(canonical_json([plan.dataset, plan.n_cases, plan.replicates])),
        sha256_hex(canonical_json(metrics)),
    )


def make_table(board: Board) -> tuple[Table, Rankings]:
    """The table, and how each ranked column was ranked."""
    grouped: dict[Key, dict[str, Checked]] = {}
    for path, checked in sorted(board.entries.items()):
        grouped.setdefault(group_key(checked.entry), {})[path] = checked
    order = sorted(grouped, key=lambda key: (key[0], key[1], -len(grouped[key]), key))
    rankings: Rankings = {}
    groups = []
    for number, key in enumerate(order):
        group, found = _group(grouped[key], metrics_digest=key[4])
        groups.append(group)
        rankings |= {(number, name): ranking for name, ranking in found.items()}
    withdrawn = tuple(
        Gone(entry=line.entry, reason=line.reason)
        for line in board.lines
        if isinstance(line, Withdrawn)
    )
    table = Table(method_of_ranks=METHOD_OF_RANKS, groups=tuple(groups), withdrawn=withdrawn)
    return table, rankings


def columns_of(entry: Entry) -> list[Estimate]:
    """The estimates that are columns of the table: no arm's, no mere condition."""
    return [
        estimate
        for estimate in entry.estimates
        if not estimate.metric.endswith(ARM) and estimate.metric not in CONDITIONS
    ]


def _group(
    members: Mapping[str, Checked], *, metrics_digest: str
) -> tuple[Group, dict[str, Ranking]]:
    first = next(iter(members.values())).entry
    plan = first.plan
    both = {path: (checked.entry, checked.values) for path, checked in members.items()}
    columns, rankings = [], {}
    for estimate in columns_of(first):
        name, better = estimate.metric, estimate.higher_is_better
        kind = "cost" if estimate.unit == "predictions" else "quality"
        ranking = None
        if better is not None and kind == "quality":
            ranking = rank(both, name, higher_is_better=better)
        if ranking is not None:
            rankings[name] = ranking
        why = None
        if ranking is None and kind == "quality" and len(members) > 1:
            why = NEITHER if better is None else OWN_BASELINE if name in OWN_TEXT else NO_SERIES
        twin = next((e for e in first.twin_estimates if e.metric == name), None)
        if name in OWN_TEXT:
            twin = None
        columns.append(
            Column(
                metric=name,
                unit=estimate.unit,
                higher_is_better=better,
                kind=kind,
                ranked=ranking is not None,
                why=why if ranking is None else ranking.note,
                twin=None if twin is None else _cell(twin, None, None),
            )
        )
    adjusted = _adjusted(members)
    titles = _titles([checked.entry for checked in members.values()])
    rows = [
        _row(path, checked, columns, rankings, adjusted, titles[at])
        for at, (path, checked) in enumerate(members.items())
    ]
    rows.sort(key=lambda row: _order(row, columns))
    bench = benchmark_of(plan.benchmark.name, plan.benchmark.version)
    return (
        Group(
            benchmark=first.benchmark,
            protocol=str(plan.benchmark.params.get("protocol", "")),
            summary=bench.summary if bench is not None else "",
            dataset=plan.dataset,
            n_cases=plan.n_cases,
            replicates=plan.replicates,
            generator=first.generator_name,
            generator_digest=plan.generator.digest(),
            generator_params=plan.generator.params,
            metrics_digest=metrics_digest,
            columns=tuple(columns),
            rows=tuple(rows),
        ),
        rankings,
    )


def _order(row: Row, columns: Sequence[Column]) -> tuple[Any, ...]:
    """Best first by the group's first ranked column: by rank, then by value."""
    for column in columns:
        cell = row.cells.get(column.metric)
        if column.ranked and cell is not None and cell.rank is not None and cell.value is not None:
            sign = -1.0 if column.higher_is_better else 1.0
            return (0, cell.rank, sign * cell.value, row.entry)
    return (1, (0, 0), 0.0, row.entry)


def _adjusted(members: Mapping[str, Checked]) -> dict[tuple[str, str, str], float | None]:
    """Holm over all entries of a group in one column, of the p of the difference to a baseline."""
    families: dict[tuple[str, str], list[tuple[str, float | None]]] = {}
    for path, checked in members.items():
        for paired in checked.entry.paired:
            families.setdefault((paired.metric, paired.baseline), []).append((path, paired.p))
    found = {}
    for (metric, baseline), tests in families.items():
        for (path, _), p in zip(tests, holm([p for _, p in tests]), strict=True):
            found[path, metric, baseline] = p
    return found


def _titles(entries: Sequence[Entry]) -> list[str]:
    """A title an entry; entries of one title are told apart by the parameters that differ."""
    titles = [entry.title for entry in entries]
    named = []
    for entry, title in zip(entries, titles, strict=True):
        same = [other for other, t in zip(entries, titles, strict=True) if t == title]
        params = {f"{k}": v for k, v in entry.plan.method.params.items()}
        params |= {f"{k}": v for k, v in entry.plan.treatment_guidance.params.items()}
        differing = [
            key
            for key in params
            if any({**o.plan.method.params, **o.plan.treatment_guidance.params}.get(key)
                   != params[key] for o in same)
        ]  # fmt: skip
        scales = {o.plan.treatment_guidance.scale for o in same}
        told = [f"{key.removeprefix('sha256:')}={_short(params[key])}" for key in differing]
        if len(scales) > 1:
            told.append(f"scale={entry.plan.treatment_guidance.scale:g}")
        named.append(f"{title} ({', '.join(told)})" if told else title)
    return named


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else canonical_json(value).decode()
    return text[:12] if len(text) == 64 and text.isalnum() else text[:40]


def _cell(
    estimate: Estimate, difference: Difference | None, rank_set: tuple[int, int] | None
) -> Cell:
    return Cell(
        value=estimate.value,
        ci95=estimate.ci95,
        n_scored=estimate.n_scored,
        n_unscored=estimate.n_unscored,
        note=estimate.note,
        difference=difference,
        rank=rank_set,
    )


def _row(
    path: str,
    checked: Checked,
    columns: Sequence[Column],
    rankings: Mapping[str, Ranking],
    adjusted: Mapping[tuple[str, str, str], float | None],
    title: str,
) -> Row:
    entry = checked.entry
    plan = entry.plan
    cells = {}
    estimates = {estimate.metric: estimate for estimate in entry.estimates}
    for column in columns:
        name = column.metric
        if name not in estimates:
            continue
        paired = next((p for p in entry.paired if p.metric == name), None)
        difference = None
        if paired is not None:
            difference = Difference(
                baseline=paired.baseline,
                value=paired.delta,
                ci95=paired.ci95,
                p=paired.p,
                p_holm=adjusted[path, name, paired.baseline],
                n=paired.n,
            )
        ranking = rankings.get(name)
        cells[name] = _cell(
            estimates[name], difference, None if ranking is None else ranking.ranks.get(path)
        )
    return Row(
        entry=f"entries/{path}",
        sha256=checked.sha256,
        page=f"pages/{path.removesuffix('.json')}.html",
        title=title,
        method=plan.method.name,
        rule=plan.treatment_guidance.kind,
        params=plan.method.params,
        guidance=plan.treatment_guidance,
        plan_digest=entry.plan_digest,
        command=command_of(entry),
        cells=cells,
        declared=entry.declared,
        provenance=entry.provenance,
        notes=entry.notes,
    )
