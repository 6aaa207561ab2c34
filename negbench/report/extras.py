"""Plots and tables that lie in the folder of a run: sweeps, timings, whatever a protocol left."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from negbench.report.text import visible

MAX_FILES = 24
MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
PLOT_SIDE = 1600
MAX_ROWS = 200
MAX_COLUMNS = 24
MARKERS = ("sweep.json", "timing.json")
"""Files by which a folder of a sweep or of timing is known."""
INNER = ("samples", "rows", "features")
"""Folders of a run that hold no plots."""


@dataclass(frozen=True)
class Plot:
    """A picture of a run's folder, encoded anew as WebP."""

    label: str
    name: str
    encoded: str
    width: int
    height: int


@dataclass(frozen=True)
class FileTable:
    """The first rows of a CSV file of a run's folder."""

    label: str
    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_more: int


def find_folders(paths: Iterable[Path]) -> list[Path]:
    """Folders of sweeps and of timing among `paths` or below them."""
    found: list[Path] = []
    for path in paths:
        for name in MARKERS:
            found += sorted(marker.parent for marker in path.rglob(name))
    return list(dict.fromkeys(found))


def find_extras(folder: Path, *, label: str) -> tuple[list[Plot], list[FileTable]]:
    """Plots (``.png``) and tables (``.csv``) in a run's folder and one level below.

    Files that cannot be read, or are too large for a page, are left out.
    """
    plots: list[Plot] = []
    tables: list[FileTable] = []
    for path in list(_files(folder))[:MAX_FILES]:
        name = visible(str(path.relative_to(folder)), limit=120)
        if path.suffix == ".png":
            plot = _plot(path, label=visible(label, limit=60), name=name)
            plots += [plot] if plot is not None else []
        else:
            table = _table(path, label=visible(label, limit=60), name=name)
            tables += [table] if table is not None else []
    return plots, tables


def _files(folder: Path) -> Iterator[Path]:
    for pattern in ("*.png", "*.csv", "*/*.png", "*/*.csv"):
        for path in sorted(folder.glob(pattern)):
            if path.parent.name in INNER or path.is_symlink() or not path.is_file():
                continue
            if path.stat().st_size <= MAX_BYTES:
                yield path


def _plot(path: Path, *, label: str, name: str) -> Plot | None:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            shown = picture.convert("RGBA")
    except (OSError, ValueError, SyntaxError):
        return None
    white = Image.new("RGBA", shown.size, "white")
    white.alpha_composite(shown)
    white.thumbnail((PLOT_SIDE, PLOT_SIDE))
    buffer = io.BytesIO()
    white.convert("RGB").save(buffer, format="WEBP", lossless=True, method=3)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Plot(label=label, name=name, encoded=encoded, width=white.width, height=white.height)


def _table(path: Path, *, label: str, name: str) -> FileTable | None:
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [row[:MAX_COLUMNS] for row in csv.reader(io.StringIO(text)) if row]
    except (OSError, ValueError, csv.Error):
        return None
    if not rows:
        return None
    shown = [[visible(cell, limit=200) for cell in row] for row in rows[: MAX_ROWS + 1]]
    return FileTable(
        label=label,
        name=name,
        header=shown[0],
        rows=shown[1:],
        n_more=max(0, len(rows) - 1 - MAX_ROWS),
    )
