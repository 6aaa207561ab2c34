"""Bars and axes of a report: places in per cent, texts ready to be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from negbench.numbers import arrow
from negbench.report.scale import Scale, Tick
from negbench.report.text import visible
from negbench.types import Estimate


@dataclass(frozen=True)
class Bar:
    """A value with its interval on a track, places in per cent.

    Attributes:
        label: whose value.
        text: value and interval.
        x: place of the value, None if there is none.
        low: place of the interval's lower end, None without an interval.
        high: of its upper end.
        verdict: ``better``, ``worse``, ``cannot tell`` or nothing.
        note: what a reader should know.
        detail: n and p, in words.
        twin: whether it is the baseline's.
    """

    label: str
    text: str
    x: float | None
    low: float | None
    high: float | None
    verdict: str = ""
    note: str = ""
    detail: str = ""
    twin: bool = False


@dataclass(frozen=True)
class Chart:
    """Bars of one metric over one axis.

    Attributes:
        metric: name.
        subtitle: unit, direction, baseline.
        about: one line of meaning.
        zero: place of 0, None if it is outside.
        ticks: marks of the axis.
        bars: in the order of the runs.
    """

    metric: str
    subtitle: str
    about: str
    zero: float | None
    ticks: Sequence[Tick]
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Matrix:
    """A metric by part of the cases (rows) and run (columns)."""

    title: str
    subtitle: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, int, Sequence[Bar | None]]]
    zero: float | None


def unit_of(unit: str) -> str:
    """The unit as a heading shows it; nothing for plain numbers."""
    return "" if unit in ("1", "score") else visible(unit, limit=30)


def subtitle(*parts: str) -> str:
    """The parts that are not empty, with commas."""
    return ", ".join(part for part in parts if part)


def direction(higher_is_better: bool | None) -> str:  # noqa: FBT001
    """Which way is good, in words; nothing where neither is."""
    if higher_is_better is None:
        return ""
    return f"{arrow(higher_is_better)} {'higher' if higher_is_better else 'lower'} is better"


def make_bar(
    label: str,
    value: float | None,
    ci95: tuple[float, float] | None,
    scale: Scale,
    *,
    text: str,
    verdict: str = "",
    note: str = "",
    detail: str = "",
    twin: bool = False,
) -> Bar:
    """A value and its interval placed on `scale`; the texts are shown as they are."""
    return Bar(
        label=label,
        text=text,
        x=None if value is None else scale.x(value),
        low=None if ci95 is None else scale.x(ci95[0]),
        high=None if ci95 is None else scale.x(ci95[1]),
        verdict=verdict,
        note=visible(note, limit=300),
        detail=detail,
        twin=twin,
    )


def find_estimate(estimates: Sequence[Estimate], metric: str) -> Estimate | None:
    """The estimate of `metric`, or None."""
    return next((estimate for estimate in estimates if estimate.metric == metric), None)


def verdict(
    delta: float | None,
    ci95: tuple[float, float] | None,
    higher_is_better: bool | None,  # noqa: FBT001
) -> str:
    """better, worse, or cannot tell, by the interval; nothing where there is no direction."""
    if delta is None or ci95 is None or higher_is_better is None:
        return ""
    low, high = ci95
    if low <= 0 <= high:
        return "cannot tell"
    return "better" if (low > 0) == higher_is_better else "worse"
