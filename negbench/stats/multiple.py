"""Many comparisons at once."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p values (Scand. J. Statist. 6, 1979), in the order given.

    Rejecting where the adjusted p is at most alpha keeps the chance of any false rejection at
    alpha, whatever the dependence. None (no test was possible) stays None and is not counted.
    """
    tested = sorted((value, index) for index, value in enumerate(p) if value is not None)
    for value, _ in tested:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a p value lies between 0 and 1, got {value}")
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, index) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * value))
        adjusted[index] = largest
    return adjusted
