"""What the page of one entry shows, ready for the template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from negbench.leaderboard import figures
from negbench.leaderboard.ranks import Ranking, series_of
from negbench.leaderboard.table import Cell, Group, Row
from negbench.leaderboard.wording import (
    HELP,
    MAX_TITLE,
    about,
    interval_text,
    link,
    metric_name,
    rank_text,
    verdict,
    written_unit,
)
from negbench.numbers import arrow, p_value, signed, with_interval
from negbench.report.text import visible
from negbench.types import PairedDifference

if TYPE_CHECKING:
    from negbench.leaderboard.checks import Checked

UP = 3
"""Folders between an entry's page and the board."""


def entry_view(
    group: Group, row: Row, checked: Checked, rankings: Mapping[str, Ranking]
) -> dict[str, Any]:
    """What ``entry.html`` needs of a row; `rankings` are the group's, by column."""
    entry = checked.entry
    twins = {estimate.metric: estimate for estimate in entry.twin_estimates}
    numbers = []
    for estimate in entry.estimates:
        paired = next((p for p in entry.paired if p.metric == estimate.metric), None)
        cell = row.cells.get(estimate.metric)
        twin = twins.get(estimate.metric)
        numbers.append(
            {
                "name": metric_name(estimate.metric),
                "help": HELP.get(estimate.metric, ""),
                "arrow": arrow(estimate.higher_is_better),
                "unit": estimate.unit,
                "value": with_interval(estimate.value, estimate.ci95, written_unit(estimate.unit)),
                "n": estimate.n_scored,
                "unscored": estimate.n_unscored,
                "note": estimate.note,
                "twin": ""
                if twin is None
                else with_interval(twin.value, twin.ci95, written_unit(twin.unit)),
                "paired": None if paired is None else _paired(paired, cell),
                "rank": None if cell is None or cell.rank is None else rank_text(cell.rank),
            }
        )
    own = entry.path
    return {
        "title": visible(row.title, limit=MAX_TITLE),
        "group": group,
        "row": row,
        "about": about(group),
        "numbers": numbers,
        "falls": _falls(group, checked),
        "others": _others(group, row, own, rankings),
        "other_columns": [
            {"name": metric_name(column.metric), "arrow": arrow(column.higher_is_better)}
            for column in group.columns
            if column.metric in rankings
        ],
        "index": link("index.html", up=UP),
        "files": [
            ("entry", link(row.entry, up=UP)),
            ("values", link(f"entries/{own.rsplit('/', 1)[0]}/{entry.values.file}", up=UP)),
            ("twins", link(f"entries/{own.rsplit('/', 1)[0]}/{entry.values.twins}", up=UP)),
        ],
        "plan": visible(entry.plan.model_dump_json(indent=1), limit=20_000),
        "sample": _sample_texts(checked),
    }


def _paired(paired: PairedDifference, cell: Cell | None) -> dict[str, Any]:
    holm = None
    if cell is not None and cell.difference is not None:
        holm = cell.difference.p_holm
    delta = paired.delta
    return {
        "text": "unscored" if delta is None else signed(delta, written_unit(paired.unit)),
        "interval": interval_text(paired.ci95, paired.unit),
        "baseline": paired.baseline,
        "p": p_value(paired.p),
        "p_holm": p_value(holm),
        "verdict": verdict(delta or 0.0, holm, higher_is_better=paired.higher_is_better),
    }


def _falls(group: Group, checked: Checked) -> list[dict[str, Any]]:
    """Differences to the twin by prompt, for image metrics that have a twin."""
    values, entry = checked.values, checked.entry
    columns = {column.metric for column in group.columns}
    falls = []
    for paired in entry.paired:
        name = paired.metric
        facts = entry.metrics.get(name)
        if paired.baseline != "twin" or facts is None or facts.kind != "image":
            continue
        if paired.unit == "predictions" or name not in columns:
            continue
        treated = series_of(entry, values, name) or []
        twins = values.numbers(name, "twin")
        sums: dict[int, list[float]] = {}
        for cluster, a, b in zip(values.clusters, treated, twins, strict=True):
            if a is not None and b is not None:
                sums.setdefault(cluster, []).append(a - b)
        means = [sum(found) / len(found) for found in sums.values()]
        better = entry.metrics[name].higher_is_better
        gained = sum((m > 0) == (better is not False) and m != 0 for m in means)
        lost = sum(m != 0 for m in means) - gained
        said = f"{gained} of {len(means)} prompts gain, {lost} lose"
        falls.append(
            {
                "name": metric_name(name),
                "said": said,
                "svg": figures.waterfall(
                    means, higher_is_better=better, label=f"{metric_name(name)}: {said}"
                ),
                "top": signed(max(means, default=0.0), paired.unit),
                "bottom": signed(min(means, default=0.0), paired.unit),
            }
        )
    return falls


def _others(
    group: Group, row: Row, own: str, rankings: Mapping[str, Ranking]
) -> list[dict[str, Any]]:
    """This entry against each other one, in every ranked column."""
    columns = {column.metric: column for column in group.columns}
    found = []
    for other in group.rows:
        if other.entry == row.entry:
            continue
        path = other.entry.removeprefix("entries/")
        cells = []
        for name, ranking in rankings.items():
            pair = next((p for p in ranking.pairs if {p.first, p.second} == {own, path}), None)
            if pair is None:
                cells.append({"text": "unscored", "p": "", "verdict": "cannot tell"})
                continue
            sign = 1.0 if pair.first == own else -1.0
            column = columns[name]
            delta = None if pair.contrast.delta is None else sign * pair.contrast.delta
            said = verdict(delta or 0.0, pair.p_holm, higher_is_better=column.higher_is_better)
            cells.append(
                {
                    "text": "unscored" if delta is None else signed(delta, column.unit),
                    "p": p_value(pair.p_holm),
                    "verdict": said,
                }
            )
        found.append(
            {
                "title": visible(other.title, limit=MAX_TITLE),
                "href": link(other.page, up=UP),
                "cells": cells,
            }
        )
    return found


def _sample_texts(checked: Checked, *, count: int = 5) -> list[tuple[str, str]]:
    """A few prompts with what the method wrote, where texts may be shown."""
    values = checked.values
    if values.treatments is None or values.prompts is None:
        return []
    shown: dict[str, str] = {}
    for prompt, treatment in zip(values.prompts, values.treatments, strict=True):
        shown.setdefault(prompt, treatment.negative_text())
        if len(shown) == count:
            break
    return [(visible(p, limit=300), visible(n, limit=400)) for p, n in shown.items()]
