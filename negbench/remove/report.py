"""A removal in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from negbench.errors import one_line

if TYPE_CHECKING:
    from negbench.remove.search import Removal, Try


def as_text(found: Removal, folder: Path) -> str:
    """What was found, at which price, and where it lies."""
    concept = one_line(found.concept, limit=60)
    twin = _seen(found.twin)
    count = f"{len(found.tried)} pictures drawn"
    if found.status == "no verdict":
        first = f"no verdict on {concept!r}: {found.reason}"
    elif found.status == "not there":
        first = (
            f"not there: the judge does not see {concept!r} in the picture without a negative "
            f"prompt ({twin}); there is nothing to remove. Another --seed gives another picture"
        )
    elif found.status == "removed":
        assert found.best is not None
        start, stop = found.best.window
        first = (
            f"removed: the negative {concept!r} in model calls {start} to {stop - 1} of "
            f"{found.calls} ({twin} without, {_seen(found.best)} with it; "
            f"{_changed(found.best)}{_compared(found)}), {count}"
        )
    else:
        first = f"not removed: the judge sees {concept!r} after every window tried, {count}"
        if found.best is not None:
            start, stop = found.best.window
            first += f"; least with calls {start} to {stop - 1} ({_seen(found.best)})"
    lines = [first]
    if found.note:
        lines.append(f"note: {found.note}")
    lines.append(f"{folder}: twin.png, side-by-side.png, remove.json ...")
    return "\n".join(lines)


def _seen(one: Try) -> str:
    return (
        "no verdict" if one.probability is None else f"seen with probability {one.probability:.2f}"
    )


def _changed(one: Try) -> str:
    if one.damage is None:
        return "too small to measure the change"
    return f"1 - SSIM to the twin {one.damage:.3f}"


def _compared(found: Removal) -> str:
    whole = found.every_call
    if whole is None or whole.damage is None or whole is found.best:
        return ""
    still = "" if not whole.present else ", and still there"
    return f", with the negative in every call {whole.damage:.3f}{still}"
