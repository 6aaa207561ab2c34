"""The table in other people's formats: CSV, parquet, LaTeX, Hugging Face's eval results.

``hf-eval``: Hugging Face's eval results, one YAML list for a *model* repo's ``.eval_results/``. Its
unit is one number of a (model repo, task); ours is a method on a generator. So only one headline
is exported, which has to be higher-is-better because the format knows no direction, and what else
belongs to it (generator, interval, n, rank) stands in ``notes``. It is of use to a method that owns
a model repo, such as a fine-tuned writer of negatives.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from negbench.errors import ConfigError, UnknownNameError, did_you_mean
from negbench.leaderboard.ranks import ALPHA, Rankings
from negbench.leaderboard.table import Column, Group, Row, Table
from negbench.leaderboard.wording import metric_name, rank_text, written_unit
from negbench.numbers import arrow, tex, with_interval

MAX_NAME = 60

FLAT = (
    "benchmark", "generator", "generator_digest", "entry", "title", "method", "rule", "metric",
    "unit", "higher_is_better", "value", "ci_low", "ci_high", "n_scored", "n_unscored", "baseline",
    "delta", "delta_low", "delta_high", "p", "p_holm", "rank_low", "rank_high", "plan_digest",
)  # fmt: skip
"""Columns of a row an entry and metric."""

PAIRS = (
    "benchmark", "generator_digest", "metric", "first", "second", "delta", "ci_low", "ci_high",
    "p", "p_holm", "n", "told_apart",
)  # fmt: skip
"""Columns of a row a pair of entries and metric."""


def chosen(table: Table, paths: Sequence[str]) -> Table:
    """The table with these entries only; all if none is named.

    Raises:
        UnknownNameError: no such entry.
    """
    if not paths:
        return table
    known = [row.entry for group in table.groups for row in group.rows]
    wanted = set()
    for path in paths:
        end = path.removeprefix("./")
        found = [name for name in known if name.endswith(end) or end.endswith(name)]
        if not found:
            raise UnknownNameError(f"no entry {path!r}; {did_you_mean(path, known)}")
        wanted.update(found)
    groups = []
    for group in table.groups:
        rows = tuple(row for row in group.rows if row.entry in wanted)
        if rows:
            groups.append(group.model_copy(update={"rows": rows}))
    return table.model_copy(update={"groups": tuple(groups)})


def flat_rows(table: Table) -> list[dict[str, Any]]:
    """A row an entry and metric, with every number in full."""
    rows = []
    for group in table.groups:
        for row in group.rows:
            for column in group.columns:
                cell = row.cells.get(column.metric)
                if cell is None:
                    continue
                difference = cell.difference
                low, high = cell.ci95 or (None, None)
                dlow, dhigh = (difference.ci95 if difference else None) or (None, None)
                first, last = cell.rank or (None, None)
                found = (
                    group.benchmark, group.generator, group.generator_digest, row.entry, row.title,
                    row.method, row.rule, column.metric, column.unit, column.higher_is_better,
                    cell.value, low, high, cell.n_scored, cell.n_unscored,
                    difference and difference.baseline, difference and difference.value, dlow,
                    dhigh, difference and difference.p, difference and difference.p_holm, first,
                    last, row.plan_digest,
                )  # fmt: skip
                rows.append(dict(zip(FLAT, found, strict=True)))
    return rows


def csv_text(fields: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A header and a line a row, in which no spreadsheet takes a text for a formula."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def _harmless(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def as_csv(table: Table) -> str:
    """`flat_rows` as CSV."""
    return csv_text(FLAT, flat_rows(table))


def as_parquet(table: Table) -> bytes:
    """`flat_rows` as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "higher_is_better": pa.bool_(), "n_scored": pa.int64(), "n_unscored": pa.int64(),
        "rank_low": pa.int64(), "rank_high": pa.int64(),
    } | dict.fromkeys(
        ("value", "ci_low", "ci_high", "delta", "delta_low", "delta_high", "p", "p_holm"),
        pa.float64(),
    )  # fmt: skip
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in FLAT])
    buffer = io.BytesIO()
    rows = pa.Table.from_pylist(flat_rows(table), schema=schema)
    pq.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1].removesuffix(".json")


def comparisons_as_csv(table: Table, rankings: Rankings) -> str:
    """Every pair of entries of a group in every ranked column: first minus second."""
    rows = []
    for (number, metric), ranking in rankings.items():
        group = table.groups[number]
        for pair in ranking.pairs:
            low, high = pair.contrast.ci95 or (None, None)
            found = (
                group.benchmark, group.generator_digest[:12], metric,
                _stem(pair.first), _stem(pair.second),
                pair.contrast.delta, low, high, pair.contrast.p, pair.p_holm, pair.contrast.n,
                pair.p_holm is not None and pair.p_holm <= ALPHA,
            )  # fmt: skip
            rows.append(dict(zip(PAIRS, found, strict=True)))
    return csv_text(PAIRS, rows)


def as_latex(table: Table) -> str:
    """A booktabs table a group: a row an entry, a column a metric, intervals and rank sets."""
    return "\n\n".join(_latex(group) for group in table.groups)


def _latex(group: Group) -> str:
    columns = [column for column in group.columns if column.ranked or column.kind == "cost"]
    heads = [tex(f"{metric_name(c.metric)} {arrow(c.higher_is_better)}".strip()) for c in columns]
    lines = [
        f"% {tex(group.benchmark)} on {tex(group.generator)} {group.generator_digest[:12]}: "
        f"{group.n_cases} prompts, {group.replicates} noises; 95 % intervals, (rank sets)",
        r"\begin{tabular}{l" + "r" * len(columns) + "}",
        r"\toprule",
        " & ".join(["entry", *heads]) + r" \\",
        r"\midrule",
    ]
    for row in group.rows:
        cells = [tex(row.title[:MAX_NAME])]
        for column in columns:
            cell = row.cells.get(column.metric)
            if cell is None:
                cells.append("")
                continue
            text = tex(with_interval(cell.value, cell.ci95, written_unit(column.unit)))
            cells.append(f"{text} ({tex(rank_text(cell.rank))})" if cell.rank else text)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def as_hf_eval(table: Table, *, dataset: str, metric: str | None = None) -> str:
    """Hugging Face eval-results YAML, one item an entry.

    Args:
        table: of the entries to export.
        dataset: ``org/name`` of the dataset repo that is the benchmark on the hub.
        metric: the headline; None for the first ranked one of each group that is higher-is-better.

    Raises:
        ConfigError: the metric has another direction, or `dataset` is no repo.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        raise ConfigError(f"--dataset {dataset!r} is not org/name")
    lines = []
    for group in table.groups:
        column = _headline(group, metric)
        for row in group.rows:
            cell = row.cells.get(column.metric)
            if cell is None or cell.value is None:
                continue
            lines += _item(group, row, column, dataset=dataset)
    if not lines:
        raise ConfigError(f"no entry has a value of {metric or 'a headline'}; choose another")
    return "\n".join(lines) + "\n"


def _headline(group: Group, metric: str | None) -> Column:
    fitting = [c for c in group.columns if c.higher_is_better and c.kind == "quality" and c.ranked]
    fitting = fitting or [c for c in group.columns if c.higher_is_better and c.kind == "quality"]
    if metric is None:
        if not fitting:
            raise ConfigError(f"{group.benchmark} has no number of which more is better")
        return fitting[0]
    named = next((column for column in group.columns if column.metric == metric), None)
    if named is None:
        raise UnknownNameError(
            f"no metric {metric!r}; {did_you_mean(metric, [c.metric for c in group.columns])}"
        )
    if named.higher_is_better is not True:
        raise ConfigError(
            f"{metric}: the format of Hugging Face knows no direction and takes more for better; "
            f"choose one of {', '.join(c.metric for c in fitting)}"
        )
    return named


def _item(group: Group, row: Row, column: Column, *, dataset: str) -> list[str]:
    cell = row.cells[column.metric]
    task = f"{group.benchmark}/{group.generator}-{group.generator_digest[:12]}/{column.metric}"
    said = [f"{row.title[:MAX_NAME]} on {group.generator} {group.generator_digest[:12]}"]
    if column.unit not in ("1", "score"):
        said.append(f"unit {column.unit}")
    if cell.ci95 is not None:
        said.append(f"95 % interval {cell.ci95[0]:.6g} to {cell.ci95[1]:.6g}")
    said.append(f"n {cell.n_scored}")
    if cell.rank is not None:
        said.append(f"rank {cell.rank[0]} to {cell.rank[1]} of {len(group.rows)}")
    lines = [
        "- dataset:",
        f"    id: {json.dumps(dataset)}",
        f"    task_id: {json.dumps(task)}",
        f"  value: {cell.value!r}",
    ]
    if row.provenance.finished is not None:
        lines.append(f"  date: {json.dumps(row.provenance.finished[:10])}")
    source = row.declared.code or row.declared.paper
    if source is not None:
        lines += ["  source:", f"    url: {json.dumps(source)}"]
    return [*lines, f"  notes: {json.dumps('; '.join(said))}"]
