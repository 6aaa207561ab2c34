"""Traces of a run: three ways to draw each unit, watched under the same texts, kept on disk.

    twin      no negative
    concept   the concept as negative prompt in every call
    placebo   an unrelated concept in every call

Each is asked at every call for the prompt (``positive``), the empty prompt (``empty``), the concept
(``negative``) and the unrelated concept (``placebo``).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from negbench.errors import NegbenchError, PluginError, one_line
from negbench.files import write_atomic
from negbench.progress import Progress
from negbench.remote import at_hand, written
from negbench.timing.plan import Resolved, Unit
from negbench.types import ImageRequest, canonical_json, sha256_hex

if TYPE_CHECKING:
    from negbench.generators.tracing import Look, Trace, Watch

WAYS = ("twin", "concept", "placebo")
NAMES = ("positive", "empty", "negative", "placebo")
POSITIVE, EMPTY, NEGATIVE, PLACEBO = range(4)
"""Places of `NAMES` in a trace's arrays."""


class TraceStore:
    """Traces by request and watched texts: ``<cache>/traces/<kk>/<digest>.npz``."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.root = cache / "traces"

    @staticmethod
    def digest(watch: Watch) -> str:
        """What a trace is known by."""
        from negbench.generators.tracing import VERSION

        looks = [[name, look.text, look.focus] for name, look in watch.looks.items()]
        return sha256_hex(
            canonical_json(
                ["negbench-trace", VERSION, watch.request.key(), looks, watch.attention, watch.maps]
            )
        )

    def _path(self, digest: str) -> Path:
        return self.root / digest[:2] / f"{digest}.npz"

    def get(self, watch: Watch) -> Trace | None:
        """The trace, or None if it is not (wholly) there."""
        from negbench.generators.tracing import Trace

        path = self._path(self.digest(watch))
        if not at_hand(path, cache=self.cache):
            return None
        try:
            with np.load(path, allow_pickle=False) as kept:
                about = json.loads(str(kept["about"]))
                return Trace(
                    key=watch.request.key(),
                    pixels=kept["pixels"],
                    names=tuple(about["names"]),
                    words={name: tuple(found) for name, found in about["words"].items()},
                    strength=kept["strength"],
                    gram=kept["gram"],
                    lag=kept["lag"],
                    maps=kept.get("maps"),
                )
        except (OSError, ValueError, KeyError, EOFError):
            return None

    def put(self, watch: Watch, found: Trace) -> None:
        """Keep a trace.

        Raises:
            StorageError: the disk is full or the cache cannot be written.
        """
        about = json.dumps({"names": found.names, "words": found.words})
        arrays = {
            "about": np.array(about),
            "pixels": found.pixels,
            "strength": found.strength,
            "gram": found.gram,
            "lag": found.lag,
        }
        if found.maps is not None:
            arrays["maps"] = found.maps
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        path = self._path(self.digest(watch))
        write_atomic(path, buffer.getvalue())
        written(path, cache=self.cache)


def watch_all(
    resolved: Resolved, watches: Sequence[Watch], *, progress: Progress, label: str
) -> list[Trace]:
    """Traces of all watches, in order; those that were made before are read.

    Raises:
        NegbenchError: tracing failed or the disk is full; what was traced is kept.
    """
    from negbench.generators.tracing import trace

    store = TraceStore(resolved.cache)
    found = {i: kept for i, watch in enumerate(watches) if (kept := store.get(watch)) is not None}
    missing = [i for i in range(len(watches)) if i not in found]
    if missing:
        with progress(label, len(missing)) as bar:
            try:
                made = trace(resolved.generator, [watches[i] for i in missing])
                for i, one in zip(missing, made, strict=True):
                    store.put(watches[i], one)
                    found[i] = one
                    bar.update()
            except (NegbenchError, KeyboardInterrupt):
                raise
            except Exception as error:
                raise PluginError(
                    f"tracing failed: {type(error).__name__}: {one_line(str(error), limit=300)} "
                    "(what was traced is kept; the same command goes on)"
                ) from error
    return [found[i] for i in range(len(watches))]


@dataclass(frozen=True)
class UnitTraces:
    """The traces of one unit by way."""

    unit: Unit
    by_way: Mapping[str, Trace]


def unit_traces(
    resolved: Resolved, units: Iterable[Unit], *, progress: Progress
) -> list[UnitTraces]:
    """All ways of all units, watched under `NAMES`."""
    from negbench.generators.tracing import Watch

    chosen = list(units)
    # attention is asked for on the concept's way only: it takes as long as the drawing itself
    watches = [
        Watch(way_request(resolved, unit, way), looks(unit), attention=way == "concept")
        for way in WAYS
        for unit in chosen
    ]
    found = watch_all(resolved, watches, progress=progress, label="tracing")
    return [
        UnitTraces(unit=unit, by_way=dict(zip(WAYS, found[i :: len(chosen)], strict=True)))
        for i, unit in enumerate(chosen)
    ]


def way_request(resolved: Resolved, unit: Unit, way: str) -> ImageRequest:
    """The request of one of `WAYS`."""
    negative = {"twin": None, "concept": unit.concept, "placebo": unit.placebo}[way]
    return resolved.request(unit, negative=negative)


def looks(unit: Unit) -> dict[str, Look]:
    """The watched texts of a unit, by `NAMES`."""
    from negbench.generators.tracing import Look

    texts = (unit.case.prompt, "", unit.concept, unit.placebo)
    return {name: Look(text) for name, text in zip(NAMES, texts, strict=True)}
