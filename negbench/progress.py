"""Progress of long work: a bar can be updated; who shows it is the caller's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """A progress bar."""

    def update(self, n: int = 1) -> object:
        """Say that `n` more are done."""


Progress = Callable[[str, int], AbstractContextManager[Bar]]


class _Silent:
    def update(self, n: int = 1) -> object:
        return None


@contextmanager
def silent(label: str, total: int) -> Iterator[Bar]:
    """A progress bar that shows nothing."""
    yield _Silent()
