"""A sweep as a table: for people, and every number as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from negbench.errors import one_line

if TYPE_CHECKING:
    from negbench.sweep.sweep import Sweep

REFERENCE = "cfg at every step"
COLUMNS = (
    "key", "value", "rule", "net_removal", "low", "high", "n", "rsr", "rsr_placebo",
    "reverse_activation", "damage", "damage_low", "damage_high", "pareto", "plan_digest", "folder",
)  # fmt: skip


def as_csv(sweep: Sweep) -> str:
    """One line a setting, the reference last, every number in full."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for point in (*sweep.points, sweep.reference):
        low, high = point.removal.ci95 or (None, None)
        damage_low, damage_high = point.damage_ci95 or (None, None)
        writer.writerow(
            {
                "key": sweep.key,
                "value": REFERENCE if point.value is None else point.value,
                "rule": point.rule,
                "net_removal": point.removal.value,
                "low": low,
                "high": high,
                "n": point.removal.n_scored,
                "rsr": point.rsr.value,
                "rsr_placebo": point.placebo.value,
                "reverse_activation": point.reverse_activation.value,
                "damage": point.damage,
                "damage_low": damage_low,
                "damage_high": damage_high,
                "pareto": int(point.pareto),
                "plan_digest": point.plan_digest,
                "folder": point.folder,
            }
        )
    return buffer.getvalue()


def as_text(sweep: Sweep) -> str:
    """The curve as a table for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from negbench.numbers import signed_interval, with_interval

    buffer = io.StringIO()
    console = Console(file=buffer, width=150, highlight=False, emoji=False, markup=False)
    console.print(
        f"{sweep.benchmark}, method {one_line(sweep.method)}: {sweep.n_prompts} prompts; damage by "
        f"{sweep.damage_by}, whole picture, 0 is the twin; * no setting removes more for less",
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(one_line(sweep.key), no_wrap=True)
    for name in ("net removal [95 %]", "rsr", "placebo", "reverse", "damage [95 %]", "n", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for point in (*sweep.points, sweep.reference):
        table.add_row(
            REFERENCE if point.value is None else one_line(str(point.value)),
            with_interval(point.removal.value, point.removal.ci95),
            with_interval(point.rsr.value, None),
            with_interval(point.placebo.value, None),
            with_interval(point.reverse_activation.value, None),
            with_interval(point.damage, point.damage_ci95),
            str(point.removal.n_scored),
            "*" if point.pareto else "",
        )
    console.print(table)
    at = sweep.matched
    if at.damage is not None:
        console.print(
            f"at damage {at.damage:.4f}: net removal {with_interval(at.removal, at.removal_ci95)}, "
            f"minus {REFERENCE} {signed_interval(at.minus_reference, at.minus_reference_ci95)}"
            + (f" ({at.note})" if at.note else ""),
            soft_wrap=True,
        )
    console.print(f"{sweep.folder}: curve.png, curve.csv, sweep.json", soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())
