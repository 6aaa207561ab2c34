"""How far the same picture's scores may lie apart on two machines, by class of device.

On one machine with one set of libraries the CPU draws the same bytes again, whatever the batch,
order or shard. Another CPU, or other libraries, may round sums otherwise, and a GPU does; so where
bytes differ, scores are compared, in units of the metric's standard deviation over the benchmark's
images. What lies within is not told apart from honest rounding, and an alteration smaller than that
goes unseen: with n images it moves an estimate by at most the tolerance times that deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from negbench.leaderboard.values import OWN_TEXT

if TYPE_CHECKING:
    from negbench.leaderboard.entry import Entry
    from negbench.leaderboard.values import Values
    from negbench.types import Score

TOLERANCE = {"cpu": 0.05, "cuda": 0.5}
"""Class of device -> standard deviations; the larger of the two classes that meet is taken."""

SAME_BYTES = 0.001
"""The same for scores of pictures that agree byte for byte: networks round their sums too."""

OTHER_DEVICE = 0.5
FEW = 0.05
"""Up to this share of twins may lie further apart: a score can tip on one grey level."""


def tolerance(*devices: str) -> float:
    """The tolerance where pictures of these classes of devices are compared."""
    return max(TOLERANCE.get(device.partition(":")[0], OTHER_DEVICE) for device in devices)


def spread(numbers: Sequence[float | None]) -> float:
    """Standard deviation of the scored; 0 where fewer than two are."""
    scored = [value for value in numbers if value is not None]
    return float(np.std(scored)) if len(scored) > 1 else 0.0


def apart(first: Score, second: Score, *, limit: float) -> bool:
    """Whether two scores differ by more than `limit`, or only one of them is a number."""
    if first.value is None or second.value is None:
        return (first.value is None) != (second.value is None)
    slack = 1e-6 * max(1.0, abs(first.value))
    return not math.isclose(first.value, second.value, rel_tol=0.0, abs_tol=limit + slack)


def twins_apart(entry: Entry, values: Values, other: Entry, others: Values) -> str | None:
    """Why the twins of two entries cannot be the same pictures, or None if they can.

    Twins are the benchmark's: same prompts, seeds and generator. They may differ by what two
    machines differ, no more.
    """
    if values.ids != others.ids or values.seeds != others.seeds:
        return "other cases or seeds"
    if values.keys["twin"] != others.keys["twin"]:
        return "other requests"
    here, there = entry.provenance.device, other.provenance.device
    for (side, name), scores in values.scores.items():
        column = others.scores.get((side, name))
        if side != "twin" or column is None or entry.metrics[name] != other.metrics.get(name):
            continue
        if name in OWN_TEXT:
            continue
        limit = tolerance(here, there) * spread([score.value for score in column])
        far = sum(apart(a, b, limit=limit) for a, b in zip(scores, column, strict=True))
        if far > FEW * len(scores):
            return f"{name} of {far} of {len(scores)} twins differs by more than {limit:.3g}"
    return None
