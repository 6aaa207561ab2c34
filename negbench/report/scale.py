"""Number lines: where a value and its interval stand, in per cent of a track's width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARGIN = 0.06
"""Room left at both ends of a track, as a share of its width."""


@dataclass(frozen=True)
class Tick:
    """A mark of the axis: place in per cent, and its number."""

    x: float
    text: str


@dataclass(frozen=True)
class Scale:
    """A number line from `low` to `high`, low < high."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float | None], *, zero: bool = False) -> Scale:
        """A scale that holds all `values`, and 0 if asked, with some room at the ends."""
        found = [v for v in values if v is not None and math.isfinite(v)]
        if zero:
            found.append(0.0)
        low, high = (min(found), max(found)) if found else (0.0, 1.0)
        if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
            room = abs(high) * 0.1 or 0.5
            return cls(low - room, high + room)
        room = (high - low) * MARGIN
        return cls(low - room, high + room)

    def x(self, value: float) -> float:
        """Place of `value` in per cent, cut to the track."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)

    def ticks(self, count: int = 3) -> Sequence[Tick]:
        """About `count` round numbers within the scale."""
        step = _round_step((self.high - self.low) / count)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [
            Tick(self.x(n * step), f"{n * step:.{digits}f}".replace("-", "−"))
            for n in range(first, last + 1)
        ]


def _round_step(rough: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return min((power * m for m in (1, 2, 5, 10)), key=lambda step: abs(step - rough))
