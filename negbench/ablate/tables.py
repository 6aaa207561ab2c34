"""An ablation as a table for people and as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from negbench.ablate.ablate import Ablation, TagEffect, Whole
from negbench.errors import one_line

COLUMNS = (
    "benchmark", "metric", "unit", "higher_is_better", "tag", "effect", "ci_low", "ci_high", "p",
    "p_holm", "n", "n_unscored", "n_prompts", "unchanged", "verdict", "whole_effect", "margin",
)  # fmt: skip
ORDER = {"helps": 0, "changes": 1, "harms": 2, "does nothing": 3, "cannot tell": 4}


def as_csv(found: Ablation) -> str:
    """One line a metric and tag, every number in full."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    whole = {item.metric: item for item in found.whole}
    for effect in found.effects:
        about = whole[effect.metric]
        low, high = effect.ci95 or (None, None)
        writer.writerow(
            {
                "benchmark": found.benchmark,
                "unit": about.unit,
                "higher_is_better": about.higher_is_better,
                "ci_low": low,
                "ci_high": high,
                "whole_effect": about.effect,
                "margin": about.margin,
                **{k: v for k, v in effect.model_dump().items() if k in COLUMNS},
            }
        )
    return buffer.getvalue()


def as_text(found: Ablation) -> str:
    """A table a metric: tags that help first, then those that harm, those that do nothing."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    buffer = io.StringIO()
    console = Console(file=buffer, width=150, highlight=False, emoji=False, markup=False)
    console.print(
        f"{found.benchmark}: {found.prompts} prompts, {found.replicates} noises each; "
        f"{len(found.tags)} tags, each left out in turn"
    )
    for whole in found.whole:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("tag", overflow="fold", max_width=60)
        for name in ("adds [95 % interval]", "p (Holm)", "pictures it changes", "n"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        mine = [effect for effect in found.effects if effect.metric == whole.metric]
        for effect in sorted(mine, key=lambda e: (ORDER[e.verdict], -_gain(e, whole))):
            table.add_row(*_row(effect))
        console.print()
        console.print(_heading(whole), soft_wrap=True)
        console.print(table)
    console.print()
    console.print(
        "adds: full list minus the list without the tag. helps, harms: p by Holm over all "
        f"{found.tests} tests is at most 0.05.",
        soft_wrap=True,
    )
    console.print(
        "does nothing: no picture changes, or the interval lies within "
        f"{found.margin_share:.0%} of the full list's effect. A tag can seem idle because another "
        "tag does its work.",
        soft_wrap=True,
    )
    for note in found.notes:
        console.print(f"note: {one_line(note)}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def _gain(effect: TagEffect, whole: Whole) -> float:
    value = effect.effect or 0.0
    return -value if whole.higher_is_better is False else value


def _heading(whole: Whole) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[whole.higher_is_better]
    unit = "" if whole.unit in ("1", "score") else f" ({whole.unit})"
    if whole.effect is None:
        return f"{whole.metric}{arrow}{unit}: the full list beside no negative: not known"
    return (
        f"{whole.metric}{arrow}{unit}: the full list beside no negative: "
        f"{_number(whole.effect, whole.ci95)}"
    )


def _row(effect: TagEffect) -> list[str]:
    p = "" if effect.p_holm is None else f"{effect.p_holm:.3f}"
    verdict: Any = effect.verdict
    return [
        one_line(effect.tag, limit=200),
        _number(effect.effect, effect.ci95),
        p if p != "0.000" else f"{effect.p_holm:.1g}",
        f"{1 - effect.unchanged:.0%}",
        f"{effect.n}" + (f" (+{effect.n_unscored} unscored)" if effect.n_unscored else ""),
        verdict,
    ]


def _number(value: float | None, ci95: tuple[float, float] | None) -> str:
    if value is None:
        return "unscored"
    digits = 2 if abs(value) >= 100 else 3 if abs(value) >= 1 else 4
    text = f"{value:+.{digits}f}"
    return text if ci95 is None else f"{text} [{ci95[0]:+.{digits}f}, {ci95[1]:+.{digits}f}]"
