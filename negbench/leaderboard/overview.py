"""What the page of all entries shows: a table a group, ready for the template."""

from __future__ import annotations

from typing import Any

from negbench.leaderboard import figures
from negbench.leaderboard.table import Cell, Column, Group
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
from negbench.numbers import arrow, number, signed, with_interval
from negbench.report.text import visible

PREFERRED = (("clip_alignment", "inception_score"), ("alignment_lost", "net_removal"))
"""Pairs of columns of which the first that a group has is drawn against each other."""


def overview(at: int, group: Group) -> dict[str, Any]:
    """What ``index.html`` needs of a group, the table's number `at`."""
    columns = [_column(group, column) for column in group.columns]
    return {
        "id": f"g{at}",
        "group": group,
        "short": group.generator_digest[:12],
        "about": [
            *about(group),
            f"{len(group.rows)} entr{'y' if len(group.rows) == 1 else 'ies'}",
        ],
        "columns": columns,
        "rules": sorted({visible(row.rule, limit=40) for row in group.rows}),
        "rows": [
            {
                "title": visible(row.title, limit=MAX_TITLE),
                "href": link(row.page),
                "rule": visible(row.rule, limit=40),
                "is_twin": not any(cell.difference for cell in row.cells.values()),
                "find": visible(f"{row.title} {row.method} {row.rule}", limit=400).lower(),
                "cells": [_cell(row.cells.get(c["column"].metric), c) for c in columns],
            }
            for row in group.rows
        ],
        "figure": _figure(group),
        "twin": [_twin(c) for c in columns],
    }


def _column(group: Group, column: Column) -> dict[str, Any]:
    cells = [row.cells[column.metric] for row in group.rows if column.metric in row.cells]
    twin = column.twin.value if column.twin is not None else None
    places = [v for cell in cells for v in (cell.value, *(cell.ci95 or ()))]
    moves = [
        v for c in cells if c.difference for v in (c.difference.value, *(c.difference.ci95 or ()))
    ]
    return {
        "column": column,
        "name": metric_name(column.metric),
        "arrow": arrow(column.higher_is_better),
        "help": HELP.get(column.metric, ""),
        "twin": twin,
        "axis": figures.axis([*places, twin], left=4, right=figures.WIDTH - 4),
        "moves": figures.axis(moves, left=4, right=figures.WIDTH - 4, zero=True),
        "count": sum(cell.rank is not None for cell in cells),
    }


def _twin(c: dict[str, Any]) -> dict[str, Any] | None:
    column: Column = c["column"]
    if column.twin is None:
        return None
    cell, unit = column.twin, written_unit(column.unit)
    text = with_interval(cell.value, cell.ci95, unit)
    return {
        "value": "" if cell.value is None else number(cell.value, unit),
        "bar": figures.bar(c["axis"], cell.value, cell.ci95, reference=c["twin"], label=text,
                           kind="of-twin"),
    }  # fmt: skip


def _cell(cell: Cell | None, c: dict[str, Any]) -> dict[str, Any] | None:
    if cell is None:
        return None
    column: Column = c["column"]
    unit = written_unit(column.unit)
    said = [with_interval(cell.value, cell.ci95, unit)]
    if cell.rank is not None:
        said.append(f"rank {rank_text(cell.rank)} of {c['count']}")
    bar = None
    if column.kind != "cost" and cell.value is not None:
        bar = figures.bar(
            c["axis"], cell.value, cell.ci95, reference=c["twin"], label="; ".join(said)
        )
    difference = _difference(cell, c)
    return {
        "value": "unscored" if cell.value is None else number(cell.value, unit),
        "sort": cell.value,
        "unscored": cell.n_unscored,
        "note": cell.note,
        "rank": None if cell.rank is None else rank_text(cell.rank),
        "strip": None if cell.rank is None else figures.rank_strip(cell.rank, c["count"]),
        "best": cell.rank is not None and cell.rank[0] == 1 and cell.rank[1] < c["count"],
        "bar": bar,
        "difference": difference,
        "moved": None if difference is None else difference["value"],
    }


def _difference(cell: Cell, c: dict[str, Any]) -> dict[str, Any] | None:
    """The difference to the baseline, in words and as a bar."""
    found = cell.difference
    if found is None or found.value is None:
        return None
    column: Column = c["column"]
    unit = written_unit(column.unit)
    text = signed(found.value, unit)
    said = verdict(found.value, found.p_holm, higher_is_better=column.higher_is_better)
    whole = f"{text} {interval_text(found.ci95, column.unit)}".rstrip()
    return {
        "value": found.value,
        "text": text,
        "verdict": said,
        "baseline": found.baseline,
        "bar": figures.bar(
            c["moves"], found.value, found.ci95, reference=0.0, label=f"{whole}: {said}",
            kind=said.replace(" ", "-"),
        ),
    }  # fmt: skip


def _figure(group: Group) -> dict[str, Any] | None:
    """Two columns against each other: what is gained and what it costs."""
    ranked = [column for column in group.columns if column.ranked]
    if len(ranked) < 2 or len(group.rows) < 2:
        return None
    by_name = {column.metric: column for column in ranked}
    chosen = next(
        ((by_name[a], by_name[b]) for a, b in PREFERRED if a in by_name and b in by_name),
        (ranked[1], ranked[0]),
    )
    across, up = chosen
    dots = []
    for row in group.rows:
        a, b = row.cells.get(across.metric), row.cells.get(up.metric)
        if a is None or b is None or a.value is None or b.value is None:
            continue
        label = visible(row.title, limit=28)
        dots.append(figures.Dot(label, link(row.page), a.value, b.value, a.ci95, b.ci95))
    a, b = across.twin, up.twin
    if a is not None and b is not None and a.value is not None and b.value is not None:
        dots.append(figures.Dot("twin", None, a.value, b.value, a.ci95, b.ci95))
    names = [f"{metric_name(c.metric)} {arrow(c.higher_is_better)}" for c in (across, up)]
    return {
        "title": f"{metric_name(up.metric)} against {metric_name(across.metric)}",
        "svg": figures.tradeoff(
            dots, x_name=names[0], y_name=names[1],
            label=f"{names[1]} against {names[0]}, a point an entry, with 95 % intervals",
        ),
    }  # fmt: skip
