"""What `negbench score` prints for people, and how it reads ``--map``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from negbench.errors import one_line

if TYPE_CHECKING:
    from negbench.score.score import Outcome

SHOWN = 8
"""Most reasons that are printed."""


def parse_mapping(items: Sequence[str]) -> dict[str, str]:
    """``path=FILE,prompt=CAPTION`` as field -> column.

    Raises:
        ConfigError: an item is not ``field=column`` or the field does not exist.
    """
    from negbench.database.sources.columns import parse_map

    mapping: dict[str, str] = {}
    rest = []
    for item in (part for text in items for part in text.split(",")):
        name, sign, column = (part.strip() for part in item.partition("="))
        if name == "path" and sign and column:
            mapping["path"] = column
        else:
            rest.append(item)
    return {**mapping, **parse_map(rest)}


def as_text(outcome: Outcome) -> str:
    """A table for each record, then what could not be scored and why."""
    from negbench.tables import as_text_table

    lines: list[str] = []
    for record in outcome.records:
        compared = bool(record.twin_estimates)
        about = (
            "each beside its twin, the same prompt and noise without a negative prompt"
            if compared
            else "no twins, so nothing is compared"
        )
        lines.append(f"{one_line(record.label)}: {record.n_samples} pictures, {about}")
        # the heading of a benchmark's table does not fit pictures that were given
        lines += [*as_text_table([record]).splitlines()[1:], ""]
    counts = Counter(item.reason for item in outcome.unscored)
    if counts:
        lines.append(f"not scored: {sum(counts.values())} files")
        for reason, count in counts.most_common(SHOWN):
            first = next(item.id for item in outcome.unscored if item.reason == reason)
            lines.append(
                f"  {count} x {one_line(reason, limit=160)} (first: {one_line(first, limit=80)})"
            )
        if len(counts) > SHOWN:
            lines.append(f"  and {len(counts) - SHOWN} more reasons")
        lines.append("  all of them stand in unscored.csv beside each run.json")
    for reason, count in outcome.reasons.items():
        lines.append(f"without a twin: {count} pictures: {one_line(reason, limit=200)}")
    return "\n".join(lines).rstrip()
