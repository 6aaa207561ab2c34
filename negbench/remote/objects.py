"""Files behind a URL, through fsspec: S3, Google Cloud Storage, a folder, whatever it knows.

A file appears whole or not at all. What passes by itself is tried again a few times; what does not
is one line that says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from negbench.errors import ConfigError, MissingError, StorageError, one_line
from negbench.files import make_folder, storage_error

WAITS = (0.3, 1.0, 3.0)
"""Seconds before an operation that failed is tried again; each is varied by half."""

PATIENCE = 20.0
"""Seconds after which nothing is tried again: packages try again by themselves, too."""

LIMIT, SPEED = 60.0, 1e5
"""An operation may take `LIMIT` seconds and one more for so many bytes."""

WHOLE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "memory"}
"""Protocols under which a file appears whole by itself; elsewhere it is renamed into place."""

PACKAGES = {"s3": "negbench[s3]", "s3a": "negbench[s3]", "gs": "negbench[gcs]",
            "gcs": "negbench[gcs]"}  # fmt: skip

OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60,
                             "retries": {"max_attempts": 2, "mode": "standard"}}},
}  # fmt: skip
"""Bounds for connections, where a user's own fsspec configuration sets none."""

FULL = (errno.ENOSPC, errno.EDQUOT)
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")

T = TypeVar("T")


class RemoteError(StorageError):
    """Object storage that cannot be reached, read or written."""


def is_url(text: str) -> bool:
    """Whether `text` names object storage and not a folder of this machine."""
    return "://" in text


def checked_url(text: str) -> str:
    """`text` without a closing slash.

    Raises:
        ConfigError: it names no place, or holds a password.
    """
    found = urlsplit(text)
    if found.password is not None:
        raise ConfigError(
            f"the URL of {found.hostname} holds a password, which would end up in records; put it "
            "into the environment or into fsspec's configuration"
        )
    if not (found.netloc + found.path).strip("/"):
        raise ConfigError(f"{text} names no bucket; write for example s3://bucket/folder")
    return text.rstrip("/")


class Objects:
    """The files below a URL, by names such as ``scores/w-1.jsonl``.

    Raises:
        MissingError: the package for this kind of storage is not installed.
        ConfigError: nothing is known of this kind of storage.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # type: ignore[import-untyped]

        self.url = url
        kind = url.partition("://")[0]
        given = fsspec.config.conf.get(kind, {})
        options = {k: v for k, v in OPTIONS.get(kind, {}).items() if k not in given}
        try:
            self._fs, root = fsspec.core.url_to_fs(url, **options)
        except ImportError as error:
            package = PACKAGES.get(kind)
            install = f"pip install '{package}'" if package else one_line(str(error), limit=200)
            raise MissingError(f"{url} needs a package; install it with: {install}") from error
        except Exception as error:
            raise ConfigError(
                f"{url} cannot be used: {one_line(str(error), limit=200)}; write for example "
                "s3://bucket/folder or gs://bucket/folder"
            ) from error
        for package in ("gcsfs", "s3fs"):
            log = logging.getLogger(package)
            if log.level == logging.NOTSET:  # what they would log is told in one line
                log.setLevel(logging.CRITICAL + 1)
        self._root = str(root).rstrip("/")
        self._whole = kind in WHOLE

    def names(self, folder: str) -> dict[str, int]:
        """Bytes of each file in a folder and below, by name; unusual names are left out."""
        head = f"{self._root}/"

        def find() -> dict[str, Any]:
            self._fs.invalidate_cache()
            return dict(self._fs.find(head + folder, detail=True, **self._limit(10**8)))

        try:
            found = self._tried("list", find)
        except FileNotFoundError:
            return {}
        names = {}
        for path, about in found.items():
            name = str(path).removeprefix(head)
            if all(PART.fullmatch(part) for part in name.split("/")):
                names[name] = int(about.get("size") or 0)
        return names

    def folders(self, folder: str) -> set[str]:
        """Names of the folders in a folder."""

        def ls() -> list[dict[str, Any]]:
            self._fs.invalidate_cache()
            return list(self._fs.ls(f"{self._root}/{folder}", detail=True, **self._limit()))

        try:
            found = self._tried("list", ls)
        except FileNotFoundError:
            return set()
        inside = [about for about in found if about.get("type") == "directory"]
        return {str(about["name"]).rstrip("/").removeprefix(f"{self._root}/") for about in inside}

    def get(
        self, name: str, path: Path, *, check: Callable[[Path], bool], size: int = 0
    ) -> bool | None:
        """Fetch a file.

        Args:
            name: of the file.
            path: where it goes, at once and whole.
            check: whether what came can be used; the rest is thrown away.
            size: its bytes, as far as they are known; a large file may take longer.

        Returns:
            True; False if it is not there; None if it did not pass `check`.

        Raises:
            RemoteError: it cannot be read there.
            StorageError: it cannot be written here.
        """
        make_folder(path.parent)
        try:
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
            os.close(handle)
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            source, limit = f"{self._root}/{name}", self._limit(size)
            self._tried("read", lambda: self._fs.get_file(source, temporary, **limit))
            if not check(Path(temporary)):
                return None
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except FileNotFoundError:
            return False
        except RemoteError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in FULL:
                raise storage_error(cause, path) from error
            raise
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        return True

    def put(self, path: Path, name: str) -> None:
        """Send a file; one of that name is replaced.

        Raises:
            RemoteError: it cannot be written there.
            FileNotFoundError: it is not here any more.
        """
        target = f"{self._root}/{name}"
        folder, _, last = target.rpartition("/")

        def send() -> None:
            if self._whole:
                self._fs.put_file(str(path), target, **self._limit(path.stat().st_size))
                return
            part = f"{folder}/.{os.urandom(6).hex()}-{last}.part"
            self._fs.makedirs(folder, exist_ok=True)
            try:
                self._fs.put_file(str(path), part)
                self._fs.mv(part, target)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._fs.rm_file(part)
                raise

        try:
            self._tried("write to", send)
        except FileNotFoundError as error:
            if not path.exists():
                raise
            raise self._told("write to", error) from error

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            RemoteError: that is not possible.
        """
        with contextlib.suppress(FileNotFoundError):
            self._tried("remove from", lambda: self._fs.rm_file(f"{self._root}/{name}"))

    def _limit(self, size: int = 0) -> dict[str, float]:
        """Bounds the time of an operation where fsspec can do that."""
        asynchronous = getattr(self._fs, "async_impl", False)
        return {"timeout": LIMIT + size / SPEED} if asynchronous else {}

    def _tried(self, verb: str, action: Callable[[], T]) -> T:
        started = time.monotonic()
        for wait in (*WAITS, None):
            try:
                return action()
            except FileNotFoundError:
                raise
            except Exception as error:
                tired = time.monotonic() - started > PATIENCE
                if wait is None or tired or not passes(error):
                    raise self._told(verb, error) from error
                time.sleep(wait * random.uniform(0.5, 1.5))
        raise AssertionError

    def _told(self, verb: str, error: Exception) -> RemoteError:
        return RemoteError(f"cannot {verb} {self.url}: {reason(error)}")


def _kinds(error: BaseException) -> str:
    return " ".join(kind.__name__ for kind in type(error).__mro__)


def _about_keys(error: BaseException) -> bool:
    return any(word in _kinds(error) for word in ("Credential", "TokenRetrieval", "RefreshError"))


def passes(error: Exception) -> bool:
    """Whether a failure may be gone a moment later."""
    mistakes = (PermissionError, FileExistsError, TypeError, ValueError, AttributeError,
                NotImplementedError, LookupError)  # fmt: skip
    lasting = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENAMETOOLONG)
    return not (
        isinstance(error, mistakes)
        or getattr(error, "errno", None) in lasting
        or _about_keys(error)
    )


def reason(error: BaseException) -> str:
    """What went wrong and what to do, in half a sentence."""
    said = one_line(str(error), limit=200) or type(error).__name__
    code = getattr(error, "errno", None)
    if _about_keys(error):
        return (
            f"no valid credentials ({said}); set them, for S3 with AWS_PROFILE or `aws configure`"
        )
    if isinstance(error, PermissionError) or code in (errno.EACCES, errno.EPERM):
        return f"permission denied ({said}); check the credentials and what they allow"
    if isinstance(error, FileNotFoundError):
        return f"no such bucket or folder ({said}); create it first"
    if code in FULL:
        return "it is full or the quota is used up; free some space"
    if code == errno.EROFS:
        return "it is read-only"
    if isinstance(error, (TimeoutError, ConnectionError)) or "Connect" in _kinds(error):
        return f"no connection ({said}); check the network and the endpoint"
    return f"{type(error).__name__}: {said}"
