"""The funnel: how many rows came, which step excluded how many for what reason, how many stay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from negbench.errors import RecordError

STEPS = (
    ("read", "records that a source gave, and places in it that gave none"),
    ("text", "rows with a prompt and a negative prompt of a usable length"),
    ("clean", "rows with words left after cleaning"),
    ("safety", "rows that may be in a data set at all"),
    ("language", "rows in the wanted languages"),
    ("previous", "rows that stand in the previous data set already are taken from there"),
    ("duplicates", "one row of all with the same two texts"),
    ("splits", "rows that do not come near a row of another split"),
    ("cap", "validation and test rows within the cap on one negative prompt"),
)
"""Steps in order, and what passes each."""


@dataclass
class Funnel:
    """Counts by step and reason; the sums have to add up."""

    read: int = 0
    carried: int = 0
    matched: int = 0
    excluded: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name, _ in STEPS}
    )
    changed: Counter[str] = field(default_factory=Counter)

    def add(self, step: str, reason: str, count: int = 1) -> None:
        """Count excluded rows."""
        self.excluded[step][reason] += count

    def as_json(self, kept: int) -> list[dict[str, Any]]:
        """Steps with rows in, added, matched, excluded by reason, and out.

        Raises:
            RecordError: the sums do not add up to `kept`, a defect of this program.
        """
        rows = self.read
        steps: list[dict[str, Any]] = []
        for name, meaning in STEPS:
            added = self.carried if name == "previous" else 0
            matched = self.matched if name == "previous" else 0
            reasons = dict(sorted(self.excluded[name].items(), key=lambda kv: (-kv[1], kv[0])))
            out = rows + added - matched - sum(reasons.values())
            steps.append(
                {"step": name, "passes": meaning, "in": rows, "added": added, "matched": matched,
                 "excluded": reasons, "out": out}
            )  # fmt: skip
            rows = out
        if rows != kept:
            raise RecordError(f"the funnel ends with {rows} rows, the data set has {kept}")
        return steps


def check_funnel(steps: list[dict[str, Any]], *, kept: int, excluded: int) -> list[str]:
    """Problems of a funnel read from a manifest; empty if its sums add up."""
    problems: list[str] = []
    before: int | None = None
    total = 0
    for step in steps:
        gone = sum(step["excluded"].values())
        total += gone
        if before is not None and step["in"] != before:
            problems.append(f"funnel step {step['step']} begins with {step['in']}, not {before}")
        if step["in"] + step["added"] - step["matched"] - gone != step["out"]:
            problems.append(f"funnel step {step['step']} does not add up")
        before = step["out"]
    if before != kept:
        problems.append(f"funnel ends with {before} rows, the splits hold {kept}")
    if total != excluded:
        problems.append(f"funnel excludes {total} rows, excluded.parquet holds {excluded}")
    return problems
