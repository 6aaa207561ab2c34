"""Where and when a word is attended to: as a positive and as a negative word, as pictures.

Two pictures of one noise: the prompt with the concept named at its end (``a professor, glasses``),
and the plain prompt with the concept as negative in every call. Maps are means over layers, heads
and the word's tokens, and in the picture over neighbouring calls, four at a time with 28 to 31
calls as in figure 1 of Ban et al. (arXiv 2406.02965), where the positive word is said to find its
place at once and the negative word only from call 8 on. How alike the places are is the correlation
of a word's map at a call with the positive word's mean map over the second half of its calls.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from negbench.progress import Progress
from negbench.record import safe_name
from negbench.stats import mean_summary
from negbench.timing.plan import Resolved, Unit
from negbench.timing.tables import curve_row, write_csv
from negbench.timing.traces import watch_all

COLUMNS = 8
"""Groups of neighbouring calls in a picture."""

PICTURED = 2
"""Cases of each category that get a picture; the CSV has all."""

Map = npt.NDArray[np.float32]


def measure_maps(resolved: Resolved, *, progress: Progress) -> dict[str, Any]:
    """Trace with maps; write ``maps.csv``, ``maps.png`` and a picture for some cases."""
    from negbench.generators.tracing import Look, Watch
    from negbench.timing.plots import draw_lines, draw_maps

    units = [unit for unit in resolved.units if unit.replicate == 0]
    watches = []
    for unit in units:
        named = f"{unit.case.prompt}, {unit.concept}"
        watches.append(
            Watch(
                resolved.request(unit, prompt=named),
                {"word": Look(named, focus=unit.concept)},
                maps=True,
            )
        )
        watches.append(
            Watch(
                resolved.request(unit, negative=unit.concept),
                {"word": Look(unit.concept)},
                maps=True,
            )
        )
    traces = watch_all(resolved, watches, progress=progress, label="maps")
    found: dict[str, list[list[float | None]]] = {"positive": [], "negative": []}
    files = []
    pictured: dict[str, int] = {}
    for i, unit in enumerate(units):
        positive, negative = traces[2 * i], traces[2 * i + 1]
        assert positive.maps is not None
        assert negative.maps is not None
        own, other = positive.maps[:, 0], negative.maps[:, 0]
        place = own[len(own) // 2 :].mean(axis=0)
        found["positive"].append([correlation(one, place) for one in own])
        found["negative"].append([correlation(one, place) for one in other])
        pictured[unit.category] = pictured.get(unit.category, 0) + 1
        if pictured[unit.category] <= PICTURED:
            name = f"maps-{safe_name(unit.case.id.replace('/', '-'))}.png"
            files.append(
                draw_maps(
                    resolved.folder / name,
                    {"positive": grouped(own), "negative": grouped(other)},
                    {"positive": positive.pixels, "negative": negative.pixels},
                    spans=spans(len(own)),
                    prompt=unit.case.prompt,
                    concept=unit.concept,
                )
            )
    rows = _rows(resolved, units, found)
    files.append(write_csv(resolved.folder / "maps.csv", rows))
    files.append(
        draw_lines(
            resolved.folder / "maps.png",
            rows,
            title="Place of the word: correlation with the positive word's later place",
            ylabel="correlation",
            labels={"positive": "as a positive word", "negative": "as a negative word"},
        )
    )
    return {"n": len(units), "files": files}


def spans(calls: int) -> list[tuple[int, int]]:
    """`COLUMNS` groups of neighbouring calls, as equal as can be."""
    count = min(COLUMNS, calls)
    ends = [round(i * calls / count) for i in range(count + 1)]
    return list(itertools.pairwise(ends))


def grouped(maps: Map) -> list[Map]:
    """Mean map of each group of calls."""
    return [maps[start:stop].mean(axis=0) for start, stop in spans(len(maps))]


def correlation(first: Map, second: Map) -> float | None:
    """Pearson's correlation over positions; None where a map is flat."""
    a, b = (np.asarray(m, dtype=np.float64).ravel() for m in (first, second))
    a, b = a - a.mean(), b - b.mean()
    lengths = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / lengths if lengths > 0 else None


def _rows(
    resolved: Resolved, units: Sequence[Unit], found: dict[str, list[list[float | None]]]
) -> list[dict[str, Any]]:
    rows = []
    groups = ("all", *(resolved.categories if len(resolved.categories) > 1 else ()))
    for arm, values in found.items():
        for group in groups:
            inside = [i for i, unit in enumerate(units) if group in ("all", unit.category)]
            prompts = [units[i].case.prompt for i in inside]
            for call in range(resolved.calls):
                summary = mean_summary([values[i][call] for i in inside], prompts)
                rows.append(
                    curve_row(summary, arm=arm, group=group, call=call, calls=resolved.calls)
                )
    return rows
