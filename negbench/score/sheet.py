"""A sheet of pairs: each twin to the left of the picture with the negative prompt."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from negbench.errors import MissingError
from negbench.files import write_atomic
from negbench.record import Sample, load_record
from negbench.score.export import in_order
from negbench.store import ImageStore, default_cache

if TYPE_CHECKING:
    from PIL import Image

SIDE = 128
"""Longer side of a picture on the sheet, in pixels."""
COLUMNS = 4
"""Pairs in a row."""
MOST = 64
"""Most pairs on a sheet."""
GAP = 4
BETWEEN = 16


def draw_sheet(
    run: str | Path, path: Path, *, cache: Path | None = None, limit: int | None = None
) -> None:
    """Draw the first pairs of a run, at most `MOST`, as one PNG.

    Raises:
        MissingError: an image is not in the cache.
    """
    from PIL import Image

    samples = in_order(load_record(run))[: min(limit or MOST, MOST)]
    store = ImageStore(cache or default_cache())
    columns = min(COLUMNS, len(samples))
    rows = -(-len(samples) // COLUMNS)
    wide = 2 * SIDE + GAP
    sheet = Image.new(
        "RGB",
        (columns * (wide + BETWEEN) - BETWEEN, rows * (SIDE + BETWEEN) - BETWEEN),
        (255, 255, 255),
    )
    for number, sample in enumerate(samples):
        left = number % COLUMNS * (wide + BETWEEN)
        top = number // COLUMNS * (SIDE + BETWEEN)
        for at, key in ((left, sample.twin.key), (left + SIDE + GAP, sample.treated.key)):
            sheet.paste(_thumbnail(store, key, sample), (at, top))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    write_atomic(path, buffer.getvalue())


def _thumbnail(store: ImageStore, key: str, sample: Sample) -> Image.Image:
    from PIL import Image

    stored = store.get(key)
    pixels = None if stored is None else store.load(stored)
    if pixels is None:
        raise MissingError(
            f"the image of case {sample.case}, noise {sample.replicate} is not in the cache; give "
            "the command of the run again, or the right --cache"
        )
    picture = Image.fromarray(pixels)
    factor = SIDE / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    # small pictures keep their own pixels, large ones are averaged
    way = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    return picture.resize(size, way)
