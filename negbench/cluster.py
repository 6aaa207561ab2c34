"""Drawing on several GPUs or machines through Ray: it places generators, feeds them, retries.

Images come back to the process that asked for them, which writes them to the store, so the workers
need neither a shared disk nor a scheduler of ours. An image is a function of its request alone:
how many workers there are, and which of them die, changes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from negbench.errors import MissingError, NegbenchError, PluginError, one_line
from negbench.generators.sharing import parcels

if TYPE_CHECKING:
    from negbench.generators.base import Drawn, Generator
    from negbench.types import ImageRequest

CHUNK = 32
"""Requests a worker gets at a time at least: enough to fill batches, few enough to lose little.

Those that share their beginning stay together.
"""

IN_FLIGHT = 2
"""Chunks that wait at a worker, so that it never idles."""

RETRIES = 3
"""How often a chunk is given out again after its worker died."""


class _Worker:
    """A generator in a process of its own."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def draw(self, requests: Sequence[ImageRequest]) -> list[Drawn]:
        return list(self.generator.draw(requests))


class RayPool:
    """Draws requests with several copies of one generator.

    Args:
        generator: planned, its weights not loaded yet; every worker loads its own.
        address: ``local`` for a cluster on this machine, ``auto`` for the one that this machine
            belongs to, or a Ray address (``ray://host:10001``, ``host:6379``).
        workers: how many; None for one a GPU of the cluster, or one for two CPU cores.

    The cluster is joined at the first `draw`.

    Raises:
        MissingError: the package ray is not installed.
    """

    def __init__(
        self, generator: Generator, *, address: str = "local", workers: int | None = None
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingError(
                "--ray needs the package ray; install it with: pip install 'negbench[ray]'"
            ) from error
        self.generator = generator
        self.address = address
        self.workers = workers
        self._ray = ray
        self._own = False
        self._actors: list[Any] = []

    def _start(self) -> None:
        """Join the cluster and place the workers."""
        ray = self._ray
        self._own = not ray.is_initialized()
        if self._own:
            local = self.address == "local"
            try:
                ray.init(
                    address=None if local else self.address,
                    log_to_driver=False,
                    logging_level="ERROR",
                    **({"include_dashboard": False} if local else {}),
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise NegbenchError(
                    f"no Ray cluster at {self.address}: {one_line(str(error), limit=200)}; start "
                    "one with `ray start --head`, or write --ray local"
                ) from error
        have = ray.cluster_resources()
        gpus, cpus = int(have.get("GPU", 0)), int(have.get("CPU", 1))
        count = self.workers or gpus or max(1, cpus // 2)
        if gpus:
            share = {"num_gpus": min(1.0, gpus / count), "num_cpus": 1}
        else:
            share = {"num_gpus": 0.0, "num_cpus": max(1, cpus // count)}
        remote = ray.remote(max_restarts=-1, **share)(_Worker)
        shared = ray.put(self.generator)
        self._actors = [remote.remote(shared) for _ in range(count)]

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Drawn]:
        """Draw each request once; results come as they are finished, in any order.

        Raises:
            NegbenchError: the cluster cannot be reached.
            PluginError: a chunk's workers died `RETRIES` times, or a worker raised.
        """
        if not self._actors:
            self._start()
        ray = self._ray
        chunks = parcels(requests, size=CHUNK)
        waiting = list(reversed([(chunk, 0) for chunk in chunks]))
        running: dict[Any, tuple[Any, list[ImageRequest], int]] = {}
        free = [actor for _ in range(IN_FLIGHT) for actor in self._actors]
        while waiting or running:
            while waiting and free:
                chunk, tries = waiting.pop()
                actor = free.pop(0)
                running[actor.draw.remote(chunk)] = (actor, chunk, tries)
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            actor, chunk, tries = running.pop(done)
            free.append(actor)
            try:
                yield from ray.get(done)
            except ray.exceptions.RayTaskError as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, NegbenchError):
                    raise cause from error
                raise PluginError(
                    f"a worker failed: {one_line(str(cause or error), limit=300)}"
                ) from error
            except ray.exceptions.RayError as error:
                if tries == RETRIES:
                    raise PluginError(
                        f"a Ray worker died {RETRIES + 1} times over the same {len(chunk)} images "
                        f"({type(error).__name__}); look at its log and its memory"
                    ) from error
                waiting.append((chunk, tries + 1))

    def close(self) -> None:
        """Free the workers, and the cluster if this pool started or joined it."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._own:
            self._ray.shutdown()
            self._own = False
