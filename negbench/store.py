"""What was drawn and measured, by what it is: images by request, features and scores by image.

    <cache>/images/<kk>/<key>.png + .json      one image and its facts; the .json is written last
    <cache>/features/<network 16>/<writer>.bin fixed-size rows: sha256, float32 (d,), crc32
    <cache>/scores/<writer>.jsonl              a score by metric, image, twin and text
    <cache>/treatments/<digest>.json           what a method decided

Everything is append-only or appears at once, so any number of processes may share a cache. One that
mirrors object storage (`negbench.remote`) fetches what is missing and sends what is new.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.errors import RecordError
from negbench.files import (
    LineWriter,
    make_folder,
    read_json,
    read_lines,
    storage_error,
    write_atomic,
    write_json,
)
from negbench.progress import Progress, silent
from negbench.remote import cache_folder, remote_of, user_cache
from negbench.types import Ref, Score, sha256_hex

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from negbench.generators.base import Drawn
    from negbench.types import ImageRequest

IMAGE_SCHEMA = 1


def default_cache() -> Path:
    """``$NEGBENCH_CACHE`` (a folder or a URL), or the platform's cache folder for negbench."""
    given = os.environ.get("NEGBENCH_CACHE")
    return cache_folder(given) if given else user_cache()


def pixel_digest(pixels: npt.NDArray[np.uint8]) -> str:
    """sha256 over shape and bytes of uint8 (height, width, 3) pixels."""
    height, width, channels = pixels.shape
    head = f"uint8 {height}x{width}x{channels}\n".encode()
    return hashlib.sha256(head + pixels.tobytes()).hexdigest()


@dataclass(frozen=True)
class StoredImage:
    """Facts of an image in the store: `image` is the sha256 of its pixels."""

    key: str
    image: str
    evaluations: int
    facts: dict[str, Any]


class ImageStore:
    """Images by the key of the request that drew them."""

    def __init__(self, cache: Path) -> None:
        self.root = cache / "images"
        self._remote = remote_of(cache)

    def png_path(self, key: str) -> Path:
        """Where the picture of `key` lies, whether or not it exists."""
        return self.root / key[:2] / f"{key}.png"

    def _facts_path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.json"

    def __contains__(self, key: str) -> bool:
        """Whether the image is there, here or in object storage; nothing is fetched."""
        if self._facts(key) is not None:
            return True
        return self._remote is not None and self._remote.has(self._facts_path(key))

    def fetch(self, keys: Iterable[str], *, progress: Progress = silent) -> None:
        """Fetch from object storage, many at a time, what is there and not here.

        Raises:
            StorageError: it cannot be read, and nothing was made yet in this process.
        """
        if self._remote is not None:
            missing = [key for key in dict.fromkeys(keys) if self._facts(key) is None]
            pairs = [(self.png_path(key), self._facts_path(key)) for key in missing]
            self._remote.fetch_all(pairs, progress=progress)

    def get(self, key: str) -> StoredImage | None:
        """Facts of the image, or None if it is not (wholly) there."""
        found = self._facts(key)
        if found is None and self._remote is not None:
            self.fetch([key])
            found = self._facts(key)
        return found

    def _facts(self, key: str) -> StoredImage | None:
        path = self._facts_path(key)
        if not (path.is_file() and self.png_path(key).is_file()):
            return None
        try:
            facts = read_json(path)
            if facts["schema"] > IMAGE_SCHEMA:
                raise RecordError(f"{path} was written by a newer version; upgrade negbench")
            return StoredImage(
                key=key,
                image=str(facts["image"]),
                evaluations=int(facts["evaluations"]),
                facts=dict(facts["facts"]),
            )
        except (KeyError, TypeError, ValueError):
            return None
        except RecordError as error:
            if "upgrade" in str(error):
                raise
            return None

    def put(
        self, drawn: Drawn, request: ImageRequest, *, provenance: Mapping[str, Any]
    ) -> StoredImage:
        """Keep a drawn image.

        Raises:
            StorageError: the disk is full or the cache cannot be written.
        """
        from PIL import Image

        if self._remote is not None:
            self._remote.mark()
        image = pixel_digest(drawn.pixels)
        buffer = io.BytesIO()
        Image.fromarray(drawn.pixels).save(buffer, format="PNG", compress_level=4)
        write_atomic(self.png_path(drawn.key), buffer.getvalue())
        write_json(
            self._facts_path(drawn.key),
            {
                "schema": IMAGE_SCHEMA,
                "key": drawn.key,
                "image": image,
                "evaluations": drawn.evaluations,
                "facts": drawn.facts,
                "request": request.model_dump(mode="json"),
                "provenance": dict(provenance),
            },
        )
        if self._remote is not None:
            self._remote.wrote(self._facts_path(drawn.key), now=True)
        return StoredImage(drawn.key, image, drawn.evaluations, dict(drawn.facts))

    def load(self, stored: StoredImage) -> npt.NDArray[np.uint8] | None:
        """The image's pixels, uint8 (height, width, 3), or None if the file was altered."""
        import numpy as np
        from PIL import Image

        if self._remote is not None and not self.png_path(stored.key).is_file():
            self.fetch([stored.key])
        try:
            with Image.open(self.png_path(stored.key)) as picture:
                pixels = np.asarray(picture.convert("RGB"), dtype=np.uint8)
        except (OSError, ValueError, SyntaxError):
            return None
        return pixels if pixel_digest(pixels) == stored.image else None

    def discard(self, key: str, *, only_here: bool = False) -> None:
        """Forget an image, so that it is drawn again; if `only_here`, it may be fetched again."""
        paths = (self._facts_path(key), self.png_path(key))
        for path in paths:
            path.unlink(missing_ok=True)
        if self._remote is not None and not only_here:
            self._remote.discard(paths)


def text_key(text: str) -> str:
    """The key under which a text's features are kept."""
    return sha256_hex(b"text\0" + text.encode("utf-8"))


class FeatureStore:
    """Features of one network, by image digest (or `text_key`).

    Rows have a fixed size: 32 bytes of key, d float32, a crc32. A torn last row, or one that fails
    its checksum, is left out and computed again.
    """

    def __init__(self, cache: Path, network: Ref, *, kind: str = "image") -> None:
        self.folder = cache / "features" / f"{network.digest()[:16]}-{kind}"
        self._network = network
        self._rows: dict[str, npt.NDArray[np.float32]] = {}
        self._writer: Path | None = None
        self._width: int | None = None
        self._remote = remote_of(cache)
        if self._remote is not None:
            self._remote.pull(self.folder)
        self._read()

    def _read(self) -> None:
        import numpy as np

        header = self.folder / "network.json"
        if not header.is_file():
            return
        facts = read_json(header)
        width = facts.get("width")
        if not isinstance(width, int) or width < 1 or facts.get("network") != self._dump():
            raise RecordError(f"{header} belongs to another network; delete folder {self.folder}")
        self._width = width
        size = 32 + 4 * width + 4
        for path in sorted(self.folder.glob("*.bin")):
            data = path.read_bytes()
            for start in range(0, len(data) - size + 1, size):
                body = data[start : start + size - 4]
                if zlib.crc32(body) == int.from_bytes(data[start + size - 4 : start + size], "big"):
                    self._rows[body[:32].hex()] = np.frombuffer(body[32:], dtype="<f4")

    def _dump(self) -> dict[str, Any]:
        return self._network.model_dump(mode="json")

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, key: str) -> npt.NDArray[np.float32]:
        return self._rows[key]

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The distinct keys without features, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self._rows]

    def put(self, keys: list[str], rows: npt.NDArray[np.float32]) -> None:
        """Keep features float32 (n, d) under their keys.

        Raises:
            StorageError: the disk is full or the cache cannot be written.
        """
        import numpy as np

        rows = np.ascontiguousarray(rows, dtype="<f4")
        if self._remote is not None:
            self._remote.mark()
            if self._writer is not None and self._remote.is_taken(self._writer):
                self._writer = None
        if self._width is None:
            self._width = int(rows.shape[1])
            make_folder(self.folder)
            write_json(
                self.folder / "network.json", {"network": self._dump(), "width": self._width}
            )
            if self._remote is not None:
                self._remote.wrote(self.folder / "network.json")
        if self._writer is None:
            self._writer = self.folder / f"w-{os.urandom(6).hex()}.bin"
        data = bytearray()
        for key, row in zip(keys, rows, strict=True):
            body = bytes.fromhex(key) + row.tobytes()
            data += body + zlib.crc32(body).to_bytes(4, "big")
            self._rows[key] = row
        try:
            with self._writer.open("ab") as file:
                file.write(data)
        except OSError as error:
            raise storage_error(error, self._writer) from error
        if self._remote is not None:
            self._remote.wrote(self._writer)


class ScoreStore:
    """Scores by metric digest, image, twin and text, so that no metric runs twice."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "scores"
        self._scores: dict[str, Score] | None = None
        self._remote = remote_of(cache)
        self._writer = LineWriter(self._folder, remote=self._remote)

    @staticmethod
    def key(metric: str, image: str, twin: str | None, prompt: str, negative: str) -> str:
        """The identity of a score: metric digest, pixels, twin's pixels and the texts used."""
        parts = "\0".join([metric, image, twin or "", prompt, negative])
        return sha256_hex(parts.encode("utf-8"))

    def _table(self) -> dict[str, Score]:
        if self._scores is None:
            self._scores = {}
            if self._remote is not None:
                self._remote.pull(self._folder)
            for path in sorted(self._folder.glob("*.jsonl")):
                for number, line in enumerate(read_lines(path), start=1):
                    try:
                        self._scores[str(line["key"])] = Score(
                            value=line.get("value"), unscored=line.get("unscored")
                        )
                    except (KeyError, ValueError) as error:
                        raise RecordError(
                            f"{path}:{number}: not a score; move the file away and run again"
                        ) from error
        return self._scores

    def get(self, key: str) -> Score | None:
        """The score under `key`, or None."""
        return self._table().get(key)

    def put(self, key: str, score: Score) -> None:
        """Keep a score.

        Raises:
            StorageError: the disk is full or the cache cannot be written.
        """
        self._writer.append({"key": key, **score.model_dump(exclude_none=True)})
        self._table()[key] = score
