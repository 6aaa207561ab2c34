"""A polite, resumable crawl of a paged JSON API; raw pages are kept, compressed.

A crawl folder holds ``pages/000001.json.zst`` and so on, and ``state.json``, which is replaced
atomically after each page is on disk. A kill at any moment loses at most the page under way: a
page without a state that knows it is fetched again and written over.
"""

from __future__ import annotations

import email.utils
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from negbench.database.sources.spec import ApiSpec
from negbench.errors import DataError, RecordError, StorageError, one_line

USER_AGENT = (
    "negbench/{version} (data sets of negative prompts; +https://github.com/negbench/negbench)"
)
MAX_REDIRECTS = 5
MAX_PAGES = 10_000_000


class FetchError(Exception):
    """One attempt failed; the message says how. `wait` = seconds that the server asked for."""

    def __init__(self, message: str, *, wait: float | None = None, final: bool = False) -> None:
        super().__init__(message)
        self.wait = wait
        self.final = final


@dataclass
class CrawlState:
    """Where a crawl stands.

    Attributes:
        request: what was asked (address and parameters); another request is another crawl.
        pages: pages on disk that count.
        cursor: cursor of the next page; None = from the beginning.
        cursors: the last cursors of this run, to notice a loop.
        finished: the run under way has reached its end.
        run_start: pages of earlier runs, whose ids are known.
        runs: number of runs.
        failures: failed attempts by reason.
    """

    request: dict[str, Any]
    pages: int = 0
    cursor: str | None = None
    cursors: list[str] = field(default_factory=list)
    finished: bool = False
    run_start: int = 0
    runs: int = 1
    failures: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The state as it is written."""
        return {"schema_version": 1, **self.__dict__}


class Crawl:
    """One API's crawl folder.

    Args:
        spec: the API.
        folder: where pages and state are kept.
        sleep: waits some seconds; tests replace it.
    """

    def __init__(
        self, spec: ApiSpec, folder: Path, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.spec = spec
        self.folder = folder
        self._sleep = sleep
        self._last = float("-inf")
        self._random = random.Random()
        self.state = self._load()

    def pages(self) -> Iterator[tuple[int, Any]]:
        """Pages on disk that the state counts, in order.

        Raises:
            RecordError: a page is missing or damaged.
        """
        import zstandard

        for number in range(1, self.state.pages + 1):
            path = self._page_path(number)
            try:
                with zstandard.open(path, "rb") as stream:
                    data = stream.read(self.spec.rate.largest_page_bytes + 1)
                yield number, json.loads(data)
            except (OSError, ValueError, RecursionError, zstandard.ZstdError) as error:
                raise RecordError(
                    f"{path} is missing or damaged; remove {self.folder} to crawl again"
                ) from error

    def run(self, *, max_pages: int | None = None) -> Iterator[tuple[int, Any]]:
        """Fetch pages until the end, and yield each once it is on disk.

        A finished crawl of a newest-first API starts again at the top and ends at a page whose ids
        are all known; any other finished crawl is left as it is.

        Raises:
            DataError: the server does not answer after all attempts, sends the same cursor again,
                or leads elsewhere. Pages on disk stay, and the same command goes on.
        """
        known: set[str] = set()
        if self.state.finished:
            if not self.spec.order.newest_first:
                return
            self.state.finished = False
            self.state.cursor, self.state.cursors = None, []
            self.state.run_start = self.state.pages
            self.state.runs += 1
            self._save()
        if self.state.run_start:
            known = self._known_ids(self.state.run_start)
        import httpx

        limits = httpx.Limits(max_connections=1)
        with httpx.Client(
            headers={"User-Agent": _user_agent(), "Accept": "application/json"},
            timeout=self.spec.rate.timeout_seconds,
            follow_redirects=False,
            limits=limits,
            trust_env=True,
        ) as client:
            fetched = 0
            while not self.state.finished and (max_pages is None or fetched < max_pages):
                page, raw, items, following = self._fetch(client, self.state.cursor)
                number = self.state.pages + 1
                ended = following is None or not items
                if known and items and all(item_id(item, self.spec) in known for item in items):
                    ended = True
                self._write_page(number, raw)
                self.state.pages = number
                if self.state.cursor is not None:
                    self.state.cursors = [*self.state.cursors[-500:], self.state.cursor]
                self.state.cursor = following
                self.state.finished = ended
                self._save()
                fetched += 1
                yield number, page

    def _fetch(self, client: Any, cursor: str | None) -> tuple[Any, bytes, list[Any], str | None]:
        """One page, with waits between attempts."""
        rate = self.spec.rate
        reason = ""
        for attempt in range(rate.attempts):
            self._pause(rate.seconds_between_requests)
            try:
                page, raw = self._attempt(client, cursor)
                return page, raw, *self._read_page(page)
            except FetchError as error:
                reason = str(error)
                self.state.failures[reason] = self.state.failures.get(reason, 0) + 1
                if error.final:
                    break
                jitter = 0.5 + self._random.random()
                wait = min(2.0**attempt * jitter, rate.longest_wait_seconds)
                if error.wait is not None:
                    wait = error.wait
                    if wait > rate.longest_wait_seconds:
                        reason = f"{reason} and asks to wait {wait:.0f} s"
                        break
                if attempt + 1 < rate.attempts:
                    self._sleep(wait)
        raise DataError(
            f"api {self.spec.name}: {reason}; {self.state.pages} pages are kept in {self.folder}, "
            "give the same command again to go on"
        )

    def _pause(self, least: float) -> None:
        now = time.monotonic()
        if now - self._last < least:
            self._sleep(least - (now - self._last))
        self._last = time.monotonic()

    def _attempt(self, client: Any, cursor: str | None) -> tuple[Any, bytes]:
        import httpx

        address = self.spec.address
        params: dict[str, Any] | None = {
            key: _query(value) for key, value in self.spec.params.items()
        }
        if cursor is not None and params is not None:
            params[self.spec.cursor.param] = cursor
        deadline = time.monotonic() + 4 * self.spec.rate.timeout_seconds
        for _ in range(MAX_REDIRECTS):
            try:
                with client.stream("GET", address, params=params) as response:
                    if response.is_redirect:
                        address = self._same_host(response)
                        params = None
                        continue
                    self._check_status(response)
                    raw = self._body(response, deadline)
            except httpx.TimeoutException as error:
                raise FetchError("the server does not answer in time") from error
            except (httpx.TransportError, httpx.DecodingError) as error:
                raise FetchError(f"connection failed ({type(error).__name__})") from error
            except httpx.InvalidURL as error:
                raise FetchError("redirect to an address that is none", final=True) from error
            try:
                return json.loads(raw), raw
            except RecursionError as error:
                raise FetchError("answer is JSON nested too deep", final=True) from error
            except ValueError as error:
                kind = "HTML" if raw.lstrip()[:1] == b"<" else "damaged or cut off"
                raise FetchError(f"answer is not JSON ({kind})") from error
        raise FetchError("too many redirects", final=True)

    def _same_host(self, response: Any) -> str:
        """Where a redirect leads, if that is the same scheme, host and port."""
        location = response.headers.get("location", "")
        try:
            target = urljoin(str(response.request.url), location)
            same = _origin(target) == _origin(self.spec.address)
        except ValueError:
            same = False
        if not same:
            shown = one_line(location, limit=80)
            raise FetchError(f"redirect to {shown} is not followed", final=True)
        return str(target)

    @staticmethod
    def _check_status(response: Any) -> None:
        status = response.status_code
        if status == 200:
            return
        wait = _retry_after(response.headers.get("retry-after"))
        if status in (408, 425, 429) or status >= 500:
            raise FetchError(f"the server answers {status}", wait=wait)
        raise FetchError(f"the server answers {status}", final=True)

    def _body(self, response: Any, deadline: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        for part in response.iter_bytes():
            size += len(part)
            if size > self.spec.rate.largest_page_bytes:
                raise FetchError(
                    f"page is larger than {self.spec.rate.largest_page_bytes} bytes", final=True
                )
            if time.monotonic() > deadline:
                raise FetchError("the server sends too slowly")
            parts.append(part)
        return b"".join(parts)

    def _read_page(self, page: Any) -> tuple[list[Any], str | None]:
        """Items and next cursor of a page; a cursor that was asked for before is a fault."""
        items = look_up(page, self.spec.paths.items)
        if not isinstance(items, list):
            raise FetchError(f"page without a list at {self.spec.paths.items!r}")
        cursor = look_up(page, self.spec.paths.cursor)
        if cursor is None or cursor == "" or isinstance(cursor, (dict, list, bool)):
            return items, None
        following = str(cursor)
        if items and following in {*self.state.cursors, self.state.cursor}:
            raise FetchError(
                f"the server sends the same cursor again ({one_line(following, limit=60)})"
            )
        return items, following

    def _known_ids(self, pages: int) -> set[str]:
        known: set[str] = set()
        for number, page in self.pages():
            if number > pages:
                break
            items = look_up(page, self.spec.paths.items)
            known.update(item_id(item, self.spec) for item in items or [])
        return known - {""}

    def _page_path(self, number: int) -> Path:
        return self.folder / "pages" / f"{number:06d}.json.zst"

    def _write_page(self, number: int, raw: bytes) -> None:
        import zstandard

        path = self._page_path(number)
        _replace(path, zstandard.ZstdCompressor(level=6).compress(raw))

    def _save(self) -> None:
        text = json.dumps(self.state.to_json(), sort_keys=True, indent=1)
        _replace(self.folder / "state.json", text.encode("utf-8"))

    def _load(self) -> CrawlState:
        params = {key: _query(value) for key, value in sorted(self.spec.params.items())}
        request = {"address": self.spec.address, "params": params}
        path = self.folder / "state.json"
        if not path.exists():
            return CrawlState(request)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("schema_version") != 1:
                raise RecordError(f"{path} is of a newer version; upgrade negbench")
            state = CrawlState(**data)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RecordError(f"{path} is damaged; remove {self.folder} to crawl again") from error
        if state.request != request:
            raise RecordError(
                f"{self.folder} holds a crawl with other parameters ({state.request['address']}); "
                "give another --crawl-dir"
            )
        return state


def look_up(value: Any, path: str) -> Any:
    """The value at a dotted path of objects, or None."""
    for step in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def item_id(item: Any, spec: ApiSpec) -> str:
    """An item's id as text, "" if it has none."""
    value = look_up(item, spec.paths.id)
    return "" if value is None or isinstance(value, (dict, list)) else str(value)


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that a kill leaves the old one or the new one, never a part."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


def _origin(address: str) -> tuple[str, str, int | None]:
    parts = urlsplit(address)
    port = parts.port
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port or default


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or an HTTP date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        seconds = when.timestamp() - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _query(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _user_agent() -> str:
    from negbench import __version__

    return USER_AGENT.format(version=__version__)
