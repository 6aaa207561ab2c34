"""A cache in object storage: a local folder that fetches what others made and sends what it made.

    <cache>/remote.json       {"url": "s3://bucket/folder"}
    <cache>/unsent/<process>  there is something that may not have been sent yet

Everything is written here first, so storage that is slow, full or gone costs nothing but a warning:
the next run sends what waits. Pictures go as they are drawn, facts after pixels; features, scores
and other appended files about once a minute, a new file each time, so that little is sent twice.
Nothing is removed there but a picture that turned out damaged.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from negbench.errors import ConfigError
from negbench.files import read_json, write_json
from negbench.progress import Progress, silent
from negbench.remote.objects import checked_url, is_url
from negbench.remote.remote import Remote
from negbench.types import sha256_hex

__all__ = ["Remote", "at_hand", "cache_folder", "mirror", "open_remote", "remote_of", "sending",
           "sending_all", "user_cache", "written"]  # fmt: skip

HURRY = 20.0
"""Seconds for sending after an error, an interrupt or a SIGTERM; Slurm and spot machines give 30
or more."""

ONE_SLASH = re.compile(r"[a-z][a-z0-9+]+:/(?!/)")
"""Begins a URL that lost a slash, which would otherwise make a folder of that name."""

_known: dict[Path, Remote] = {}


def user_cache() -> Path:
    """``$NEGBENCH_CACHE`` if it is a folder, else the platform's cache folder for negbench."""
    given = os.environ.get("NEGBENCH_CACHE")
    if given and not is_url(given):
        return Path(given)
    from platformdirs import user_cache_path

    return Path(user_cache_path("negbench"))


def mirror(url: str) -> Path:
    """The local folder of the cache at a URL, to be given wherever a cache is asked for.

    Args:
        url: ``s3://bucket/folder``, ``gs://bucket/folder``, or another that fsspec knows.

    Raises:
        ConfigError: it is no such URL.
        StorageError: the folder cannot be made.
    """
    url = checked_url(url)
    folder = _mirrors() / sha256_hex(url.encode())[:16]
    if not (folder / "remote.json").is_file():
        write_json(folder / "remote.json", {"url": url})
    return folder


def _mirrors() -> Path:
    return user_cache() / "remotes"


def cache_folder(text: str) -> Path:
    """A folder as it is, a URL as its local mirror.

    Raises:
        ConfigError: it is a URL with a slash too few, or one that `mirror` refuses.
    """
    if ONE_SLASH.match(text):
        fixed = text.replace(":/", "://", 1)
        raise ConfigError(f"{text} is no folder; write {fixed}, or ./{text} if it is one")
    return mirror(text) if is_url(text) else Path(text)


def remote_of(cache: Path) -> Remote | None:
    """What a cache folder is the mirror of, or None."""
    known = _known.get(cache) or open_remote(cache)
    return None if known is None else _known.setdefault(cache, known)


def open_remote(cache: Path) -> Remote | None:
    """The same for a command that looks after the cache itself: nothing is sent at its end.

    Only a folder that `mirror` made names a URL: a run folder from elsewhere connects to nothing.
    """
    path = cache / "remote.json"
    if cache.parent != _mirrors() or not path.is_file():
        return None
    return Remote(cache, checked_url(str(read_json(path).get("url", ""))))


def at_hand(path: Path, *, cache: Path) -> bool:
    """Whether a whole file of the cache is there, here or after fetching it."""
    if path.is_file():
        return True
    remote = remote_of(cache)
    return remote is not None and remote.fetch(path)


def written(path: Path, *, cache: Path) -> None:
    """Say that a whole file of the cache was written."""
    remote = remote_of(cache)
    if remote is not None:
        remote.wrote(path)


@contextmanager
def sending(cache: Path, *, progress: Progress = silent) -> Iterator[None]:
    """Send what waits in a cache when the block ends, however it ends."""
    hurry: float | None = HURRY
    try:
        yield
        hurry = None
    finally:
        remote = remote_of(cache)
        if remote is not None:
            remote.finish(limit_s=hurry, progress=progress)


@contextmanager
def sending_all(*, progress: Progress = silent) -> Iterator[None]:
    """Run a whole command: send what waits in every cache it used, also after a SIGTERM."""
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if _known and os.getpid() == owner:
            raise SystemExit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)
    hurry: float | None = HURRY
    try:
        yield
        hurry = None
    except SystemExit as end:
        hurry = HURRY if end.code else None
        raise
    finally:
        for remote in list(_known.values()):
            remote.finish(limit_s=hurry, progress=progress)
