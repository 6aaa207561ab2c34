"""Pictures for a page: small, each once, read from the cache and checked against the record."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from negbench.progress import Progress, silent
from negbench.store import ImageStore, StoredImage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from negbench.record import ImageResult

SIDE = 256
"""Longest side of a thumbnail, in pixels."""
CHUNK = 96
"""Pictures that the page decodes together."""
QUALITY = 88
LOSSLESS_SIDE = 128
"""Pictures up to this side keep every pixel."""
WORKERS = 4


@dataclass(frozen=True)
class Pictures:
    """Encoded pictures of a page.

    Attributes:
        index: sha256 of the pixels -> number of the picture.
        encoded: WebP as base64, by number.
        size: longest original side, in pixels.
        n_missing: pictures that the cache does not hold, or not as the record has them.
    """

    index: Mapping[str, int]
    encoded: Sequence[str]
    size: int
    n_missing: int

    def chunks(self) -> Iterator[Sequence[str]]:
        """`CHUNK` pictures at a time, in order."""
        for start in range(0, len(self.encoded), CHUNK):
            yield self.encoded[start : start + CHUNK]


def gather_pictures(
    images: Sequence[ImageResult],
    *,
    cache: Path,
    side: int | None = SIDE,
    progress: Progress = silent,
) -> Pictures:
    """Read, check, shrink and encode pictures.

    Args:
        images: results whose pictures are wanted; equal pixels are taken once.
        cache: folder of images.
        side: longest side of what is embedded, in pixels; None for the pictures as they are.
        progress: called with a label and a total, gives a bar.
    """
    store = ImageStore(cache)
    distinct = {image.image: image for image in images}
    index: dict[str, int] = {}
    encoded: list[str] = []
    size = 0
    missing = 0
    with (
        progress("pictures", len(distinct)) as bar,
        ThreadPoolExecutor(max_workers=WORKERS) as pool,
    ):
        for image, made in zip(
            distinct,
            pool.map(lambda result: _encode(store, result, side=side), distinct.values()),
            strict=True,
        ):
            bar.update(1)
            if made is None:
                missing += 1
                continue
            index[image] = len(encoded)
            encoded.append(made[0])
            size = max(size, made[1])
    return Pictures(index=index, encoded=encoded, size=size, n_missing=missing)


def _encode(store: ImageStore, result: ImageResult, *, side: int | None) -> tuple[str, int] | None:
    """base64 of a WebP and the longest original side, or None if the picture is not at hand."""
    pixels = store.load(StoredImage(result.key, result.image, result.evaluations, {}))
    return None if pixels is None else (webp(pixels, side=side), max(pixels.shape[:2]))


def webp(pixels: npt.NDArray[np.uint8], *, side: int | None = SIDE) -> str:
    """uint8 (height, width, 3) as base64 of a WebP whose longest side is at most `side`."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    if side is not None:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    small = max(picture.size) <= LOSSLESS_SIDE
    picture.save(buffer, format="WEBP", lossless=small, quality=QUALITY, method=2)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
