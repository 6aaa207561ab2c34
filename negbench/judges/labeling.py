"""A page on this machine on which a person labels pictures, blind to where they come from.

The server listens on 127.0.0.1 only. Its address holds a random token, without which nothing
answers; requests with another host name (DNS rebinding) or from another page (CSRF) are refused.
The page loads nothing from anywhere else, and learns of a picture only its number and the concept.
"""

from __future__ import annotations

import hmac
import json
import random
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from negbench.errors import ConfigError, NegbenchError, one_line
from negbench.judges.label_file import LabelWriter, read_labels
from negbench.judges.units import Unit
from negbench.report.text import visible
from negbench.store import ImageStore
from negbench.types import canonical_json, sha256_hex

ANSWERS = {"yes": "1", "no": "0", "unsure": ""}
BLOCK = 24
"""Units whose pictures are shuffled together, so that who stops early has labelled whole units."""

MAX_BODY = 1000


@dataclass(frozen=True)
class Task:
    """One picture to label, with everywhere it stands.

    Attributes:
        image: digest of its pixels.
        key: of a request that drew it.
        concept: to look for.
        places: rows of the file's columns run, case, replicate, seed and arm.
    """

    image: str
    key: str
    concept: str
    places: tuple[Mapping[str, str], ...]


def plan_tasks(
    units: Sequence[Unit], *, arms: Sequence[str], count: int | None, seed: int
) -> list[Task]:
    """The pictures to label, in the order in which they are shown.

    A random `count` of the units, and of each the pictures of `arms`; pictures are shuffled within
    blocks of units. Equal pictures of one concept are labelled once. A larger `count` begins with
    the units of a smaller one.

    Raises:
        ConfigError: a unit lacks an arm.
    """
    for unit in units:
        lacking = [arm for arm in arms if arm not in unit.pictures]
        if lacking:
            known = ", ".join(unit.pictures)
            raise ConfigError(f"run {unit.run} has no arm {lacking[0]!r}; it has {known}")
    ordered = sorted(
        units,
        key=lambda u: sha256_hex(
            canonical_json(["negbench-label", seed, u.run, u.case, u.replicate, u.concept])
        ),
    )
    chosen = ordered if count is None else ordered[:count]
    places: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    keys: dict[tuple[str, str], str] = {}
    shown: list[tuple[str, str]] = []
    for start in range(0, len(chosen), BLOCK):
        block: dict[tuple[str, str], None] = {}
        for unit in chosen[start : start + BLOCK]:
            for arm in arms:
                picture = unit.pictures[arm]
                pair = (picture.image, unit.concept)
                if pair not in places:
                    block[pair] = None
                keys.setdefault(pair, picture.key)
                places.setdefault(pair, []).append(
                    {
                        "run": unit.run,
                        "case": unit.case,
                        "replicate": str(unit.replicate),
                        "seed": str(unit.seed),
                        "arm": arm,
                    }
                )
        pairs = list(block)
        random.Random(f"{seed}-{start}").shuffle(pairs)
        shown += pairs
    return [Task(image, keys[image, c], c, tuple(places[image, c])) for image, c in shown]


class Sitting:
    """One person's labels of some tasks, on disk as they come.

    Args:
        tasks: in the order in which they are shown.
        path: the CSV file; labels of the same rater in it are known already.
        rater: a name for the rater.
    """

    def __init__(self, tasks: Sequence[Task], path: Path, *, rater: str) -> None:
        self.tasks = list(tasks)
        self.rater = rater
        self._lock = threading.Lock()
        self._writer = LabelWriter(path)
        self.answers: dict[int, str] = {}
        try:
            self._recall(path)
        except NegbenchError:
            self._writer.close()
            raise

    def _recall(self, path: Path) -> None:
        import csv

        read_labels(path)
        number = {(task.image, task.concept): at for at, task in enumerate(self.tasks)}
        names = {value: name for name, value in ANSWERS.items()}
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                at = number.get((row["image"], row["concept"]))
                if at is not None and row["rater"] == self.rater and row["present"] in names:
                    self.answers[at] = names[row["present"]]

    def answer(self, n: int, answer: str) -> None:
        """Keep an answer; it is on the disk when this returns.

        Raises:
            ConfigError: no such task or answer.
            StorageError: the file cannot be written.
        """
        if not 0 <= n < len(self.tasks) or answer not in ANSWERS:
            raise ConfigError("no such picture or answer")
        task = self.tasks[n]
        shared = {
            "image": task.image,
            "concept": task.concept,
            "present": ANSWERS[answer],
            "rater": self.rater,
        }
        with self._lock:
            self._writer.append({**shared, **place} for place in task.places)
            self.answers[n] = answer

    def following(self, n: int) -> int | None:
        """The next task after `n` without an answer, from the start again at the end, or None."""
        order = [*range(n + 1, len(self.tasks)), *range(n + 1)]
        return next((at for at in order if at not in self.answers and at < len(self.tasks)), None)

    def state(self, n: int | None) -> dict[str, Any]:
        """What the page shows for task `n`, or at the end."""
        last = len(self.tasks) if n is None else n
        return {
            "n": n,
            "total": len(self.tasks),
            "labelled": len(self.answers),
            "concept": None if n is None else visible(self.tasks[n].concept, limit=300),
            "answer": None if n is None else self.answers.get(n),
            "previous": last - 1 if last > 0 else None,
            "following": None if n is None else self.following(n),
        }

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class LabelServer(ThreadingHTTPServer):
    """Serves the page of a sitting on 127.0.0.1.

    Args:
        sitting: whose tasks.
        store: where the pictures lie.
        port: 0 for any free one.

    Raises:
        ConfigError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, sitting: Sitting, store: ImageStore, *, port: int = 0) -> None:
        self.sitting = sitting
        self.store = store
        self.token = secrets.token_urlsafe(24)
        page = files("negbench.judges")
        self.parts = {
            "": ("text/html; charset=utf-8", (page / "label_page.html").read_bytes()),
            "page.css": ("text/css; charset=utf-8", (page / "label_page.css").read_bytes()),
            "page.js": ("text/javascript; charset=utf-8", (page / "label_page.js").read_bytes()),
        }
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"port {port} of this machine cannot be used ({error.strerror}); leave --port out"
            ) from error

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """The page's address, with its token."""
        return f"http://127.0.0.1:{self.port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    """One request; answers only who knows the token, by the right name, from the page itself."""

    server: LabelServer
    server_version = "negbench"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60
    headers_sent: ClassVar[Mapping[str, str]] = {
        "content-security-policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; "
        "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
    }

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Nothing is logged: addresses hold the token."""

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value: Any, *, status: int = 200) -> None:
        self._send(status, "application/json", json.dumps(value).encode("ascii"))

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True
        self._json({"error": why}, status=status)

    def _path(self) -> str | None:
        """The path below the token, or None after a refusal."""
        own = {f"127.0.0.1:{self.server.port}", f"localhost:{self.server.port}"}
        if self.headers.get("host", "").lower() not in own:
            self._refuse(403, "wrong host")
            return None
        origin = self.headers.get("origin")
        site = self.headers.get("sec-fetch-site", "same-origin")
        foreign = origin is not None and origin.lower() not in {f"http://{name}" for name in own}
        if foreign or site not in ("same-origin", "none"):
            self._refuse(403, "asked from another page")
            return None
        token, slash, rest = self.path.removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(404, "nothing here; use the address that negbench printed")
            return None
        return rest.partition("?")[0]

    def _number(self, text: str) -> int | None:
        if text.isascii() and text.isdigit() and len(text) < 10:
            number = int(text)
            if number < len(self.server.sitting.tasks):
                return number
        return None

    def do_GET(self) -> None:
        """The page, a picture, or what to show."""
        path = self._path()
        if path is None:
            return
        sitting = self.server.sitting
        head, _, rest = path.partition("/")
        number = self._number(rest)
        if path in self.server.parts:
            self._send(200, *self.server.parts[path])
        elif path == "state":
            self._json(sitting.state(sitting.following(-1)))
        elif head == "state" and number is not None:
            self._json(sitting.state(number))
        elif head == "image" and number is not None:
            self._image(number)
        else:
            self._refuse(404, "nothing here")

    do_HEAD = do_GET  # noqa: N815 - the base's name

    def _image(self, number: int) -> None:
        task = self.server.sitting.tasks[number]
        try:
            data = self.server.store.png_path(task.key).read_bytes()
        except OSError:
            self._refuse(404, "the picture is gone from the cache")
            return
        self._send(200, "image/png", data)

    def do_POST(self) -> None:
        """An answer."""
        path = self._path()
        if path is None:
            return
        length = self.headers.get("content-length", "")
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            self._refuse(415, "send JSON")
            return
        if not (length.isascii() and length.isdigit() and int(length) <= MAX_BODY):
            self._refuse(413, "too long")
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
            n, answer = body["n"], body["answer"]
            if not (isinstance(n, int) and not isinstance(n, bool) and isinstance(answer, str)):
                raise TypeError("wrong types")
        except (ValueError, KeyError, TypeError, RecursionError):
            self._refuse(400, "send a number n and an answer")
            return
        if path != "answer":
            self._refuse(404, "nothing here")
            return
        try:
            self.server.sitting.answer(n, answer)
        except NegbenchError as error:
            self._refuse(400, one_line(str(error), limit=200))
            return
        self._json(self.server.sitting.state(self.server.sitting.following(n)))


__all__ = ["ANSWERS", "BLOCK", "LabelServer", "Sitting", "Task", "plan_tasks"]
