"""The card's pictures: lengths, tag frequencies, tags per year; the same bytes for same figures."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

_BLUE, _RED = "#2b6ca3", "#b5483c"


def draw_plots(stats: dict[str, Any], folder: Path) -> list[str]:
    """Write the pictures into `folder` and return their names."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    names = []
    fonts = ["DejaVu Sans"]
    with mpl.rc_context({"font.family": fonts, "font.size": 9, "axes.spines.top": False,
                         "axes.spines.right": False}):  # fmt: skip
        for name, draw, size in (
            ("lengths", _lengths, (7.0, 3.0)),
            ("tags", _tags, (9.0, 4.8)),
            ("years", _years, (7.0, 3.4)),
        ):
            figure = Figure(figsize=size, dpi=110, layout="constrained")
            FigureCanvasAgg(figure)
            draw(figure, stats)
            file = f"{name}.png"
            figure.savefig(folder / file, format="png", metadata={"Software": None})
            names.append(file)
    return names


def _lengths(figure: Any, stats: dict[str, Any]) -> None:
    axis = figure.subplots()
    width = 0.4
    for shift, side, color in ((-width / 2, "prompt", _BLUE), (width / 2, "negative", _RED)):
        histogram = stats["word_histogram"][side]
        counts, edges = histogram["counts"], histogram["edges"]
        total = sum(counts) or 1
        places = [index + shift for index in range(len(counts))]
        label = "prompt" if side == "prompt" else "negative prompt"
        axis.bar(places, [100 * c / total for c in counts], width, color=color, label=label)
    labels = [
        str(a) if b - a == 1 else (f"{a}+" if b == edges[-1] else f"{a}-{b - 1}")
        for a, b in pairwise(edges)
    ]
    axis.set_xticks(range(len(labels)), labels, fontsize=7.5)
    axis.set_xlabel("words")
    axis.set_ylabel("rows, %")
    axis.legend(frameon=False, loc="upper right")
    axis.set_title(f"Lengths ({stats['total']:,} rows)", loc="left")


def _tags(figure: Any, stats: dict[str, Any]) -> None:
    axes = figure.subplots(1, 2)
    total = stats["total"] or 1
    for axis, side, color in zip(axes, ("prompt", "negative"), (_BLUE, _RED), strict=True):
        top = stats["tags"][side][:20]
        names = [_shown(tag) for tag, _ in top]
        axis.barh(range(len(top)), [100 * count / total for _, count in top], color=color)
        axis.set_yticks(range(len(top)), names)
        axis.invert_yaxis()
        axis.set_xlabel("rows that have the tag, %")
        label = "prompts" if side == "prompt" else "negative prompts"
        axis.set_title(f"Commonest tags of {label}", loc="left")


def _shown(tag: str) -> str:
    """A tag as an axis can show it: one line, no mathematics, signs the font has."""
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in tag)
    plain = plain.replace("$", r"\$")
    return plain if len(plain) <= 34 else plain[:33] + "…"


def _years(figure: Any, stats: dict[str, Any]) -> None:
    axis = figure.subplots()
    years = list(stats["years"]["rows"])
    tags = stats["years"]["negative_tags"]
    if not years:
        axis.text(0.5, 0.5, "The sources give no times.", ha="center", va="center")
        axis.set_axis_off()
        return
    for tag, shares in tags.items():
        values = [100 * shares.get(year, 0.0) for year in years]
        axis.plot(range(len(years)), values, marker="o", label=_shown(tag))
    labels = [f"{year}\n{stats['years']['rows'][year]:,} rows" for year in years]
    axis.set_xticks(range(len(years)), labels)
    axis.set_ylabel("rows of the year, %")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.set_title("Commonest negative tags by year", loc="left")
