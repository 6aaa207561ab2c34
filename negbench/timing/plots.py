"""Plots of the timing protocol: PNG files, the same bytes for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BLUE, RED, GREY, GREEN = "#2b6ca3", "#b5483c", "#8a8a8a", "#4b8b57"
COLORS = (BLUE, RED, GREY, GREEN)
GROUP_NAMES = {
    "all": "all cases",
    "noun_object": "nouns",
    "attribute": "attributes",
    "style": "styles",
    "quality": "quality words",
    "text": "text",
    "other": "cases",
}

Row = Mapping[str, Any]


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """A figure that is written to `path` when it is done."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.family": ["DejaVu Sans"], "font.size": 9,
                         "axes.spines.top": False, "axes.spines.right": False,
                         "axes.titlesize": 10}):  # fmt: skip
        figure = Figure(figsize=size, dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def shown(text: str, limit: int = 40) -> str:
    """A user's text as a plot can show it: one line, no mathematics, signs the font has."""
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    plain = plain if len(plain) <= limit else plain[: limit - 1] + "…"
    return plain.replace("$", r"\$")


def _groups(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(row["group"]) for row in rows))


def _line(axis: Any, rows: Sequence[Row], x: str, prefix: str = "", **style: Any) -> None:
    """A line with its interval as a band; points without a value are left out."""
    kept = [row for row in rows if row[f"{prefix}value"] is not None]
    places = [row[x] for row in kept]
    values = [row[f"{prefix}value"] for row in kept]
    low = [v if row[f"{prefix}low"] is None else row[f"{prefix}low"]
           for row, v in zip(kept, values, strict=True)]  # fmt: skip
    high = [v if row[f"{prefix}high"] is None else row[f"{prefix}high"]
            for row, v in zip(kept, values, strict=True)]  # fmt: skip
    axis.plot(places, values, linewidth=1.6, **style)
    axis.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)


def draw_curves(path: Path, rows: Sequence[Row], critical: Mapping[str, Any], *, calls: int) -> str:
    """r_t by group, the authors' variant and ours, each with its control and critical steps."""
    groups = _groups(rows)
    titles = {
        "authors": "as the authors' code",
        "relative": "each over its mean",
        "words": "own words",
        "words_relative": "own words, each over its mean",
    }
    controls = {name: "placebo" if name == "authors" else f"placebo_{name}" for name in titles}
    with _figure(path, (4.6 * len(groups), 2.9 * len(titles))) as figure:
        axes = figure.subplots(len(titles), len(groups), squeeze=False, sharex=True)
        for line, (variant, control) in enumerate(controls.items()):
            for column, group in enumerate(groups):
                axis = axes[line][column]
                own = [r for r in rows if r["group"] == group]
                _line(axis, [r for r in own if r["variant"] == variant], "call",
                      color=BLUE, label="the concept")  # fmt: skip
                _line(axis, [r for r in own if r["variant"] == control], "call",
                      color=GREY, label="an unrelated word (control)")  # fmt: skip
                for kind, style in (("peak", "-"), ("plateau", ":")):
                    found = critical[variant][group][kind]
                    if found["value"] is not None:
                        axis.axvline(found["value"], color=RED, linestyle=style, linewidth=1,
                                     label=f"{kind}: call {found['value']:.0f}"
                                           f"{_span(found['ci95'])}")  # fmt: skip
                n = found["n"]
                axis.set_title(
                    f"{GROUP_NAMES.get(group, group)} (n = {n}): {titles[variant]}", loc="left"
                )
                axis.set_ylabel("strength ratio r(t)")
                axis.legend(frameon=False, fontsize=7.5, loc="best")
                if line == len(titles) - 1:
                    axis.set_xlabel(f"model call, of {calls}")
    return path.name


def _span(ci95: Sequence[float] | None) -> str:
    return "" if ci95 is None else f" [{ci95[0]:.0f}, {ci95[1]:.0f}]"


def draw_lines(
    path: Path,
    rows: Sequence[Row],
    *,
    title: str,
    ylabel: str,
    labels: Mapping[str, str],
    zero: bool = False,
) -> str:
    """One panel a group, one line an arm, over model calls."""
    groups = _groups(rows)
    with _figure(path, (4.6 * len(groups), 3.6)) as figure:
        axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
        for axis, group in zip(axes, groups, strict=True):
            for color, (arm, label) in zip(COLORS, labels.items(), strict=False):
                own = [r for r in rows if r["group"] == group and r["arm"] == arm]
                _line(axis, own, "call", color=color, label=label)
            if zero:
                axis.axhline(0, color="black", linewidth=0.6)
            n = max((r["n"] for r in rows if r["group"] == group), default=0)
            axis.set_title(f"{GROUP_NAMES.get(group, group)} (n = {n})", loc="left")
            axis.set_xlabel("model call")
        axes[0].set_ylabel(ylabel)
        axes[0].legend(frameon=False, fontsize=7.5)
        figure.suptitle(title, fontsize=10)
    return path.name


def draw_grid(path: Path, rows: Sequence[Row], *, edges: Sequence[int], group: str) -> str:
    """Removal, reverse activation and damage of every window as three heat maps."""
    import numpy as np

    panels = (
        ("removal_", "Removed, of twins that show it", "Blues", 1.0),
        ("reverse_", "Reverse activation, of twins that lack it", "Reds", None),
        ("damage_", "Damage: 1 - SSIM to the twin", "Oranges", None),
    )
    starts, stops = list(edges[:-1]), list(edges[1:])
    table = {(row["start"], row["stop"]): row for row in rows}
    side = max(3.6, 0.42 * len(starts) + 1.2)
    few = len(starts) <= 12
    with _figure(path, (3 * side, side)) as figure:
        axes = figure.subplots(1, 3)
        for axis, (prefix, title, color, most) in zip(axes, panels, strict=True):
            field = np.full((len(stops), len(starts)), np.nan)
            for (start, stop), row in table.items():
                value = row[f"{prefix}value"]
                if value is not None:
                    field[stops.index(stop), starts.index(start)] = value
            known = field[~np.isnan(field)]
            top = most or max(float(known.max()) if known.size else 0.0, 1e-6)
            image = axis.imshow(field, origin="lower", cmap=color, vmin=0, vmax=top, aspect="auto")
            if few:
                for (j, i), value in np.ndenumerate(field):
                    if not np.isnan(value):
                        ink = "white" if value > 0.6 * top else "black"
                        axis.text(i, j, f"{value:.2f}".lstrip("0") or "0", ha="center",
                                  va="center", fontsize=7, color=ink)  # fmt: skip
            every = max(1, len(starts) // 12)
            axis.set_xticks(range(0, len(starts), every), starts[::every])
            axis.set_yticks(range(0, len(stops), every), stops[::every])
            axis.set_xlabel("start: first call with the negative")
            axis.set_ylabel("stop: first call without it")
            n = max((row[f"{prefix}n"] for row in rows), default=0)
            axis.set_title(f"{title} (n = {n})", loc="left", fontsize=9)
            figure.colorbar(image, ax=axis, shrink=0.85)
        figure.suptitle(
            f"Negative in model calls [start, stop): {GROUP_NAMES.get(group, group)}", fontsize=10
        )
    return path.name


def draw_starts(path: Path, rows: Sequence[Row], needed: Sequence[Row], *, calls: int) -> str:
    """What a late start and an early stop leave of removal and damage, and calls needed."""
    groups = _groups(rows)
    first = min(row["start"] for row in rows)
    last = max(row["stop"] for row in rows)
    with _figure(path, (12.5, 3.7)) as figure:
        axes = figure.subplots(1, 4)
        for color, group in zip(COLORS, groups, strict=False):
            own = [row for row in rows if row["group"] == group]
            label = GROUP_NAMES.get(group, group)
            late = [row for row in own if row["stop"] == last]
            early = [row for row in own if row["start"] == first]
            _line(axes[0], late, "start", "removal_", color=color, label=label)
            _line(axes[1], early, "stop", "removal_", color=color, label=label)
            _line(axes[2], late, "start", "damage_", color=color, label=label)
            steps = [r for r in needed if r["group"] == group and r["median_calls"] is not None]
            axes[3].plot([r["start"] for r in steps], [r["median_calls"] for r in steps],
                         marker="o", markersize=3, color=color, label=label)  # fmt: skip
        axes[0].set_title("Removed by [start, end)", loc="left")
        axes[1].set_title("Removed by [0, stop)", loc="left")
        axes[2].set_title("Damage of [start, end)", loc="left")
        axes[3].set_title("Calls needed, median", loc="left")
        axes[0].set_ylabel("share of twins that show it")
        axes[2].set_ylabel("1 - SSIM to the twin")
        axes[3].set_ylabel("model calls (none where under half)")
        for axis, name in zip(axes, ("start", "stop", "start", "start"), strict=True):
            axis.set_xlabel(f"{name}, model call of {calls}")
            axis.set_xlim(0, calls)
            axis.set_ylim(bottom=0)
        axes[0].set_ylim(0, 1)
        axes[1].set_ylim(0, 1)
        axes[0].legend(frameon=False, fontsize=7.5, loc="upper right")
    return path.name


def draw_activation(path: Path, rows: Sequence[Row]) -> str:
    """Share of pictures that show the concept after n first calls, beside the control."""
    groups = _groups(rows)
    with _figure(path, (4.2 * len(groups), 3.6)) as figure:
        axes = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
        for axis, group in zip(axes, groups, strict=True):
            own = [row for row in rows if row["group"] == group]
            _line(axis, own, "first_calls", "concept_", color=RED, marker="o", markersize=3,
                  label="the concept as negative")  # fmt: skip
            _line(axis, own, "first_calls", "placebo_", color=GREY, marker="o", markersize=3,
                  label="an unrelated negative (control)")  # fmt: skip
            n = max((row["concept_n"] for row in own), default=0)
            axis.set_title(f"{GROUP_NAMES.get(group, group)} (n = {n})", loc="left")
            axis.set_xlabel("negative in the first n calls")
            axis.set_ylim(bottom=0)
        axes[0].set_ylabel("concept present, twin lacks it")
        axes[0].legend(frameon=False, fontsize=7.5)
        figure.suptitle("Reverse activation", fontsize=10)
    return path.name


def draw_maps(
    path: Path,
    maps: Mapping[str, Sequence[npt.NDArray[np.float32]]],
    pixels: Mapping[str, npt.NDArray[np.uint8]],
    *,
    spans: Sequence[tuple[int, int]],
    prompt: str,
    concept: str,
) -> str:
    """Attention to the concept over time: as a positive word above, as a negative one below."""
    titles = {
        "positive": f"prompt: {shown(prompt)}, {shown(concept)}",
        "negative": f"prompt: {shown(prompt)}; negative: {shown(concept)}",
    }
    with _figure(path, (1.25 * (len(spans) + 1), 3.5)) as figure:
        rows = figure.subfigures(2, 1)
        for row, (arm, title) in zip(rows, titles.items(), strict=True):
            axes = row.subplots(1, len(spans) + 1)
            row.suptitle(title, fontsize=9, x=0.01, ha="left")
            # colours are those of one row: a negative word's attention has its own size
            top = max(float(one.max()) for one in maps[arm])
            bottom = min(float(one.min()) for one in maps[arm])
            for axis, one, (start, stop) in zip(axes[:-1], maps[arm], spans, strict=True):
                axis.imshow(one, cmap="magma", vmin=bottom, vmax=top, interpolation="nearest")
                axis.set_xlabel(f"{start}-{stop - 1}", fontsize=8)
            axes[-1].imshow(pixels[arm], interpolation="nearest")
            axes[-1].set_xlabel("picture", fontsize=8)
            for axis in axes:
                axis.set_xticks([])
                axis.set_yticks([])
    return path.name


def draw_schedulers(path: Path, rows: Sequence[Row]) -> str:
    """Removal and damage of a late start, a line a scheduler, over parts of the schedule."""
    names = list(dict.fromkeys(str(row["scheduler"]) for row in rows))
    with _figure(path, (8.4, 3.6)) as figure:
        axes = figure.subplots(1, 2)
        for color, name in zip((*COLORS, "black", "#9467bd"), names, strict=False):
            own = [row for row in rows if row["scheduler"] == name]
            _line(axes[0], own, "fraction", "removal_", color=color, label=name)
            _line(axes[1], own, "fraction", "damage_", color=color, label=name)
        axes[0].set_title("Removed by [start, end)", loc="left")
        axes[1].set_title("Damage of [start, end): 1 - SSIM", loc="left")
        for axis in axes:
            axis.set_xlabel("start, part of the schedule")
            axis.set_ylim(bottom=0)
        axes[0].legend(frameon=False, fontsize=7.5)
    return path.name
