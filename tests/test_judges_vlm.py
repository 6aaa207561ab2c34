"""The vlm judge against a server on this machine that refuses, stammers, stalls and hangs."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from negbench.errors import ConfigError, MissingError, NegbenchError
from negbench.judges import Question, build_judge
from negbench.judges import answers as said
from negbench.judges.ask import ask
from negbench.judges.endpoint import check_address, retry_after
from negbench.store import pixel_digest

KEY = "sk-test-9f8e7d6c5b4a39281706"


def picture(value: int):
    return np.full((8, 8, 3), value, dtype=np.uint8)


def question(pixels, concept: str) -> Question:
    return Question(image=pixel_digest(pixels), pixels=pixels, concept=concept)


def completion(text, *, refusal=None, finish="stop"):
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 5},
    }


class Server:
    """Answers as `script` says: concept -> what to do at the first, second ... request.

    The last entry stands for all further requests. A string is the model's text, a dict the whole
    body, a number a status, a tuple (status, headers), a callable writes for itself.
    """

    def __init__(self, script):
        self.script = script
        self.asked: Counter[str] = Counter()
        self.requests = []
        self.times = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.lock:
                    concept = outer.concept_of(body)
                    number = outer.asked[concept]
                    outer.asked[concept] += 1
                    outer.requests.append(
                        (self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                    )
                    outer.times.append(time.monotonic())
                steps = outer.script.get(concept, outer.script.get("*"))
                step = steps[min(number, len(steps) - 1)] if isinstance(steps, list) else steps
                if callable(step):
                    step = step(self, body)
                if step is None:
                    return
                status, headers, answer = 200, {}, step
                if isinstance(step, int):
                    status, answer = step, {"error": {"message": "busy"}}
                elif isinstance(step, tuple):
                    status, headers, answer = step
                elif isinstance(step, str):
                    answer = completion(step)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @staticmethod
    def concept_of(body) -> str:
        text = body["messages"][0]["content"][0]["text"]
        return text.split('"')[1] if text.startswith("Look at") else text[:8]

    def close(self):
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("TEST_VLM_KEY", KEY)
    opened = []

    def start(script):
        opened.append(Server(script))
        return opened[-1]

    yield start
    for server in opened:
        server.close()


def judge_at(server, **params):
    given = {
        "base_url": server.url,
        "model": "seer-1",
        "key_env": "TEST_VLM_KEY",
        "first_wait": 0.01,
        "longest_wait": 0.2,
        "timeout": 5,
        "tries": 4,
    }
    return build_judge("vlm", {**given, **params})


def hang(handler, _):
    time.sleep(2.0)


def trickle(handler, _):
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    try:
        for _ in range(40):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


def cut_off(handler, _):
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')


def nowhere(folder, *texts: str) -> None:
    """The key stands in no file under `folder` and in none of the texts, in no usual encoding."""
    forms = [KEY, base64.b64encode(KEY.encode()).decode(), KEY.encode().hex(), KEY[::-1], KEY[3:]]
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for form in forms:
                assert form.encode() not in data, path
    for text in texts:
        for form in forms:
            assert form not in text


SCRIPT = {
    "plain": '{"present": true}',
    "word": "No.",
    "fenced": '```json\n{"present": "yes"}\n```',
    "busy": [(429, {"retry-after": "0.02"}, {"error": {}}), 500, 503, '{"present": false}'],
    "hanging": [hang, '{"present": true}'],
    "trickling": [trickle, '{"present": true}'],
    "torn": [cut_off, b"no json", '{"present": false}'],
    "empty": [{"choices": []}, '{"present": true}'],
    "stammer": ["Well, yes, I think so", '{"present": true}'],
    "chatty": "Yes, there is a hat, and no, there is no dog.",
    "sorry": "I'm sorry, but I can't help with that.",
    "refused": completion(None, refusal="It goes against my policy"),
    "filtered": completion("", finish="content_filter"),
    "policy": (400, {}, {"error": {"code": "content_policy_violation", "message": "unsafe"}}),
    "echo": f"The key is {KEY}",
    "parts": completion([{"type": "text", "text": '{"present": false}'}]),
}
WANTED = {
    "plain": 1.0, "word": 0.0, "fenced": 1.0, "busy": 0.0, "hanging": 1.0, "trickling": 1.0,
    "torn": 0.0, "empty": 1.0, "stammer": 1.0, "parts": 0.0,
}  # fmt: skip


def test_no_verdict_is_lost_and_no_key_is_written(serve, tmp_path, caplog, capsys):
    caplog.set_level("DEBUG")
    server = serve(SCRIPT)
    judge = judge_at(server, price_in=10, price_out=40, timeout=0.8)
    asked = [question(picture(7), name) for name in SCRIPT]
    found = dict(zip(SCRIPT, ask(judge, asked, cache=tmp_path), strict=True))
    assert {name: v.probability for name, v in found.items() if v.present is not None} == WANTED
    assert {name: v.unscored for name, v in found.items() if v.present is None} == {
        "chatty": "malformed answer 'Yes, there is a hat, and no, there is no dog.'",
        "sorry": "the model refused: \"I'm sorry, but I can't help with that.\"",
        "refused": "the model refused: 'It goes against my policy'",
        "filtered": "the model refused: 'content filter'",
        "policy": "the model refused: 'content_policy_violation unsafe'",
        "echo": "malformed answer 'The key is [key]'",
    }
    assert server.asked["chatty"] == 3
    before = len(server.requests)
    again = ask(judge_at(server), asked, cache=tmp_path)
    assert [v.probability for v in again] == [v.probability for v in found.values()]
    assert len(server.requests) == before
    cost = judge.cost()
    assert cost["requests"] == before
    assert cost["answers"] > len(SCRIPT) - 3
    assert cost["price"] == pytest.approx(
        1e-6 * (10 * cost["prompt_tokens"] + 40 * cost["completion_tokens"])
    )
    assert {headers["authorization"] for _, headers, _ in server.requests} == {f"Bearer {KEY}"}
    streams = capsys.readouterr()
    nowhere(tmp_path, caplog.text, streams.out, streams.err, repr(judge.ref()), repr(vars(judge)))
    nowhere(tmp_path, repr(vars(judge.endpoint)), str(judge.config))


def test_the_request_is_openais(serve, tmp_path):
    server = serve({"*": "yes"})
    ask(judge_at(server, detail="low"), [question(picture(9), 'a "hat"\n')], cache=tmp_path)
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["content-type"] == "application/json"
    assert {name: body[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "seer-1", "temperature": 0.0, "max_tokens": 300,
    }  # fmt: skip
    text, image = body["messages"][0]["content"]
    assert json.dumps('a "hat"\n') in text["text"]
    address = image["image_url"]["url"]
    assert image["image_url"]["detail"] == "low"
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), picture(9))


def test_a_question_without_an_answer_stops_after_the_others_and_is_asked_again(serve, tmp_path):
    server = serve({"dead": 503, "*": "yes"})
    words = ["a", "dead", "b", "c"]
    asked = [question(picture(1), word) for word in words]
    judge = judge_at(server, tries=2)
    with pytest.raises(MissingError, match="1 of 4 questions got no answer"):
        ask(judge, asked, cache=tmp_path)
    assert server.asked == {"a": 1, "dead": 2, "b": 1, "c": 1}
    server.script["dead"] = "no"
    assert [v.present for v in ask(judge, asked, cache=tmp_path)] == [True, False, True, True]
    assert server.asked == {"a": 1, "dead": 3, "b": 1, "c": 1}


def test_going_on_without_answers_is_a_choice(serve, tmp_path):
    server = serve({"dead": 503, "*": "yes"})
    judge = judge_at(server, tries=1, unanswered="unscored")
    asked = [question(picture(1), word) for word in ("a", "dead")]
    assert ask(judge, asked, cache=tmp_path)[1].unscored == "the judge gave no answer"
    server.script["dead"] = "no"
    assert ask(judge, asked, cache=tmp_path)[1].present is False


def test_a_dead_endpoint_is_not_asked_a_thousand_times(serve, tmp_path):
    server = serve({"*": 500})
    judge = judge_at(server, tries=1, parallel=1)
    with pytest.raises(MissingError, match="5 questions in a row got no answer"):
        ask(judge, [question(picture(1), str(i)) for i in range(50)], cache=tmp_path)
    assert len(server.requests) <= 7


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "check the key"), (404, "base_url and model"), (301, "not followed"), (400, "check")],
)
def test_what_the_user_can_mend_stops_at_once(serve, tmp_path, status, advice):
    body = {"error": {"message": f"no good: {KEY}\nBearer {KEY}"}}
    server = serve({"*": (status, {"location": "http://127.0.0.1:9/x"}, body)})
    judge = judge_at(server, parallel=1)
    with pytest.raises(ConfigError, match=advice) as caught:
        ask(judge, [question(picture(1), str(i)) for i in range(9)], cache=tmp_path)
    assert len(server.requests) == 1
    nowhere(tmp_path, str(caught.value), repr(caught.value))


def test_retry_after_is_honoured_up_to_a_limit(serve, tmp_path):
    soon = {"retry-after": "0.15"}
    server = serve({"a": [(429, soon, {}), "yes"], "b": [(429, {"retry-after": "900"}, {}), "no"]})
    judge = judge_at(server, longest_wait=0.3)
    for word, least in (("a", 0.15), ("b", 0.3)):
        ask(judge, [question(picture(1), word)], cache=tmp_path)
        assert least - 0.01 <= server.times[-1] - server.times[-2] < least + 2
    moment = datetime.now(UTC) + timedelta(seconds=100)
    assert retry_after(format_datetime(moment, usegmt=True)) == pytest.approx(100, abs=5)
    assert retry_after("soon") is None
    assert retry_after("-5") is None
    assert retry_after(format_datetime(datetime(2001, 1, 1, tzinfo=UTC))) == 0


def test_comparisons_are_asked_in_both_orders(serve, tmp_path):
    dark, mid, light = picture(0), picture(100), picture(250)

    def honest(_, body):
        urls = [part["image_url"]["url"] for part in body["messages"][0]["content"][1:]]
        images = [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
            for url in urls
        ]
        far = [abs(int(image[0, 0, 0]) - int(images[0][0, 0, 0])) for image in images[1:]]
        return json.dumps({"closer": "second" if far[0] < far[1] else "third"})

    server = serve({"*": honest})
    judge = judge_at(server)
    judge.prepare(cache=tmp_path)
    found = judge.compare([(dark, mid, light), (dark, light, mid)])
    assert [c.first for c in found] == [1.0, 0.0]
    assert len(server.requests) == 2
    server.script["*"] = "second"
    (flip,) = judge.compare([(light, dark, mid)])
    assert (flip.first, flip.flipped) == (0.5, True)
    server.script["*"] = "Both are close."
    (none,) = judge.compare([(mid, dark, light)])
    assert none.unscored == "malformed answer 'Both are close.'"
    again = judge.compare([(light, dark, mid), (dark, mid, light)])
    assert [c.first for c in again] == [0.5, 1.0]


def test_lists_of_concepts(serve, tmp_path):
    server = serve({"*": '{"concepts": ["Red Hat", "red  hat", "dog"]}'})
    judge = judge_at(server)
    judge.prepare(cache=tmp_path)
    assert judge.list_concepts([picture(1)]) == [("red hat", "dog")]
    server.script["*"] = "a hat"
    (verdict,) = judge.list_concepts([picture(2)])
    assert verdict.unscored == "malformed answer 'a hat'"
    assert judge.list_concepts([picture(1)]) == [("red hat", "dog")]


def test_keys_and_addresses_are_refused_without_being_shown(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    base = {"base_url": "https://api.example/v1", "model": "m"}
    cases = [
        ({"key_env": KEY}, "NAME of an environment variable"),
        ({"key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
        ({"base_url": f"https://x:{KEY}@api.example/v1"}, "without user"),
        ({"base_url": f"https://api.example/v1?key={KEY}"}, "without user"),
        ({"base_url": "ftp://api.example"}, "http"),
        ({"model": ""}, "which model"),
    ]
    for params, message in cases:
        with pytest.raises(NegbenchError, match=message) as caught:
            build_judge("vlm", {**base, **params})
        assert KEY not in str(caught.value)
    monkeypatch.setenv("ODD_KEY", f"{KEY}\r\nx-other: 1")
    with pytest.raises(ConfigError, match="ODD_KEY holds no key") as caught:
        build_judge("vlm", {**base, "key_env": "ODD_KEY"})
    assert KEY not in str(caught.value)
    with pytest.raises(ConfigError, match="use https"):
        check_address("http://api.example/v1", with_key=True)
    check_address("http://10.1.2.3:8000/v1", with_key=True)
    check_address("http://api.example/v1", with_key=False)


def test_the_identity_is_the_model_and_not_the_way_there(monkeypatch):
    monkeypatch.setenv("TEST_VLM_KEY", KEY)
    base = {"base_url": "http://127.0.0.1:8000/v1", "model": "m"}

    def digest(**params):
        return build_judge("vlm", {**base, **params}).ref().digest()

    same = digest()
    assert digest(base_url="http://127.0.0.1:9000/v1", key_env="TEST_VLM_KEY", tries=2) == same
    assert digest(model="n") != same
    assert digest(base_url="https://api.example/v1") != same
    assert digest(temperature=None) == digest(temperature="none") != same


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("yes", True), ("No", False), (" YES. ", True), ('"no"', False), ("true", True),
        ('{"present": true}', True), ('{"present": "No"}', False), ("```\nyes\n```", True),
        ("Yes and no", None), ("yes, a hat", None), ("", None), ("{}", None), ("[]", None),
        ('{"present": 1}', None), ('{"present": true, "sure": false}', None), ("null", None),
        ('{"present": null}', None), ("present: true", None), ("нет", None), ("[" * 9999, None),
    ],
)  # fmt: skip
def test_answers_are_read_strictly(text, wanted):
    assert said.read_presence(text) is wanted


def test_further_readings():
    assert said.read_closer('{"closer": "the second one"}') == "second"
    assert said.read_closer("Third.") == "third"
    assert said.read_closer("second or third") is None
    assert said.read_concepts('{"concepts": [1]}') is None
    assert said.read_concepts(json.dumps({"concepts": ["x" * 61]})) is None
    assert len(said.read_concepts(json.dumps({"concepts": [str(i) for i in range(99)]}))) == 30
    for text in ("I’m sorry, no", "I cannot do this", "As an AI, I", "Sorry"):
        assert said.is_refusal(text)
    for text in ("No sorry", "I can see a hat", "Cannot"):
        assert not said.is_refusal(text)


def test_a_local_model_gives_the_share_of_yes_in_its_next_word(tmp_path, monkeypatch):
    import torch
    from tiny_vlm import NAMES, make_vlm

    from negbench.judges import local_vlm

    folder = make_vlm(tmp_path / "vlm")
    judge = build_judge("vlm", {"model": str(folder)})
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(2)]
    model, processor = judge.local.parts
    text = (
        '<image> Is "red hat" visible in this picture, in whole or in part? Answer with one word, '
        "yes or no."
    )
    masses = []
    for image in images:
        inputs = processor(images=[Image.fromarray(image)], text=text, return_tensors="pt")
        with torch.no_grad():
            row = torch.softmax(model(**inputs).logits[0, -1].double(), dim=-1)
        masses.append((float(row[NAMES.index("yes")]), float(row[NAMES.index("no")])))
    assert masses[0] != masses[1]
    asked = [question(image, "red  hat") for image in images]
    monkeypatch.setattr(local_vlm, "LEAST_MASS", 1e-9)
    found = ask(judge, asked, cache=tmp_path / "cache")
    wanted = [yes / (yes + no) for yes, no in masses]
    assert [v.probability for v in found] == pytest.approx(wanted, rel=1e-4)
    (compared,) = judge.compare([(images[0], images[1], images[0])])
    assert compared.first in (0.0, 0.5, 1.0)
    (listed,) = judge.list_concepts(images[:1])
    assert str(listed.unscored).startswith("malformed answer")
    monkeypatch.setattr(local_vlm, "LEAST_MASS", 0.999)
    (mute,) = ask(judge, asked[:1], cache=tmp_path / "other")
    assert "neither yes nor no" in str(mute.unscored)


def test_a_local_model_is_refused_while_planning(tmp_path):
    from tiny_vlm import make_vlm

    with pytest.raises(MissingError, match="negbench prefetch --judge vlm -p model=a/b"):
        build_judge("vlm", {"model": "a/b"})
    with pytest.raises(ConfigError, match="key_env needs base_url"):
        build_judge("vlm", {"model": "a/b", "key_env": "TEST_VLM_KEY"})
    folder = make_vlm(tmp_path / "vlm", template=False)
    with pytest.raises(ConfigError, match="no chat template"):
        build_judge("vlm", {"model": str(folder)})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ConfigError, match="does not know as an image-text model"):
        build_judge("vlm", {"model": str(folder)})


BENCH = """
name = "tiny"
version = 1
summary = "a test"
replicates = 1
generator = "fake"
[data]
source = "miniature"
[guidance]
kind = "cfg"
scale = 4.0
[metrics.presence]
judge = "vlm"
[metrics.presence.judge_params]
base_url = "{url}"
model = "seer-1"
key_env = "TEST_VLM_KEY"
first_wait = 0.01
tries = 2
parallel = 2
"""


def test_a_whole_run_keeps_the_key_to_itself(serve, tmp_path, capfd, monkeypatch):
    import sys

    from negbench import cli

    server = serve({"dog": [503, 503, 503, 503, "yes"], "hat": "yes", "tree": "Hm, hard to say"})
    bench = tmp_path / "bench.toml"
    bench.write_text(BENCH.format(url=server.url))
    prompts = tmp_path / "p.csv"
    prompts.write_text(
        "id,prompt,negative,concept\n1,a cat,dog,dog\n2,a man,hat,hat\n3,a park,tree,tree\n"
    )
    monkeypatch.setenv("NEGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        sys, "argv",
        ["negbench", "evaluate", "-b", str(bench), "--prompts", str(prompts), "-m", "human",
         "-o", "size=16", "-o", "steps=3", "--out", str(tmp_path / "runs"), "--json"],
    )  # fmt: skip
    outputs = []
    codes = []
    for _ in range(2):
        try:
            cli.main()
            codes.append(0)
        except SystemExit as stop:
            codes.append(stop.code or 0)
        outputs.append(capfd.readouterr())
    assert codes == [2, 0]
    assert "the same command asks again" in outputs[0].err
    (found,) = [e for e in json.loads(outputs[1].out)["estimates"] if e["metric"] == "presence"]
    assert (found["n_scored"], found["n_unscored"], found["value"]) == (2, 1, 1.0)
    assert server.asked["hat"] == 2
    nowhere(tmp_path, *(text for pair in outputs for text in pair))


CHILD = """
import sys
from pathlib import Path
import numpy as np
from negbench.judges import Question, build_judge
from negbench.judges.ask import ask

pixels = np.zeros((8, 8, 3), dtype=np.uint8)
params = {"base_url": sys.argv[1], "model": "seer-1", "key_env": "TEST_VLM_KEY", "parallel": 2}
asked = [Question("ab" * 32, pixels, f"thing {i}") for i in range(30)]
print(sum(v.present for v in ask(build_judge("vlm", params), asked, cache=Path(sys.argv[2]))))
"""


@pytest.mark.slow
def test_a_killed_process_loses_at_most_what_was_under_way(serve, tmp_path):
    import subprocess
    import sys

    def slowly(_, body):
        time.sleep(0.05)
        return "yes"

    server = serve({"*": slowly})
    command = [sys.executable, "-c", CHILD, server.url, str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len(server.requests) < 12 and child.poll() is None:
        time.sleep(0.01)
    child.kill()
    child.wait()
    before = len(server.requests)
    assert 12 <= before < 30
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "30"
    assert len(server.requests) - 30 <= 2 + 2
    nowhere(tmp_path, done.stdout, done.stderr)
