"""One cache folder and the URL it mirrors: what is fetched when, what is sent when."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from negbench.errors import NegbenchError, RecordError
from negbench.files import make_folder, read_json, read_lines, write_json
from negbench.progress import Progress, silent
from negbench.remote.objects import PART, Objects, RemoteError
from negbench.remote.outbox import Outbox
from negbench.types import Score

SCHEMA = 1
MARK = "negbench-cache.json"
KINDS = ("features", "images", "llm", "scores", "traces", "treatments", "verdicts")
"""Folders that are shared; rates, weights and digests of files belong to a machine."""

FETCHERS = 16

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Synced:
    """What `Remote.sync` did: files fetched, files sent, names of damaged ones left out."""

    fetched: int
    sent: int
    damaged: list[str]


class Remote:
    """One cache folder and its URL. Safe for threads; one a folder and process.

    The first contact has to work: as long as nothing was made in this process, storage that cannot
    be read raises. Later faults are kept for the warning at the end; what was made stays here.
    """

    def __init__(self, cache: Path, url: str) -> None:
        self.cache = cache
        self.url = url
        self._objects: Objects | None = None
        self._folders: dict[str, dict[str, int]] = {}
        self._damaged: list[str] = []
        self._outbox = Outbox(self._send)
        self._flag = cache / "unsent" / os.urandom(6).hex()
        self._made = self._news = self._told = False
        self._lock = threading.RLock()

    def has(self, path: Path) -> bool:
        """Whether a file lies there."""
        name = self._name(path)
        self._list([_folder(name)])
        return self._size(name) is not None

    def fetch(self, path: Path) -> bool:
        """Fetch a whole file; False if it is not there."""
        return self.fetch_all([[path]]) == 1

    def fetch_all(self, groups: Sequence[Sequence[Path]], *, progress: Progress = silent) -> int:
        """Fetch groups of files, each in order, and count the groups that came whole.

        Raises:
            RemoteError: storage cannot be read, and nothing was made yet in this process.
            StorageError: the folder here cannot be written.
        """
        if not groups:
            return 0
        names = [[self._name(path) for path in group] for group in groups]
        self._list({_folder(name) for group in names for name in group})
        wanted = [g for g in names if all(self._size(name) is not None for name in g)]
        if not wanted:
            return 0
        with progress("fetching", len(wanted)) as bar:
            return sum(_each(self._fetch, wanted, done=bar.update))

    def pull(self, folder: Path) -> None:
        """Fetch the files of a folder that are missing here, or shorter than there."""
        inside = self._name(folder)
        self._list([inside])
        names = self._folders.get(inside, {})
        wanted = [name for name, size in names.items() if self._lacks_here(name, size)]
        self.fetch_all([[self.cache / name] for name in wanted])

    def mark(self) -> None:
        """Say, before a file is written, that something may be unsent from now on."""
        if not self._flag.exists():
            make_folder(self._flag.parent)
            self._flag.touch()
        self._made = self._news = True
        self._told = False

    def is_taken(self, path: Path) -> bool:
        """Whether an appended file was sent, so that what follows belongs into a new one."""
        return self._name(path) in self._outbox.taken

    def wrote(self, path: Path, *, now: bool = False) -> None:
        """Say that a file was written or appended to; it is sent within about a minute, or `now`.

        The facts of a picture stand for both files.
        """
        self.mark()
        self._outbox.add(self._name(path), now=now)

    def discard(self, paths: Iterable[Path]) -> None:
        """Remove a damaged picture there; where that is not possible it is overwritten later."""
        for path in paths:
            name = self._name(path)
            self._outbox.forget(name)
            self._folders.get(_folder(name), {}).pop(name, None)
            if self._objects is not None and not self._outbox.quiet():
                with contextlib.suppress(RemoteError):
                    self._objects.remove(name)

    def waiting(self) -> int:
        """Files that wait to be sent; storage is asked only if there may be any.

        Raises:
            NegbenchError: it cannot be reached.
        """
        return _count(self._lacking(Objects(self.url))) if self._flags() else 0

    def finish(self, *, limit_s: float | None = None, progress: Progress = silent) -> None:
        """Send what waits, of this and of earlier runs; what cannot be sent is said on stderr.

        Args:
            limit_s: seconds it may take; None for as long as it takes.
            progress: gives a bar where there is much.
        """
        if self._told or not (self._news or self._flags()):
            return
        self._made, self._news, self._told = True, False, True
        failed = ""
        try:
            self._contact()
        except NegbenchError as error:
            failed = str(error)
        if failed:
            _say(f"{failed}; what was not sent is kept in {self.cache}, the next run sends it")
        elif left := self._outbox.empty(limit_s=limit_s, progress=progress):
            _say(
                f"{_count(left)} files were not sent: {self._outbox.why}; they are kept in "
                f"{self.cache}, the next run sends them"
            )
        else:
            self._flag.unlink(missing_ok=True)
        if self._damaged:
            _say(
                f"{len(self._damaged)} damaged files at {self.url} were left out, first "
                f"{self._damaged[0]}; delete them there if they are not made again"
            )
            self._damaged.clear()

    def sync(self, *, progress: Progress = silent) -> Synced:
        """Fetch all that is missing here and send all that is missing there.

        Raises:
            NegbenchError: storage, or the folder here, cannot be read or written.
        """
        objects = self._contact(take_over=False)
        flags = self._flags()
        folders = sorted(objects.folders("images"))
        folders += [kind for kind in KINDS if kind != "images"]
        there: dict[str, int] = {}
        for found in _each(objects.names, folders):
            there |= found
        groups = [
            _whole(name)
            for name, size in there.items()
            if not _is_pixels(name) and self._lacks_here(name, size)
        ]
        groups = [group for group in groups if all(name in there for name in group)]
        with (progress if groups else silent)("fetching", len(groups)) as bar:
            came = _each(lambda g: all(map(self._get, g)), groups, done=bar.update)
        here = self._here()
        lacking = [name for name, size in here.items() if _lacks(there.get, name, size)]
        with (progress if lacking else silent)("sending", len(lacking)) as bar:
            _each(self._send, lacking, done=bar.update)
        for flag in flags:
            flag.unlink(missing_ok=True)
        fetched = sum(len(group) for group, whole in zip(groups, came, strict=True) if whole)
        damaged, self._damaged = self._damaged, []
        return Synced(fetched, _count(lacking), damaged)

    def _contact(self, *, take_over: bool = True) -> Objects:
        """Storage, reached for the first time in this process or before.

        What runs that were killed left unsent becomes ours if `take_over`.

        Raises:
            NegbenchError: it cannot be reached, or is a newer version's.
        """
        with self._lock:
            if self._objects is None:
                try:
                    objects = Objects(self.url)
                    _check_mark(objects, self.cache)
                    left = self._take_over(objects) if take_over else []
                except NegbenchError:
                    self._told = not self._made
                    raise
                self._objects = objects
                self._outbox.add_left(left)
            return self._objects

    def _take_over(self, objects: Objects) -> list[str]:
        flags = [flag for flag in self._flags() if flag != self._flag]
        for flag in flags:
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                flag.replace(self._flag)
        return self._lacking(objects) if flags else []

    def _flags(self) -> list[Path]:
        folder = self.cache / "unsent"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def _lacking(self, objects: Objects) -> list[str]:
        """Files here that are not there, or not wholly; facts stand for their picture."""
        here = self._here()
        self._folders |= _names(objects, {_folder(name) for name in here})
        return [name for name, size in here.items() if _lacks(self._size, name, size)]

    def _here(self) -> dict[str, int]:
        found = {}
        for path in (path for kind in KINDS for path in (self.cache / kind).rglob("*")):
            name = self._name(path)
            if not all(PART.fullmatch(part) for part in name.split("/")) or _is_pixels(name):
                continue
            with contextlib.suppress(FileNotFoundError):
                if all((self.cache / one).is_file() for one in _whole(name)):
                    found[name] = path.stat().st_size
        return found

    def _list(self, folders: Iterable[str]) -> None:
        """Know what lies in the folders; each is listed once a process."""
        objects = self._contact()
        new = [folder for folder in folders if folder not in self._folders]
        if not new or self._outbox.quiet():
            return
        try:
            self._folders |= _names(objects, new)
        except RemoteError as error:
            self._fault(error)

    def _size(self, name: str) -> int | None:
        return self._folders.get(_folder(name), {}).get(name)

    def _lacks_here(self, name: str, size: int) -> bool:
        if not all((self.cache / one).is_file() for one in _whole(name)):
            return True
        return _grows(name) and (self.cache / name).stat().st_size < size

    def _fetch(self, group: Sequence[str]) -> bool:
        if self._outbox.quiet():
            return False
        try:
            return all(map(self._get, group))
        except RemoteError as error:
            self._fault(error)
            return False

    def _get(self, name: str) -> bool:
        path = self.cache / name
        size = self._size(name) or 0
        came = self._contact().get(name, path, check=lambda part: usable(part, name), size=size)
        if came is None:
            self._damaged.append(name)
        return came is True

    def _send(self, name: str) -> None:
        objects = self._contact()
        for one in _whole(name):
            path = self.cache / one
            with contextlib.suppress(FileNotFoundError):  # removed here meanwhile
                size = path.stat().st_size
                objects.put(path, one)
                self._folders.get(_folder(one), {})[one] = size

    def _fault(self, error: RemoteError) -> None:
        if not self._made:
            raise error
        self._outbox.fault(error)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.cache).as_posix()


def _names(objects: Objects, folders: Iterable[str]) -> dict[str, dict[str, int]]:
    """What lies in each of the folders; those of pictures are asked for only if they exist."""
    wanted = dict.fromkeys(folders)
    images = [folder for folder in wanted if folder.startswith("images/")]
    there = objects.folders("images") if len(images) > 2 else set(images)
    asked = [folder for folder in wanted if folder in there or folder not in images]
    found = dict(zip(asked, _each(objects.names, asked), strict=True))
    return {folder: found.get(folder, {}) for folder in wanted}


def _check_mark(objects: Objects, cache: Path) -> None:
    """See that storage can be reached and holds a cache that this version reads.

    Storage without a mark gets one; where that is not permitted, what is there can still be read.
    """
    path = cache / MARK
    if objects.get(MARK, path, check=lambda _: True):
        schema = read_json(path).get("schema")
        if not isinstance(schema, int) or schema > SCHEMA:
            raise RecordError(f"{objects.url} was written by a newer version; upgrade negbench")
        return
    write_json(path, {"schema": SCHEMA})
    try:
        objects.put(path, MARK)
    except RemoteError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _is_pixels(name: str) -> bool:
    return name.startswith("images/") and name.endswith(".png")


def _whole(name: str) -> list[str]:
    """A file's name; for the facts of a picture, its pixels before them."""
    if name.startswith("images/") and name.endswith(".json"):
        return [name.removesuffix(".json") + ".png", name]
    return [name]


def _count(names: Iterable[str]) -> int:
    return sum(len(_whole(name)) for name in names)


def _grows(name: str) -> bool:
    return name.endswith((".jsonl", ".bin"))


def _lacks(size_there: Callable[[str], int | None], name: str, size: int) -> bool:
    """Whether storage lacks a file that has `size` bytes here, or has less of it."""
    there = [size_there(one) for one in _whole(name)]
    return None in there or (_grows(name) and (there[-1] or 0) < size)


def usable(path: Path, name: str) -> bool:
    """Whether a file that was fetched as `name` is what its ending says."""
    try:
        if name.endswith(".png"):
            from PIL import Image

            with Image.open(path, formats=("PNG",)) as picture:
                picture.verify()  # checksums of all chunks; nothing is decoded
        elif name.endswith(".jsonl"):
            for line in read_lines(path):
                if not isinstance(line.get("key"), str):
                    return False
                if name.startswith("scores/"):
                    Score(value=line.get("value"), unscored=line.get("unscored"))
        elif name.endswith(".json"):
            read_json(path)
    except (NegbenchError, OSError, ValueError, SyntaxError):
        return False
    return True


def _each(
    action: Callable[[T], R], items: Sequence[T], *, done: Callable[[], object] | None = None
) -> list[R]:
    """What `action` gives for each item, in order, several at a time; an error ends it soon."""
    if not items:
        return []
    pool = ThreadPoolExecutor(min(FETCHERS, len(items)), thread_name_prefix="negbench-fetch")
    try:
        found = []
        for one in pool.map(action, items):
            found.append(one)
            if done is not None:
                done()
        return found
    finally:
        pool.shutdown(cancel_futures=True)


def _say(text: str) -> None:
    sys.stderr.write(f"negbench: {text}\n")
