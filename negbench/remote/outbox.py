"""What waits to be sent: some at once, some when a minute is over, all of it at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from negbench.errors import NegbenchError
from negbench.progress import Progress, silent

INTERVAL = 60.0
"""Seconds between sendings of appended files, and between attempts while storage is gone."""

SENDERS = 8
BACKLOG = 256
"""Files that wait to be sent at once at most; then whoever makes them waits."""


class Outbox:
    """Names of files, and threads that send them.

    Args:
        send: sends a file by name.

    Attributes:
        why: the last fault, or nothing.
        taken: names that were given to `send` at least once.
    """

    def __init__(self, send: Callable[[str], None]) -> None:
        self.why = ""
        self.taken: set[str] = set()
        self._send = send
        self._later: dict[str, None] = {}
        self._queue: dict[str, None] = {}
        self._rest: dict[str, None] = {}
        self._due = 0.0
        self._quiet_until = 0.0
        self._busy: set[str] = set()
        self._done = 0
        self._threads = 0
        self._pool: ThreadPoolExecutor | None = None
        self._changed = threading.Condition(threading.RLock())

    def quiet(self) -> bool:
        """Whether storage is left in peace after a fault."""
        return time.monotonic() < self._quiet_until

    def fault(self, error: NegbenchError) -> None:
        """Remember a fault, and leave storage in peace for a while."""
        self.why = str(error)
        self._quiet_until = time.monotonic() + INTERVAL

    def add_left(self, names: Iterable[str]) -> None:
        """Have files of earlier runs sent when nothing else is to be sent."""
        with self._changed:
            self._rest |= dict.fromkeys(names)
            self._start()

    def add(self, name: str, *, now: bool) -> None:
        """Have a file sent: `now`, or with the next that are due. Waits while too many wait."""
        with self._changed:
            (self._queue if now else self._later)[name] = None
            clock = time.monotonic()
            self._due = self._due or clock + INTERVAL
            if clock >= self._due:
                self._take_all()
            self._start()
            while len(self._queue) > BACKLOG and not self.quiet():
                self._changed.wait(1.0)

    def forget(self, name: str) -> None:
        """Take a file out."""
        with self._changed:
            for names in (self._later, self._queue, self._rest):
                names.pop(name, None)

    def empty(self, *, limit_s: float | None, progress: Progress = silent) -> list[str]:
        """Send everything; names of what could not be sent in `limit_s` seconds."""
        deadline = time.monotonic() + (float("inf") if limit_s is None else limit_s)
        with self._changed:
            self._quiet_until = 0.0
            self._take_all()
            self._start()
            total = len(self._queue) + len(self._rest) + len(self._busy)
            shown = self._done
            with (progress if total > SENDERS else silent)("sending", total) as bar:
                while self._queue or self._rest or self._busy:
                    if time.monotonic() > deadline:
                        self.why = self.why or f"{limit_s:.0f} seconds were too short for it"
                        break
                    self._changed.wait(0.2)
                    bar.update(self._done - shown)
                    shown = self._done
            self._put_off()
            return [*self._later, *self._busy]

    def _take_all(self) -> None:
        self._due = time.monotonic() + INTERVAL
        self._rest |= self._later
        self._later.clear()

    def _put_off(self) -> None:
        self._later |= self._queue | self._rest
        self._queue.clear()
        self._rest.clear()

    def _start(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(SENDERS, thread_name_prefix="negbench-send")
        while self._threads < min(SENDERS, len(self._queue) + len(self._rest)) and not self.quiet():
            self._threads += 1
            self._pool.submit(self._work)

    def _work(self) -> None:
        """Send what is in the queue until it is empty or storage fails."""
        while True:
            with self._changed:
                if self.quiet():
                    self._put_off()
                names = self._queue or self._rest
                if not names:
                    self._threads -= 1
                    self._changed.notify_all()
                    return
                name = next(iter(names))
                del names[name]
                self.taken.add(name)  # before it is read: what follows goes to another file
                self._busy.add(name)
            failed: NegbenchError | None = None
            try:
                self._send(name)
            except NegbenchError as error:
                failed = error
            with self._changed:
                self._busy.discard(name)
                self._done += failed is None
                if failed is not None:
                    self._later[name] = None
                    self.fault(failed)
                self._changed.notify_all()
