"""The one way through a timing run: parts in order, each resumable, one summary at the end.

    <out>/<benchmark>/timing-<scheduler>/<plan digest, 12>/
        timing.json       plan, answers of all parts with n and intervals, files
        *.csv, *.png      the numbers and their plots

Pictures and traces lie in the cache by what they are, so a run that was killed goes on, and a part
that is asked for later draws only what no other part has.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from negbench.drawing import provenance
from negbench.files import make_folder, read_json, write_json
from negbench.progress import Progress, silent
from negbench.timing.plan import PARTS, TRACED, Resolved
from negbench.timing.shots import Pictures

SCHEMA = 1
FILE = "timing.json"
MAX_SESSIONS = 100


def run_timing(
    resolved: Resolved, *, progress: Progress = silent, command: str = ""
) -> dict[str, Any]:
    """Measure the parts asked for; parts measured before stay in the summary.

    Args:
        resolved: what `make_timing_plan` checked.
        progress: gives a bar for a label and a total.
        command: how the run was started, for provenance.

    Returns:
        The summary as written to ``timing.json``, and ``folder``.

    Raises:
        NegbenchError: drawing or judging failed, or the disk is full. Nothing is lost.
    """
    from negbench.timing.activation import measure_activation
    from negbench.timing.curves import measure_curves
    from negbench.timing.grid import measure_grid
    from negbench.timing.inducing import measure_inducing, measure_momentum
    from negbench.timing.maps import measure_maps
    from negbench.timing.traces import unit_traces

    make_folder(resolved.folder)
    started = time.time()
    pictures = Pictures(resolved)
    parts: dict[str, Any] = {}
    if not (TRACED - {"maps"}).isdisjoint(resolved.parts):
        traced = unit_traces(resolved, resolved.units, progress=progress)
    for part in resolved.parts:
        if part == "curves":
            parts[part] = measure_curves(resolved, traced)
        elif part == "maps":
            parts[part] = measure_maps(resolved, progress=progress)
        elif part == "grid":
            parts[part] = measure_grid(resolved, pictures, progress=progress)
        elif part == "activation":
            parts[part] = measure_activation(resolved, pictures, progress=progress)
        elif part == "inducing":
            parts[part] = measure_inducing(resolved, traced)
        else:
            parts[part] = measure_momentum(resolved, traced)
    session = {
        "command": command,
        "seconds": round(time.time() - started, 3),
        "images_drawn": pictures.drawn,
        "evaluations_drawn": pictures.paid,
        "evaluations_without_sharing": pictures.alone,
    }
    summary = _before(resolved)  # read now: another process may have measured other parts
    parts = {**summary.get("parts", {}), **parts}
    result = {
        "schema_version": SCHEMA,
        "benchmark": resolved.benchmark.title,
        "plan": resolved.plan.model_dump(mode="json"),
        "plan_digest": resolved.plan.digest(),
        "scheduler": resolved.scheduler,
        "calls": resolved.calls,
        "cases": [
            {"id": unit.case.id, "prompt": unit.case.prompt, "concept": unit.concept,
             "category": unit.category, "placebo": unit.placebo}
            for unit in resolved.units if unit.replicate == 0
        ],
        "n_prompts": len({unit.case.prompt for unit in resolved.units}),
        "parts": {name: parts[name] for name in PARTS if name in parts},
        "provenance": {
            **provenance(),
            "generator": resolved.generator.describe(),
            "sessions": [*summary.get("provenance", {}).get("sessions", []), session][
                -MAX_SESSIONS:
            ],
        },
    }  # fmt: skip
    write_json(resolved.folder / FILE, result)
    return {**result, "folder": str(resolved.folder)}


def _before(resolved: Resolved) -> dict[str, Any]:
    """The summary on disk, or an empty one."""
    path = resolved.folder / FILE
    return read_json(path) if path.is_file() else {}


def compare_schedulers(runs: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """Removal and damage of [start, end) by scheduler, as one CSV and plot.

    Args:
        runs: results of `run_timing` that have the part ``grid``.
        folder: where ``schedulers.csv`` and ``schedulers.png`` go.

    Returns:
        The files' names; none if fewer than two runs have a grid.
    """
    from negbench.timing.plots import draw_schedulers
    from negbench.timing.tables import write_csv

    rows: list[dict[str, Any]] = []
    for run in runs:
        if "grid" not in run["parts"]:
            continue
        with (Path(run["folder"]) / "grid.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["group"] == "all" and row["stop"] == str(run["calls"]):
                    rows.append(_scheduler_row(run, row))
    if len({row["scheduler"] for row in rows}) < 2:
        return []
    return [
        write_csv(folder / "schedulers.csv", rows),
        draw_schedulers(folder / "schedulers.png", rows),
    ]


def _scheduler_row(run: dict[str, Any], row: dict[str, str]) -> dict[str, Any]:
    start = int(row["start"])
    found: dict[str, Any] = {
        "scheduler": run["scheduler"],
        "calls": run["calls"],
        "start": start,
        "fraction": start / run["calls"],
    }
    for prefix in ("removal_", "reverse_", "damage_"):
        for part in ("value", "low", "high"):
            text = row[f"{prefix}{part}"]
            found[f"{prefix}{part}"] = float(text) if text else None
        found[f"{prefix}n"] = int(row[f"{prefix}n"])
    return found
