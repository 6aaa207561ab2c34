"""Small drawings of the pages, as SVG without a style attribute, so that a strict policy holds.

They are put together from numbers and from texts that `escape` went over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Interval = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """A linear scale from `low` to `high` onto `left` .. `right`."""

    low: float
    high: float
    left: float
    right: float

    def __call__(self, value: float) -> str:
        """The place of `value`, one decimal."""
        if self.high <= self.low:
            return f"{(self.left + self.right) / 2:.1f}"
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return f"{self.left + share * (self.right - self.left):.1f}"


def axis(
    values: Sequence[float | None],
    *,
    left: float,
    right: float,
    zero: bool = False,
    pad: float = 0.04,
) -> Axis:
    """A scale that holds all values, with a little room; with 0 if `zero`."""
    known = [value for value in values if value is not None]
    if zero:
        known.append(0.0)
    if not known:
        return Axis(0.0, 1.0, left, right)
    low, high = min(known), max(known)
    room = (high - low) * pad
    return Axis(low - room, high + room, left, right)


def _svg(
    kind: str, width: int, height: int, parts: Sequence[str], *, label: str, more: str
) -> Markup:
    inner = "".join(parts)
    return Markup(  # noqa: S704
        f'<svg class="{escape(kind)}" viewBox="0 0 {width} {height}" {more} '
        f'aria-label="{escape(label)}">{inner}</svg>'
    )


WIDTH, HEIGHT = 132, 16


def bar(
    place: Axis,
    value: float | None,
    ci95: Interval | None,
    *,
    reference: float | None,
    label: str,
    kind: str = "",
) -> Markup:
    """A point with its interval on a column's scale; the dashed line is the twin."""
    parts = [f'<line class="base" x1="0" x2="{WIDTH}" y1="8" y2="8"/>']
    if reference is not None:
        x = place(reference)
        parts.append(f'<line class="twin" x1="{x}" x2="{x}" y1="1" y2="15"/>')
    if value is not None:
        if ci95 is not None:
            parts.append(
                f'<line class="ci" x1="{place(ci95[0])}" x2="{place(ci95[1])}" y1="8" y2="8"/>'
            )
        parts.append(f'<circle class="point" cx="{place(value)}" cy="8" r="3.6"/>')
    return _svg(f"bar {kind}".strip(), WIDTH, HEIGHT, parts, label=label, more='role="img"')


def rank_strip(rank: tuple[int, int], count: int) -> Markup:
    """The rank set as a strip of `count` places."""
    width = 100 / max(count, 1)
    left, right = (rank[0] - 1) * width, rank[1] * width
    return Markup(  # noqa: S704
        '<svg class="strip" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="all" x="0" y="1" width="100" height="2"/>'
        f'<rect class="set" x="{left:.1f}" y="0" width="{right - left:.1f}" height="4"/></svg>'
    )


def waterfall(values: Sequence[float], *, higher_is_better: bool | None, label: str) -> Markup:
    """Differences by prompt, sorted: how many gain, how many lose, and by how much."""
    width, height = 640, 120
    if not values:
        return Markup("")
    good_first = sorted(values, reverse=higher_is_better is not False)
    top, bottom = max(0.0, *values), min(0.0, *values)
    y = Axis(bottom, top, height - 4, 4)
    step = width / len(good_first)
    zero = y(0.0)
    drawn = []
    for kind, good in (("better", True), ("worse", False)):
        run = [
            (at, value)
            for at, value in enumerate(good_first)
            if value != 0 and ((value > 0) == (higher_is_better is not False)) == good
        ]
        if run:
            steps = "".join(f"V{y(value)}h{step:.2f}" for _, value in run)
            drawn.append(
                f'<path class="{kind}" d="M{run[0][0] * step:.1f} {zero}{steps}V{zero}z"/>'
            )
    drawn.append(f'<line class="zero" x1="0" x2="{width}" y1="{zero}" y2="{zero}"/>')
    stretch = 'role="img" preserveAspectRatio="none"'
    return _svg("fall", width, height, drawn, label=label, more=stretch)


@dataclass(frozen=True)
class Dot:
    """An entry in the trade-off figure."""

    label: str
    href: str | None
    x: float
    y: float
    x_ci: Interval | None
    y_ci: Interval | None


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers between two ends."""
    import math

    span = high - low
    if span <= 0:
        return [low]
    raw = span / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [
        round(first * step + i * step, 10) for i in range(int((high - first * step) / step) + 1)
    ]


def tradeoff(dots: Sequence[Dot], *, x_name: str, y_name: str, label: str) -> Markup:
    """Two columns against each other, a cross of intervals an entry; links lead to its page."""
    width, height = 640, 380
    xs = [v for d in dots for v in (d.x, *(d.x_ci or ()))]
    ys = [v for d in dots for v in (d.y, *(d.y_ci or ()))]
    x = axis(xs, left=56, right=width - 16, pad=0.06)
    y = axis(ys, left=height - 44, right=14, pad=0.06)
    parts = []
    for tick in _ticks(x.low, x.high):
        parts += [
            f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="14" y2="{height - 44}"/>',
            f'<text class="tick" x="{x(tick)}" y="{height - 28}" text-anchor="middle">',
            f"{tick:g}</text>",
        ]
    for tick in _ticks(y.low, y.high):
        parts += [
            f'<line class="grid" x1="56" x2="{width - 16}" y1="{y(tick)}" y2="{y(tick)}"/>',
            f'<text class="tick" x="48" y="{float(y(tick)) + 4:.1f}" text-anchor="end">',
            f"{tick:g}</text>",
        ]
    parts.append(
        f'<text class="name" x="{(width + 40) / 2}" y="{height - 8}" text-anchor="middle">'
        f"{escape(x_name)}</text>"
        f'<text class="name" transform="translate(13 {(height - 30) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_name)}</text>'
    )
    taken: list[tuple[float, float, float, float]] = [
        (float(x(d.x)) - 7, float(y(d.y)) - 7, float(x(d.x)) + 7, float(y(d.y)) + 7) for d in dots
    ]
    for dot in dots:
        px, py = x(dot.x), y(dot.y)
        cross = ""
        if dot.x_ci:
            cross += _line(x(dot.x_ci[0]), x(dot.x_ci[1]), py, py)
        if dot.y_ci:
            cross += _line(px, px, y(dot.y_ci[0]), y(dot.y_ci[1]))
        lx, ly, anchor = _free_place(float(px), float(py), dot.label, taken, width)
        mark = (
            f'<circle class="point" cx="{px}" cy="{py}" r="5"/>'
            if dot.href
            else f'<rect class="hollow" x="{float(px) - 4.5:.1f}" y="{float(py) - 4.5:.1f}" '
            f'width="9" height="9" transform="rotate(45 {px} {py})"/>'
        )
        text = (
            f'<text class="dot-label" x="{lx:.1f}" y="{ly:.1f}" text-anchor="{anchor}">'
            f"{escape(dot.label)}</text>"
        )
        inner = cross + mark + text
        parts.append(
            f'<a href="{escape(dot.href)}" class="dot">{inner}</a>'
            if dot.href
            else f'<g class="dot reference">{inner}</g>'
        )
    return _svg("tradeoff", width, height, parts, label=label, more='role="group"')


def _line(x1: str, x2: str, y1: str, y2: str) -> str:
    return f'<line class="ci" x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}"/>'


def _free_place(
    px: float,
    py: float,
    text: str,
    taken: list[tuple[float, float, float, float]],
    width: float,
) -> tuple[float, float, str]:
    """Where a label fits beside its point without lying on another; remembers it."""
    wide = 6.6 * len(text)
    spots = [(px + 10, py + dy, "start") for dy in (-8, 14, 4, -20, 26, -32, 38)]
    spots += [(px - 10, py + dy, "end") for dy in (-8, 14, 4, -20, 26, -32, 38)]
    for lx, ly, anchor in spots:
        left = lx if anchor == "start" else lx - wide
        box = (left, ly - 10, left + wide, ly + 3)
        if left < 58 or box[2] > width - 4 or ly < 12:
            continue
        if not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
            for other in taken
        ):
            taken.append(box)
            return lx, ly, anchor
    return (px + 10, py - 8, "start") if px + 10 + wide < width else (px - 10, py - 8, "end")
