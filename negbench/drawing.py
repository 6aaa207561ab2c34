"""Drawing: the images that no store has, each once, for all methods together."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from negbench import __version__
from negbench.cluster import RayPool
from negbench.errors import NegbenchError, PluginError, RecordError, one_line
from negbench.files import write_json
from negbench.plan import Resolved
from negbench.progress import Progress
from negbench.store import ImageStore, StoredImage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from negbench.generators.base import Drawn

WRITERS = 4
"""Threads that hash, encode and write pictures while the next ones are drawn."""

IN_HAND = 64
"""Drawn pictures that wait for a writer at most; then drawing waits for them."""


def provenance() -> dict[str, Any]:
    """Versions of what took part; not part of any identity."""
    names = ("torch", "diffusers", "transformers", "open-clip-torch", "torchmetrics", "numpy")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "negbench": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
    }


class Drawing:
    """Draws the images that no store has, each once, for all jobs together.

    Attributes:
        n_drawn: images drawn so far.
        n_evaluations: denoiser predictions made for them.
        n_shared: predictions saved, because one image needed what another had made.
    """

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.store = ImageStore(resolved.cache)
        self.requests = resolved.requests()
        self.stored: dict[str, StoredImage] = {}
        self.n_drawn = 0
        self.n_evaluations = 0
        self.n_shared = 0
        self._pool: RayPool | None = None
        if resolved.options.ray is not None:
            self._pool = RayPool(
                resolved.generator,
                address=resolved.options.ray,
                workers=resolved.options.ray_workers,
            )

    def draw(self, needed: Iterable[str], *, progress: Progress) -> None:
        """Draw those of the keys that the store does not have.

        Raises:
            NegbenchError: the generator failed or the disk is full; what was drawn is kept.
        """
        missing = []
        keys = list(dict.fromkeys(needed))
        self.store.fetch(keys, progress=progress)
        for key in keys:
            stored = self.store.get(key)
            if stored is None:
                missing.append(key)
            else:
                self.stored[key] = stored
        if missing:
            started = time.monotonic()
            try:
                with progress("drawing", len(missing)) as bar:
                    for _ in self._drawn(missing):
                        bar.update()
            finally:
                if self._pool is not None:
                    self._pool.close()
            self._keep_rate(time.monotonic() - started)

    def _keep_rate(self, seconds: float) -> None:
        """Remember seconds an evaluation, for forecasts."""
        if self.n_evaluations:
            rates = self.resolved.rates()
            rates[self.resolved.generator.ref().digest()] = seconds / self.n_evaluations
            write_json(self.resolved.cache / "rates.json", rates)

    def _drawn(self, keys: Sequence[str]) -> Iterator[StoredImage]:
        """Draw, and hand over each picture once it lies in the store.

        Whatever ends it, the pictures that were drawn until then are written.
        """
        generator = self.resolved.generator
        waiting = dict.fromkeys(keys)
        about = {**provenance(), "generator": generator.describe()}
        in_hand: deque[tuple[Drawn, Future[StoredImage]]] = deque()
        try:
            with ThreadPoolExecutor(WRITERS) as writers:
                for drawn in (self._pool or generator).draw([self.requests[key] for key in keys]):
                    if drawn.key not in waiting:
                        raise PluginError(
                            f"generator {generator.ref().name} gave an image nobody asked for"
                        )
                    del waiting[drawn.key]
                    request = self.requests[drawn.key]
                    in_hand.append(
                        (drawn, writers.submit(self.store.put, drawn, request, provenance=about))
                    )
                    while in_hand and (in_hand[0][1].done() or len(in_hand) > IN_HAND):
                        yield self._kept(*in_hand.popleft())
                while in_hand:
                    yield self._kept(*in_hand.popleft())
        except (NegbenchError, KeyboardInterrupt):
            raise
        except Exception as error:
            written = self.n_drawn + sum(future.exception() is None for _, future in in_hand)
            raise PluginError(
                f"generator {generator.ref().name} failed after {written} images: "
                f"{type(error).__name__}: {one_line(str(error), limit=300)} "
                "(what was drawn is kept; the same command goes on)"
            ) from error
        if waiting:
            raise PluginError(
                f"generator {generator.ref().name} left out {len(waiting)} of {len(keys)} images"
            )

    def _kept(self, drawn: Drawn, written: Future[StoredImage]) -> StoredImage:
        stored = self.stored[drawn.key] = written.result()
        self.n_drawn += 1
        self.n_evaluations += drawn.evaluations - drawn.shared
        self.n_shared += drawn.shared
        return stored

    def pixels(self, key: str) -> npt.NDArray[np.uint8]:
        """Pixels of an image; one that was altered on disk is drawn again."""
        pixels = self.store.load(self.stored[key])
        if pixels is None:
            before = self.stored[key].image
            self.store.discard(key)
            list(self._drawn([key]))
            pixels = self.store.load(self.stored[key])
            if pixels is None or self.stored[key].image != before:
                self.stored[key] = self.store.get(key) or self.stored[key]
            if pixels is None:
                raise RecordError(
                    f"image {self.store.png_path(key)} cannot be read back; check the disk"
                )
        return pixels
