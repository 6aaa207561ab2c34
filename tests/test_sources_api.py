"""The crawler against a local server that speaks Civitai's API, with every fault we know."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from negbench.database.records import RawRecord, Skip
from negbench.database.sources import Options, open_source
from negbench.database.sources.crawl import Crawl
from negbench.database.sources.spec import load_spec, shipped_specs
from negbench.errors import ConfigError, DataError, MissingError, RecordError

ITEMS = 230
PAGE = 20
Fault = Callable[["Handler", int], bool]


def item(number: int) -> dict[str, Any]:
    meta: dict[str, Any] | None = {
        "prompt": f"picture number {number} of a tree",
        "negativePrompt": f"blurry, take {number}",
        "steps": 20 + number % 5,
        "cfgScale": 7,
        "seed": number,
        "sampler": "Euler a",
    }
    if number % 17 == 0:
        meta = None
    elif number % 13 == 0:
        meta = {"id": number, "meta": meta}  # as on queries by model
    return {
        "id": number, "url": f"https://example.org/{number}.jpeg", "width": 512, "height": 768,
        "nsfwLevel": "None", "nsfw": False, "createdAt": "2024-04-04T21:24:07.499Z",
        "stats": {"likeCount": number % 7}, "meta": meta, "username": "someone",
        "baseModel": "SD 1.5",
    }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.count += 1
        self.server.agents.add(self.headers.get("User-Agent", ""))
        for fault in self.server.faults:
            if fault(self, self.server.count):
                return
        query = parse_qs(urlsplit(self.path).query)
        top = self.server.newest
        start = int(query.get("cursor", [str(top)])[0])
        numbers = list(range(start, max(start - PAGE, 0), -1))
        following = start - PAGE
        metadata = {"nextCursor": following} if following > 0 else {}
        self.send(200, json.dumps({"items": [item(n) for n in numbers], "metadata": metadata}))

    def send(self, status: int, body: str, **headers: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.count = 0
        self.newest = ITEMS
        self.faults: list[Fault] = []
        self.agents: set[str] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api/v1/images"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def write_spec(folder: Path, server: Server, **rate: Any) -> Path:
    """The shipped Civitai spec, fast and against the local server."""
    text = shipped_specs()["civitai"].read_text(encoding="utf-8")
    head = text.split("[rate]")[0].replace("https://civitai.com/api/v1/images", server.address)
    numbers = {"seconds_between_requests": 0.0, "attempts": 12, "timeout_seconds": 0.5,
               "longest_wait_seconds": 0.02, "largest_page_bytes": 200_000, **rate}  # fmt: skip
    path = folder / "local.toml"
    lines = "".join(f"{key} = {value}\n" for key, value in numbers.items())
    path.write_text(f"{head}[rate]\n{lines}", encoding="utf-8")
    return path


def crawl(spec: Path, folder: Path, **options: Any) -> list[RawRecord | Skip]:
    options = {"accept_terms": True, **options}
    return list(open_source(f"api:{spec}", Options(crawl_dir=folder, **options)).read())


def expected(newest: int = ITEMS) -> set[str]:
    return {str(n) for n in range(1, newest + 1)}


def every(period: int, act: Callable[[Handler], None]) -> Fault:
    def fault(handler: Handler, count: int) -> bool:
        if count % period:
            return False
        act(handler)
        return True

    return fault


def half_a_page(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"items": [{"id": 1, "meta"')
    handler.close_connection = True


def cut_json(handler: Handler) -> None:
    handler.send(200, '{"items": [{"id": 1')


def hang(handler: Handler) -> None:
    time.sleep(0.8)


def same_cursor(handler: Handler) -> None:
    query = parse_qs(urlsplit(handler.path).query)
    cursor = query.get("cursor", ["x"])[0]
    handler.send(200, json.dumps({"items": [item(1)], "metadata": {"nextCursor": cursor}}))


FAULTS: dict[str, Callable[[Handler], None]] = {
    "429": lambda h: h.send(429, "slow down", Retry_After="0.01"),
    "503": lambda h: h.send(503, "busy", Retry_After="0"),
    "500": lambda h: h.send(500, "oops"),
    "html": lambda h: h.send(200, "<html>please wait</html>"),
    "half": half_a_page,
    "cut": cut_json,
    "error object": lambda h: h.send(200, '{"error": "try later"}'),
}


def test_a_crawl_gives_every_item_once(server: Server, tmp_path: Path) -> None:
    items = crawl(write_spec(tmp_path, server), tmp_path / "c")
    assert {i.source_id for i in items} == expected()
    assert len(items) == ITEMS
    skips = [i for i in items if isinstance(i, Skip)]
    assert len(skips) == ITEMS // 17
    assert {s.reason for s in skips} == {"no generation metadata"}
    nested = next(i for i in items if i.source_id == "13")
    assert isinstance(nested, RawRecord)
    assert (nested.prompt, nested.negative) == ("picture number 13 of a tree", "blurry, take 13")
    assert (nested.steps, nested.width, nested.likes, nested.nsfw) == (23, 512, 6, "None")
    assert all("negbench" in agent for agent in server.agents)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_faults_are_waited_out(server: Server, tmp_path: Path, name: str) -> None:
    undisturbed = crawl(write_spec(tmp_path, server), tmp_path / "plain")
    server.faults.append(every(3, FAULTS[name]))
    assert crawl(write_spec(tmp_path, server), tmp_path / "disturbed") == undisturbed


def test_a_hanging_server_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.faults.append(lambda handler, count: count == 4 and (hang(handler) or True))
    spec = write_spec(tmp_path, server, timeout_seconds=0.3)
    assert len(crawl(spec, tmp_path / "c")) == ITEMS


def test_a_cursor_that_never_moves_ends_with_one_line(server: Server, tmp_path: Path) -> None:
    server.faults.append(lambda handler, count: count > 4 and (same_cursor(handler) or True))
    spec = write_spec(tmp_path, server, attempts=3)
    with pytest.raises(DataError, match="same cursor again"):
        crawl(spec, tmp_path / "c")
    kept = crawl(spec, tmp_path / "c", offline=True)
    assert len(kept) == 4 * PAGE
    server.faults.clear()
    assert {i.source_id for i in crawl(spec, tmp_path / "c")} == expected()


@pytest.mark.parametrize(
    "target",
    ["http://localhost:1/other", "file:///etc/passwd", "https://127.0.0.1/x", "http://[bad"],
)
def test_redirects_elsewhere_are_refused(server: Server, tmp_path: Path, target: str) -> None:
    server.faults.append(every(1, lambda h: h.send(302, "", Location=target)))
    with pytest.raises(DataError) as caught:
        crawl(write_spec(tmp_path, server), tmp_path / "c")
    assert "redirect" in str(caught.value)
    assert server.count == 1


def test_a_redirect_on_the_same_host_is_followed(server: Server, tmp_path: Path) -> None:
    def move(handler: Handler, count: int) -> bool:
        if "moved=1" in handler.path:
            return False
        mark = "&" if "?" in handler.path else "?"
        handler.send(307, "", Location=f"{handler.path}{mark}moved=1")
        return True

    server.faults.append(move)
    assert len(crawl(write_spec(tmp_path, server), tmp_path / "c")) == ITEMS


def test_a_page_above_the_bound_is_refused(server: Server, tmp_path: Path) -> None:
    server.faults.append(every(1, lambda h: h.send(200, '{"items": ["' + "x" * 300_000 + '"]}')))
    with pytest.raises(DataError, match="larger than"):
        crawl(write_spec(tmp_path, server), tmp_path / "c")


def test_a_page_nested_a_thousand_deep_is_refused(server: Server, tmp_path: Path) -> None:
    deep = '{"items": ' + "[" * 60_000 + "]" * 60_000 + "}"
    server.faults.append(every(1, lambda h: h.send(200, deep)))
    with pytest.raises(DataError, match="too deep"):
        crawl(write_spec(tmp_path, server), tmp_path / "c")


def test_a_wait_beyond_the_bound_ends_the_crawl(server: Server, tmp_path: Path) -> None:
    server.faults.append(every(1, lambda h: h.send(429, "", Retry_After="86400")))
    with pytest.raises(DataError, match="asks to wait 86400 s"):
        crawl(write_spec(tmp_path, server), tmp_path / "c")


def test_terms_have_to_be_accepted(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--accept-terms"):
        crawl(write_spec(tmp_path, server), tmp_path / "c", accept_terms=False)
    assert server.count == 0
    with pytest.raises(MissingError, match="no kept pages"):
        crawl(write_spec(tmp_path, server), tmp_path / "c", accept_terms=False, offline=True)


def test_requests_keep_their_distance(server: Server, tmp_path: Path) -> None:
    waits: list[float] = []
    spec = load_spec(str(write_spec(tmp_path, server, seconds_between_requests=0.2)))
    engine = Crawl(spec, tmp_path / "c", sleep=waits.append)
    list(engine.run(max_pages=4))
    assert len(waits) == 3
    assert all(0.1 < wait <= 0.2 for wait in waits)


def test_a_later_crawl_reads_only_what_is_new(server: Server, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, server)
    crawl(spec, tmp_path / "c")
    server.newest = ITEMS + 2 * PAGE
    before = server.count
    items = crawl(spec, tmp_path / "c")
    assert {i.source_id for i in items} == expected(server.newest)
    assert len(items) == server.newest
    assert server.count - before == 3


def test_pages_can_be_gathered_a_few_at_a_time(server: Server, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, server)
    assert len(crawl(spec, tmp_path / "c", max_pages=2)) == 2 * PAGE
    assert len(crawl(spec, tmp_path / "c", max_pages=3)) == 5 * PAGE
    assert len(crawl(spec, tmp_path / "c")) == ITEMS


def test_another_request_needs_another_folder(server: Server, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, server)
    crawl(spec, tmp_path / "c", max_pages=1)
    with pytest.raises(RecordError, match="other parameters"):
        list(open_source(f"api:{spec}?nsfw=X", Options(crawl_dir=tmp_path / "c",
                                                       accept_terms=True)).read())  # fmt: skip


def test_a_damaged_state_is_named(server: Server, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, server)
    crawl(spec, tmp_path / "c", max_pages=2)
    (tmp_path / "c/civitai/pages/000001.json.zst").write_bytes(b"broken")
    with pytest.raises(RecordError, match="000001"):
        crawl(spec, tmp_path / "c", offline=True)
    (tmp_path / "c/civitai/state.json").write_text("{")
    with pytest.raises(RecordError, match=r"state\.json is damaged"):
        crawl(spec, tmp_path / "c", offline=True)


SCRIPT = """
import sys
from pathlib import Path
from negbench.database.sources.crawl import Crawl
from negbench.database.sources.spec import load_spec
for number, _ in Crawl(load_spec(sys.argv[1]), Path(sys.argv[2])).run():
    print(number, flush=True)
"""


def test_killed_at_random_and_resumed_it_ends_with_the_same_rows(
    server: Server, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, server, seconds_between_requests=0.01)
    undisturbed = crawl(spec, tmp_path / "plain")
    rng = random.Random(7)
    acts = list(FAULTS.values())

    def fault(handler: Handler, count: int) -> bool:
        if rng.random() > 0.25:
            return False
        rng.choice(acts)(handler)
        return True

    server.faults.append(fault)
    folder = tmp_path / "killed" / "civitai"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(spec), str(folder)], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(rng.randint(1, 3)):
            process.stdout.readline()
        time.sleep(rng.random() * 0.03)
        finished = process.poll() == 0
        if not finished:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.stdout.close()
        process.wait()
        if finished or (kills >= 3 and Crawl(load_spec(str(spec)), folder).state.pages > 6):
            break
    assert kills >= 2
    assert crawl(spec, tmp_path / "killed") == undisturbed


def test_specs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="did you mean civitai"):
        load_spec("civitay")
    good = shipped_specs()["civitai"].read_text(encoding="utf-8")
    for change, message in (
        (("https://civitai.com/api/v1/images", "file:///etc/passwd"), "http or https"),
        (('prompt = ["meta.prompt"', 'promt = ["meta.prompt"'), "did you mean prompt"),
        (("attempts = 8", "attempts = 0"), "attempts"),
        (('items = "items"', "items = 3"), "items"),
    ):
        path = tmp_path / "spec.toml"
        path.write_text(good.replace(*change), encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            load_spec(str(path))
    assert load_spec("civitai?limit=7&address=http://127.0.0.1:9/x").params["limit"] == "7"
