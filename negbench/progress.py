"""Progress of long work: a bar can be updated; who shows it is the caller's choice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


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


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Any]:
    """A progress bar on stderr; plain lines are left out when nobody watches."""
    from tqdm import tqdm

    with tqdm(
        total=total,
        desc=label,
        unit="",
        bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]",
        file=sys.stderr,
        dynamic_ncols=True,
    ) as bar:
        yield bar
