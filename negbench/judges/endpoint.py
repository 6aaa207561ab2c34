"""Asking an OpenAI-compatible endpoint: politely, bounded, and without a trace of the key.

The key is read from an environment variable when a request is made. It goes into one header and
nowhere else: not into a config, a file, a log or a message; whatever a server sends back is
searched for it before anyone sees it. Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from negbench.errors import ConfigError, MissingError, NegbenchError, one_line

if TYPE_CHECKING:
    import httpx

MAX_ANSWER = 1 << 20
"""Bytes of an answer; a longer one is broken off."""

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
REFUSAL_CODES = re.compile(r"content|policy|safety|moderation|filter", re.IGNORECASE)


class NoAnswerError(NegbenchError):
    """A question that got no answer, though it was asked as often as allowed."""


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        text: its words, None if it refused.
        refused: why there are no words, for example ``content_filter``.
        prompt_tokens: as the server counted them, 0 if it did not.
        completion_tokens: the same.
        tries: requests it took.
    """

    text: str | None
    refused: str | None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tries: int = 1


@dataclass
class Spent:
    """What asking has cost so far; `add` may be called from several threads."""

    requests: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **amounts: int) -> None:
        """Add to the counters named."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return {
            "requests": self.requests,
            "answers": self.answers,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


def read_key(name: str | None) -> str | None:
    """The key in the environment variable `name`, or None where no variable is named.

    Raises:
        ConfigError: `name` is no name (perhaps a key), or the variable holds nothing usable. What
            it holds, and a doubtful name, are never part of the message.
        MissingError: the variable is not set.
    """
    if name is None:
        return None
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        raise ConfigError(
            "judge vlm: key_env has to be the NAME of an environment variable, in capitals, for "
            "example OPENAI_API_KEY; never give the key itself (what was given is not shown here)"
        )
    value = os.environ.get(name)
    if not value or not value.strip():
        raise MissingError(
            f"judge vlm: environment variable {name} is not set; export it with the endpoint's key"
        )
    key = value.strip()
    if not re.fullmatch(r"[\x21-\x7e]{8,4096}", key):
        raise ConfigError(
            f"judge vlm: environment variable {name} holds no key: at least 8 visible ASCII "
            "characters without blanks are needed"
        )
    return key


def check_address(base_url: str, *, with_key: bool) -> str:
    """`base_url` without a trailing slash.

    Raises:
        ConfigError: it is no plain http(s) address, holds a user, password or query (which could be
            a key), or would send a key in the clear to a public host.
    """
    parts = urlsplit(base_url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not host or not plain or port == 0:
        raise ConfigError(
            "judge vlm: base_url has to be an http(s) address without user, password, query or "
            "fragment, for example https://api.openai.com/v1 (what was given is not shown here)"
        )
    if with_key and parts.scheme == "http" and not is_near(host):
        raise ConfigError(
            f"judge vlm: {host} is asked over http, where anyone can read the key; use https"
        )
    return base_url.rstrip("/")


def is_near(host: str) -> bool:
    """Whether a host is this machine or has an address of a private network."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private


class Endpoint:
    """Chat completions of one model at one address.

    Args:
        base_url: up to and without ``/chat/completions``.
        model: the model's name there.
        key_env: name of the environment variable with the key, or None.
        timeout: seconds that one try may take in all.
        tries: how often a question is asked before it counts as unanswered.
        first_wait: seconds before the second try; doubled for each further one, half of it drawn
            at random.
        longest_wait: most seconds before a try, also where the server asks for more.
        options: further fields of each request.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_env: str | None,
        timeout: float,
        tries: int,
        first_wait: float,
        longest_wait: float,
        options: Mapping[str, Any],
    ) -> None:
        self._key_env = key_env
        self._url = f"{check_address(base_url, with_key=key_env is not None)}/chat/completions"
        self._model = model
        self._timeout, self._tries = timeout, tries
        self._first_wait, self._longest_wait = first_wait, longest_wait
        self._options = dict(options)
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.spent = Spent()

    def stop(self) -> None:
        """Make every thread that waits or asks give up."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connections; the next question opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
        self._stopped.clear()

    def ask(self, content: Sequence[Mapping[str, Any]]) -> Reply:
        """One answer to one message of a user.

        Args:
            content: parts of the message, texts and images.

        Raises:
            NoAnswerError: no answer came, as often as it was asked for.
            ConfigError: the server refuses the key, the model or the request.
        """
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": list(content)}],
            **self._options,
        }
        data = json.dumps(body).encode("utf-8")
        last = "no try"
        for number in range(1, self._tries + 1):
            self.spent.add(requests=1)
            wait: float | None = None
            try:
                status, headers, answer = self._post(data)
            except _BrokenError as error:
                last = str(error)
            else:
                if status == 200:
                    reply = self._read(answer, number)
                    if reply is not None:
                        self.spent.add(
                            answers=1,
                            prompt_tokens=reply.prompt_tokens,
                            completion_tokens=reply.completion_tokens,
                        )
                        return reply
                    last = "the answer is no chat completion"
                elif status in RETRIED:
                    last = f"status {status}"
                    wait = retry_after(headers.get("retry-after"))
                else:
                    return self._refused(status, answer, number)
            if number < self._tries:
                self._sleep(number, wait)
        raise NoAnswerError(
            f"no answer from {urlsplit(self._url).hostname} in {self._tries} tries (last: {last})"
        )

    def _sleep(self, number: int, wait: float | None) -> None:
        backoff = min(self._first_wait * 2 ** (number - 1), self._longest_wait)
        seconds = backoff * (0.5 + 0.5 * random.random())
        if wait is not None:
            seconds = max(min(wait, self._longest_wait), 0.0)
        if self._stopped.wait(seconds):
            raise NoAnswerError("asking was stopped")

    def _post(self, data: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of one request, within the time and size allowed.

        Raises:
            _BrokenError: the connection failed, the answer did not end in time or is too long.
        """
        import httpx

        headers = {"content-type": "application/json"}
        key = read_key(self._key_env)
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        limit = time.monotonic() + self._timeout
        received = bytearray()
        try:
            with self._open().stream("POST", self._url, content=data, headers=headers) as response:
                for chunk in response.iter_bytes():
                    received += chunk
                    if len(received) > MAX_ANSWER:
                        raise _BrokenError(f"an answer of more than {MAX_ANSWER} bytes")
                    if time.monotonic() > limit or self._stopped.is_set():
                        raise _BrokenError("the answer did not end in time")
                return response.status_code, dict(response.headers), bytes(received)
        except httpx.TimeoutException:
            raise _BrokenError("it took too long") from None
        except httpx.HTTPError as error:
            raise _BrokenError(self._scrubbed(f"{type(error).__name__}: {error}")) from None

    def _open(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=self._timeout, follow_redirects=False)
            return self._client

    def _read(self, data: bytes, tries: int) -> Reply | None:
        """The reply in a chat completion, None if it is none."""
        try:
            answer = json.loads(data)
            choice = answer["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
            finish = choice.get("finish_reason")
            usage = answer.get("usage") or {}
            counts = {
                name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")
            }
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return None
        if isinstance(text, list):  # some servers give the parts of a message
            text = "".join(
                part.get("text", "")
                for part in text
                if isinstance(part, dict) and isinstance(part.get("text", ""), str)
            )
        if isinstance(refusal, str) and refusal.strip():
            return Reply(None, self._scrubbed(refusal), **counts, tries=tries)
        if finish == "content_filter":
            return Reply(None, "content filter", **counts, tries=tries)
        if not isinstance(text, str):
            return None
        return Reply(self._scrubbed(text, limit=20_000), None, **counts, tries=tries)

    def _refused(self, status: int, data: bytes, tries: int) -> Reply:
        """An image that the server will not look at is a refusal; anything else is an error."""
        said = ""
        try:
            error = json.loads(data).get("error", {})
            said = f"{error.get('code') or ''} {error.get('type') or ''} {error.get('message', '')}"
        except (ValueError, AttributeError, TypeError, RecursionError):
            pass
        said = self._scrubbed(said, limit=160).strip()
        if status in (400, 422, 451) and REFUSAL_CODES.search(said):
            return Reply(None, said or f"status {status}", tries=tries)
        host = urlsplit(self._url).hostname
        advice = {
            401: "check the key" if self._key_env else "give key_env",
            403: "check what the key may do",
            404: "check base_url and model",
        }.get(status, "check base_url, model and the judge's other parameters")
        if 300 <= status < 400:
            advice = "redirects are not followed, give the address it leads to"
        raise ConfigError(
            f"judge vlm: {host} answers {status}{': ' + said if said else ''}; {advice}"
        )

    def _scrubbed(self, text: str, *, limit: int = 200) -> str:
        """`text` on one line, bounded, with the key blotted out wherever it stands."""
        try:
            key = read_key(self._key_env)
        except NegbenchError:
            key = None
        if key is not None:
            text = text.replace(key, "[key]")
        return one_line(text, limit=limit) if limit < 20_000 else text[:limit]


class _BrokenError(Exception):
    """A request that may be tried again."""


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None if there is none."""
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
