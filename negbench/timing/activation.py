"""Reverse activation: the concept comes into the picture because a negative prompt names it early.

Units whose twin lacks the concept are drawn with the negative in the first n calls only, as in
figure 2 of Ban et al. (arXiv 2406.02965), where it is shown by example. Here it is a rate, and it
has a control: an unrelated concept in the same calls. A picture that is disturbed at its beginning
turns out differently, and then may show by chance what its twin did not; only what exceeds the
control is activation by the concept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from negbench.progress import Progress
from negbench.stats import paired_contrast, share_summary
from negbench.timing.grid import prompts_of, unit_row
from negbench.timing.plan import Resolved, Unit
from negbench.timing.shots import Outcome, Pictures, Shot, take
from negbench.timing.tables import as_json, numbers, write_csv
from negbench.types import seed_of

FIRST = (1, 2, 3, 4, 6, 8, 10, 13)
"""Numbers of first calls of a run that is not full."""

MORE = 2
"""Noises here for each noise of the plan: only twins without the concept can be used."""


def first_calls(resolved: Resolved) -> list[int]:
    """Numbers of first calls: all up to half of the schedule in a full run, else `FIRST`."""
    half = resolved.calls // 2 + 1
    full = len(resolved.edges) == resolved.calls + 1
    return [n for n in (range(1, half + 1) if full else FIRST) if n < resolved.calls]


def more_units(resolved: Resolved) -> list[Unit]:
    """The plan's units and as many again with further noises."""
    extra = []
    count = resolved.plan.replicates
    for unit in resolved.units:
        for turn in range(1, MORE):
            number = unit.replicate + turn * count
            seed = seed_of(resolved.benchmark.title, unit.case.prompt, number)
            extra.append(replace(unit, replicate=number, seed=seed))
    return [*resolved.units, *extra]


def measure_activation(
    resolved: Resolved, pictures: Pictures, *, progress: Progress
) -> dict[str, Any]:
    """Draw and judge; write ``activation.csv`` and ``activation.png``; return the rates."""
    from negbench.timing.plots import draw_activation

    units = more_units(resolved)
    twins = take(
        pictures,
        [Shot(unit, unit.concept, 0, 0) for unit in units],
        progress=progress,
        label="activation: twins",
    )
    lacking = [o.shot.unit for o in twins if o.twin_present is False]
    counts = first_calls(resolved)
    arms = ("concept", "placebo")
    shots = [
        Shot(unit, unit.concept if arm == "concept" else unit.placebo, 0, n)
        for arm in arms
        for unit in lacking
        for n in counts
    ]
    outcomes = take(pictures, shots, progress=progress, label="activation")
    half = len(outcomes) // 2
    found = {
        arm: {(o.shot.unit, o.shot.stop): o for o in part}
        for arm, part in zip(arms, (outcomes[:half], outcomes[half:]), strict=True)
    }
    rows, answers = [], {}
    for group in ("all", *(resolved.categories if len(resolved.categories) > 1 else ())):
        members = [unit for unit in lacking if group in ("all", unit.category)]
        rows += _rows(found, members, counts, group)
        answers[group] = _any(found, members, counts)
    files = [
        write_csv(resolved.folder / "activation.csv", rows),
        write_csv(resolved.folder / "activation-units.csv", [unit_row(o) for o in outcomes]),
        draw_activation(resolved.folder / "activation.png", rows),
    ]
    return {
        "first_calls": counts,
        "units": len(units),
        "twin_lacks": len(lacking),
        "at_any_count": answers,
        "by_count": [row for row in rows if row["group"] == "all"],
        "files": files,
    }


Found = dict[str, dict[tuple[Unit, int], Outcome]]


def _present(outcome: Outcome) -> float | None:
    return None if outcome.present is None else float(outcome.present)


def _rows(
    found: Found, units: Sequence[Unit], counts: Sequence[int], group: str
) -> list[dict[str, Any]]:
    rows = []
    prompts = prompts_of(units)
    for n in counts:
        values = {arm: [_present(found[arm][unit, n]) for unit in units] for arm in found}
        contrast = paired_contrast(values["concept"], values["placebo"], prompts)
        low, high = contrast.ci95 or (None, None)
        rows.append(
            {
                "group": group,
                "first_calls": n,
                **numbers(share_summary(values["concept"], prompts), "concept_"),
                **numbers(share_summary(values["placebo"], prompts), "placebo_"),
                "difference": contrast.delta,
                "difference_low": low,
                "difference_high": high,
                "difference_p": contrast.p,
            }
        )
    return rows


def _any(found: Found, units: Sequence[Unit], counts: Sequence[int]) -> dict[str, Any]:
    """Share of units in which at least one number of first calls brings the concept."""
    prompts = prompts_of(units)
    values: dict[str, list[float | None]] = {}
    for arm, own in found.items():
        seen = [[_present(own[unit, n]) for n in counts] for unit in units]
        values[arm] = [
            None if any(v is None for v in row) else float(any(v == 1 for v in row)) for row in seen
        ]
    return {
        **{arm: as_json(share_summary(own, prompts)) for arm, own in values.items()},
        "difference": as_json(paired_contrast(values["concept"], values["placebo"], prompts)),
    }
