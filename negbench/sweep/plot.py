"""The picture of a sweep: net removal over damage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.errors import one_line
from negbench.files import write_atomic

if TYPE_CHECKING:
    from negbench.sweep.sweep import Point, Sweep

BLUE, GREY, RED = "#2b6cb0", "#9aa5b1", "#c05621"


def draw_curve(sweep: Sweep, path: Path) -> None:
    """Write a PNG: each setting with both intervals, the Pareto front, the reference."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.family": ["DejaVu Sans"], "font.size": 9,
                         "axes.spines.top": False, "axes.spines.right": False}):  # fmt: skip
        figure = Figure(figsize=(6.4, 4.4), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        known = [p for p in sweep.points if p.damage is not None and p.removal.value is not None]
        known.sort(key=_place)
        xs, ys = [0.0, *(_place(p) for p in known)], [0.0, *(_height(p) for p in known)]
        axis.plot(xs, ys, color=GREY, linewidth=1.0, linestyle=":", zorder=1)
        front = [p for p in known if p.pareto]
        if front:
            axis.plot(
                [_place(p) for p in front], [_height(p) for p in front], color=BLUE, linewidth=1.8,
                zorder=2, label="Pareto front",
            )  # fmt: skip
        for point in known:
            _cross(axis, point, BLUE if point.pareto else GREY)
            axis.annotate(
                _plain(str(point.value)), (_place(point), _height(point)), fontsize=8,
                textcoords="offset points", xytext=(-5, 6), ha="right",
            )  # fmt: skip
        reference = sweep.reference
        if reference.damage is not None and reference.removal.value is not None:
            _cross(axis, reference, RED, label="cfg at every step")
        at = sweep.matched
        if at.damage is not None and at.removal is not None:
            axis.axvline(at.damage, color=RED, linewidth=0.8, linestyle="--", zorder=0)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xlim(left=0)
        axis.set_xlabel(f"damage to the twin ({_plain(sweep.damage_by)}, whole picture)")
        axis.set_ylabel("net removal (rsr minus the placebo's)")
        axis.set_title(_plain(f"{sweep.benchmark}, {sweep.method}: {sweep.key}"), fontsize=10)
        axis.legend(loc="upper left", frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def _place(point: Point) -> float:
    return point.damage or 0.0


def _height(point: Point) -> float:
    return point.removal.value or 0.0


def _cross(axis: Any, point: Point, color: str, label: str | None = None) -> None:
    x, y = _place(point), _height(point)
    axis.plot([x], [y], marker="o", markersize=5, color=color, linestyle="", label=label, zorder=3)
    if point.removal.ci95 is not None:
        axis.plot([x, x], list(point.removal.ci95), color=color, linewidth=0.9, zorder=2)
    if point.damage_ci95 is not None:
        axis.plot(list(point.damage_ci95), [y, y], color=color, linewidth=0.9, zorder=2)


def _plain(text: str) -> str:
    shown = "".join(c if c.isascii() else "?" for c in one_line(text, limit=60))
    return shown.replace("$", r"\$")
