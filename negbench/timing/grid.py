"""The start/stop grid: what a negative does in every window [start, stop) of model calls.

A unit is one case with one noise. Among units whose twin shows the concept a window removes it
where the judge no longer sees it; among those whose twin lacks it a window activates it in reverse
where the judge does. Damage is 1 - SSIM to the twin, over all units. Three published claims are
held against the grid (`claims`): negatives have to start late (Ban et al., arXiv 2406.02965),
guidance away from a concept has to come early (Safety-Guided Flow, arXiv 2603.13300), and the first
quarter carries most of the effect (NAG, arXiv 2505.21179).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from negbench.progress import Progress
from negbench.stats import mean_summary, paired_contrast, ratio_summary, share_summary
from negbench.timing.plan import Resolved, Unit
from negbench.timing.resample import Located, last_at_least, locate
from negbench.timing.shots import Outcome, Pictures, Shot, take
from negbench.timing.tables import as_json, numbers, write_csv

Window = tuple[int, int]
Values = list[float | None]

NOUN_START, ADJECTIVE_START = 1 / 6, 1 / 3
"""Where Ban et al. see negatives begin to act: calls 5 and 10 of 30."""

PAPER_WINDOW = (1 / 6, 1 / 2)
"""The window of their removal experiments, [5, 16) of 31 calls."""


def grid_windows(edges: Sequence[int]) -> list[Window]:
    """Every window between two edges."""
    return [(start, stop) for start in edges for stop in edges if start < stop]


class Grid:
    """The outcomes of a grid, and questions to it."""

    def __init__(self, resolved: Resolved, outcomes: Sequence[Outcome]) -> None:
        self.resolved = resolved
        self.edges = resolved.edges
        self.by_place = {(o.shot.unit, (o.shot.start, o.shot.stop)): o for o in outcomes}

    def units(self, group: str) -> list[Unit]:
        """The units of ``all`` or of a category."""
        return [u for u in self.resolved.units if group in ("all", u.category)]

    def groups(self) -> Iterator[str]:
        """``all``, then each category by itself if there are several."""
        yield "all"
        if len(self.resolved.categories) > 1:
            yield from self.resolved.categories

    def removed(self, window: Window, units: Sequence[Unit]) -> Values:
        """1 where the concept is gone, 0 where it is still seen, None where the twin lacks it."""
        return [_event(self.by_place[unit, window], twin=True, seen=False) for unit in units]

    def activated(self, window: Window, units: Sequence[Unit]) -> Values:
        """1 where the concept has come, 0 where it is absent, None where the twin shows it."""
        return [_event(self.by_place[unit, window], twin=False, seen=True) for unit in units]

    def damage(self, window: Window, units: Sequence[Unit]) -> Values:
        """1 - SSIM to the twin, 0 is the same picture."""
        return [self.by_place[unit, window].damage for unit in units]

    def near(self, part: float) -> int:
        """The edge nearest to a part of the schedule."""
        return min(self.edges, key=lambda edge: abs(edge - part * self.resolved.calls))


def _event(outcome: Outcome, *, twin: bool, seen: bool) -> float | None:
    if outcome.present is None or outcome.twin_present is not twin:
        return None
    return float(outcome.present is seen)


def prompts_of(units: Sequence[Unit]) -> list[str]:
    """The cluster of each unit."""
    return [unit.case.prompt for unit in units]


def measure_grid(resolved: Resolved, pictures: Pictures, *, progress: Progress) -> dict[str, Any]:
    """Draw and judge the grid; write its CSV files and heat maps; return answers."""
    from negbench.timing.plots import draw_grid, draw_starts

    shots = [
        Shot(unit, unit.concept, start, stop)
        for unit in resolved.units
        for start, stop in grid_windows(resolved.edges)
    ]
    outcomes = take(pictures, shots, progress=progress, label="grid")
    grid = Grid(resolved, outcomes)
    folder = resolved.folder
    rows = window_rows(grid)
    needed = needed_rows(grid)
    files = [
        write_csv(folder / "grid.csv", rows),
        write_csv(folder / "grid-units.csv", [unit_row(outcome) for outcome in outcomes]),
        write_csv(folder / "steps-needed.csv", needed),
    ]
    for group in grid.groups():
        own = [row for row in rows if row["group"] == group]
        files.append(draw_grid(folder / f"grid-{group}.png", own, edges=grid.edges, group=group))
    files.append(draw_starts(folder / "starts.png", rows, needed, calls=resolved.calls))
    return {
        "edges": list(grid.edges),
        "units": {
            group: {
                "n": len(grid.units(group)),
                "twin_shows": sum(_twin(grid, unit) is True for unit in grid.units(group)),
                "twin_lacks": sum(_twin(grid, unit) is False for unit in grid.units(group)),
            }
            for group in grid.groups()
        },
        "works": {group: works(grid, group) for group in grid.groups()},
        "claims": {group: claims(grid, group) for group in grid.groups()},
        "files": files,
    }


def _twin(grid: Grid, unit: Unit) -> bool | None:
    return grid.by_place[unit, (grid.edges[0], grid.edges[-1])].twin_present


def window_rows(grid: Grid) -> list[dict[str, Any]]:
    """A row for each group and window: removal, reverse activation and damage with intervals."""
    rows = []
    for group in grid.groups():
        units = grid.units(group)
        prompts = prompts_of(units)
        for window in grid_windows(grid.edges):
            squared: Values = [grid.by_place[unit, window].squared for unit in units]
            rows.append(
                {
                    "group": group,
                    "start": window[0],
                    "stop": window[1],
                    **numbers(share_summary(grid.removed(window, units), prompts), "removal_"),
                    **numbers(share_summary(grid.activated(window, units), prompts), "reverse_"),
                    **numbers(mean_summary(grid.damage(window, units), prompts), "damage_"),
                    **numbers(mean_summary(squared, prompts), "squared_"),
                }
            )
    return rows


def unit_row(outcome: Outcome) -> dict[str, Any]:
    """One picture of the grid as a row."""
    unit = outcome.shot.unit
    return {
        "case": unit.case.id,
        "prompt": unit.case.prompt,
        "concept": unit.concept,
        "category": unit.category,
        "replicate": unit.replicate,
        "seed": unit.seed,
        "negative": outcome.shot.negative,
        "start": outcome.shot.start,
        "stop": outcome.shot.stop,
        "twin_present": outcome.twin_present,
        "present": outcome.present,
        "damage": outcome.damage,
        "squared": outcome.squared,
    }


def needed_rows(grid: Grid) -> list[dict[str, Any]]:
    """Calls that removal takes from each start: the shortest window of the grid that removes.

    Units that no window from that start removes count as infinitely long, so the median is empty
    where they are the half.
    """
    rows = []
    for group in grid.groups():
        units = [unit for unit in grid.units(group) if _twin(grid, unit)]
        for start in grid.edges[:-1]:
            lengths = [_needed(grid, unit, start) for unit in units]
            share = share_summary([float(x is not None) for x in lengths], prompts_of(units))
            whole = [float("inf") if length is None else float(length) for length in lengths]
            middle = median(whole) if whole else float("inf")
            found = [length for length in lengths if length is not None]
            rows.append(
                {
                    "group": group,
                    "start": start,
                    **numbers(share, "removed_"),
                    "median_calls": None if middle == float("inf") else middle,
                    "mean_calls_if_removed": sum(found) / len(found) if found else None,
                }
            )
    return rows


def _needed(grid: Grid, unit: Unit, start: int) -> int | None:
    for stop in grid.edges:
        if stop > start and grid.by_place[unit, (start, stop)].present is False:
            return stop - start
    return None


def works(grid: Grid, group: str) -> dict[str, Any]:
    """The latest start and the earliest stop with which a negative still does half its work.

    ``latest_start``: the last start s for which [s, end) removes at least half as often as every
    call does, as do all starts before it. ``earliest_stop``: the first stop b for which [0, b)
    does, as do all stops after it.
    """
    units = grid.units(group)
    prompts = prompts_of(units)
    first, last = grid.edges[0], grid.edges[-1]

    def where(windows: Sequence[Window]) -> Located:
        columns = [grid.removed(window, units) for window in windows]
        values = [list(row) for row in zip(*columns, strict=True)]
        kept = [i for i, row in enumerate(values) if row[0] is not None]
        return locate(
            [values[i] for i in kept],
            [prompts[i] for i in kept],
            lambda curves: last_at_least(curves, share=0.5, of=curves[..., 0]),
        )

    starts = list(grid.edges[:-1])
    stops = list(grid.edges[:0:-1])
    return {
        "latest_start": _in_calls(where([(s, last) for s in starts]), starts),
        "earliest_stop": _in_calls(where([(first, b) for b in stops]), stops),
    }


def _in_calls(found: Located, calls: Sequence[int]) -> dict[str, Any]:
    """Indices of a list of calls as calls, with the ends in order."""
    if found.value is None:
        return found.as_json()
    ends = None
    if found.ci95 is not None:
        low, high = sorted(calls[int(end)] for end in found.ci95)
        ends = (float(low), float(high))
    return replace(found, value=float(calls[int(found.value)]), ci95=ends).as_json()


def claims(grid: Grid, group: str) -> dict[str, Any]:
    """What was published about when negatives act, measured on this grid."""
    units = grid.units(group)
    prompts = prompts_of(units)
    last = grid.edges[-1]
    every = (grid.edges[0], last)

    def against(window: Window, other: Window, what: Callable[[Window, Any], Values]) -> Any:
        return as_json(paired_contrast(what(window, units), what(other, units), prompts))

    def versus(window: Window, other: Window) -> dict[str, Any]:
        return {
            "window": list(window),
            "against": list(other),
            "removal": as_json(share_summary(grid.removed(window, units), prompts)),
            "removal_against": as_json(share_summary(grid.removed(other, units), prompts)),
            "removal_ratio": as_json(
                ratio_summary(grid.removed(window, units), grid.removed(other, units), prompts)
            ),
            "removal_difference": against(window, other, grid.removed),
            "damage": as_json(mean_summary(grid.damage(window, units), prompts)),
            "damage_against": as_json(mean_summary(grid.damage(other, units), prompts)),
            "damage_difference": against(window, other, grid.damage),
            "reverse": as_json(share_summary(grid.activated(window, units), prompts)),
            "reverse_against": as_json(share_summary(grid.activated(other, units), prompts)),
        }

    noun, adjective = grid.near(NOUN_START), grid.near(ADJECTIVE_START)
    low, high = (grid.near(part) for part in PAPER_WINDOW)
    third, two_thirds = grid.near(1 / 3), grid.near(2 / 3)
    return {
        "late_from_a_sixth": versus((noun, last), every),
        "late_from_a_third": versus((adjective, last), every),
        "window_of_the_paper": versus((low, high), every),
        "early_third_against_middle_third": versus((grid.edges[0], third), (third, two_thirds)),
        "first_quarter": versus((grid.edges[0], grid.near(1 / 4)), every),
    }
