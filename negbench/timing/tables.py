"""Numbers behind the plots: CSV files that appear at once, and summaries as plain dicts."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from negbench.files import write_atomic
from negbench.stats import Contrast, Summary


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows with the keys of the first as columns; a None is an empty cell.

    Returns:
        The file's name.
    """
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    write_atomic(path, buffer.getvalue().encode("utf-8"))
    return path.name


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float) else value


def numbers(summary: Summary, prefix: str = "") -> dict[str, Any]:
    """Value, interval, n and prompts of a summary as columns."""
    low, high = summary.ci95 or (None, None)
    return {
        f"{prefix}value": summary.value,
        f"{prefix}low": low,
        f"{prefix}high": high,
        f"{prefix}n": summary.n_scored,
        f"{prefix}prompts": summary.n_prompts,
    }


def curve_row(summary: Summary, *, arm: str, group: str, call: int, calls: int) -> dict[str, Any]:
    """A point of a curve as columns: the mean of an arm over a group's cases at one of `calls`."""
    return {
        "arm": arm,
        "group": group,
        "call": call,
        "fraction": call / calls,
        **numbers(summary),
    }


def as_json(found: Summary | Contrast) -> dict[str, Any]:
    """A summary or contrast for ``timing.json``."""
    ci95 = None if found.ci95 is None else list(found.ci95)
    if isinstance(found, Summary):
        return {
            "value": found.value,
            "ci95": ci95,
            "n": found.n_scored,
            "n_unscored": found.n_unscored,
            "n_prompts": found.n_prompts,
            "note": found.note,
        }
    return {
        "delta": found.delta,
        "ci95": ci95,
        "p": found.p,
        "n": found.n,
        "n_unscored": found.n_dropped,
        "n_prompts": found.n_prompts,
        "note": found.note,
    }
