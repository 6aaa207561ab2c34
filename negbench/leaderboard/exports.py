"""The table in other people's formats.

``hf-eval``: Hugging Face's eval results, one YAML list for a *model* repo's ``.eval_results/``. Its
unit is one number of a (model repo, task); ours is a method on a generator. So only one headline
is exported, which has to be higher-is-better because the format knows no direction, and what else
belongs to it (generator, interval, n, rank) stands in ``notes``. It is of use to a method that owns
a model repo, such as a fine-tuned writer of negatives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from negbench.errors import ConfigError, UnknownNameError, did_you_mean
from negbench.leaderboard.build import flat_csv
from negbench.leaderboard.table import Column, Group, Row, Table
from negbench.leaderboard.wording import metric_name, rank_text, written_unit
from negbench.numbers import arrow, tex, with_interval

MAX_NAME = 60


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


def as_csv(table: Table) -> str:
    """A line an entry and metric."""
    return flat_csv(table).decode("utf-8")


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
