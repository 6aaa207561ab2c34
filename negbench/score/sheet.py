"""A sheet of pairs: each twin to the left of the picture with the negative prompt."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from negbench.errors import ConfigError, MissingError
from negbench.files import write_atomic
from negbench.record import Sample, load_record
from negbench.score.export import in_order
from negbench.store import ImageStore, default_cache

if TYPE_CHECKING:
    from PIL import Image

SIDE = 256
"""Longer side of a picture on the sheet, in pixels; smaller ones are shown as they are."""
COLUMNS = 4
"""Pairs in a row."""
MOST = 64
"""Most pairs on a sheet."""
FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
GAP = 4
BETWEEN = 16


def draw_sheet(
    run: str | Path, path: Path, *, cache: Path | None = None, limit: int | None = None
) -> None:
    """Draw the first pairs of a run, at most `MOST`, as one PNG, WebP or JPEG file.

    Raises:
        ConfigError: the file's ending names another format.
        MissingError: an image is not in the cache.
    """
    from PIL import Image

    form = check_ending(path)

    samples = in_order(load_record(run))[: min(limit or MOST, MOST)]
    store = ImageStore(cache or default_cache())
    pairs = [
        [_thumbnail(store, key, sample) for key in (sample.twin.key, sample.treated.key)]
        for sample in samples
    ]
    width = max(picture.width for pair in pairs for picture in pair)
    height = max(picture.height for pair in pairs for picture in pair)
    columns = min(COLUMNS, len(pairs))
    wide = 2 * width + GAP
    size = (
        columns * (wide + BETWEEN) - BETWEEN,
        -(-len(pairs) // COLUMNS) * (height + BETWEEN) - BETWEEN,
    )
    sheet = Image.new("RGB", size, (255, 255, 255))
    for number, (twin, treated) in enumerate(pairs):
        left = number % COLUMNS * (wide + BETWEEN)
        top = number // COLUMNS * (height + BETWEEN)
        sheet.paste(twin, (left, top))
        sheet.paste(treated, (left + width + GAP, top))
    buffer = io.BytesIO()
    sheet.save(buffer, format=form, quality=90, optimize=True)
    write_atomic(path, buffer.getvalue())


def check_ending(path: Path) -> str:
    """The format that a file's ending names.

    Raises:
        ConfigError: it names none of them.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise ConfigError(f"--sheet {path}: write a file that ends in .png, .webp or .jpg")
    return form


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
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture
