"""What is done with a trained checkpoint: suggest and push; and the rival `llm`."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny_t5 import write_tiny_t5
from typer.testing import CliRunner

from negbench.cli import app
from negbench.errors import ConfigError, DataError, MissingError, NegbenchError
from negbench.methods import llm
from negbench.methods.base import Pair
from negbench.methods.llm import Llm, first_line
from negbench.params import build_config
from negbench.train.push import push_checkpoint
from negbench.train.suggest import read_prompts, suggest
from negbench.types import Case


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    import torch
    from transformers import T5ForConditionalGeneration

    folder = write_tiny_t5(tmp_path_factory.mktemp("tiny-t5"))
    model = T5ForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.normal_(std=0.4, generator=torch.Generator().manual_seed(number))
    model.save_pretrained(folder)
    return folder


def test_suggestions_differ_and_repeat(tiny):
    prompts = ["a red cat", "a house at night"]
    found = suggest(prompts, n=4, checkpoint=str(tiny))
    assert [len(set(one)) for one in found] == [4, 4]
    assert suggest(prompts, n=4, checkpoint=str(tiny)) == found
    assert suggest(prompts[1:], n=4, checkpoint=str(tiny)) == found[1:]
    assert suggest(prompts, checkpoint=str(tiny)) == [one[:1] for one in found]
    with pytest.raises(ConfigError, match="--n must be between"):
        suggest(prompts, n=0, checkpoint=str(tiny))


def test_suggest_reads_arguments_stdin_and_files(tiny, tmp_path):
    def run(*arguments, **more):
        result = CliRunner().invoke(app, ["suggest", "--checkpoint", str(tiny), *arguments], **more)
        assert result.exception is None, result.exception
        return result.stdout

    (one,) = run("a red cat").splitlines()
    rows = run(input="a red cat\n\n  a house \n").splitlines()
    assert rows[0] == f"a red cat\t{one}"
    assert rows[1].startswith("a house\t")
    assert run("-", input="a red cat\n").strip() == one
    file = tmp_path / "prompts.txt"
    file.write_text("a red cat\n")
    (found,) = json.loads(run("--file", str(file), "--json", "--n", "2"))
    assert found["prompt"] == "a red cat"
    assert found["negatives"][0] == one
    assert len(found["negatives"]) == 2
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8 at byte 0"):
        read_prompts([], file=file)
    with pytest.raises(DataError, match="no prompt given"):
        read_prompts([" "], file=None)
    with pytest.raises(NegbenchError, match="cannot read"):
        read_prompts([], file=tmp_path / "nowhere")
    with pytest.raises(MissingError, match="--checkpoint nowhere: there is no such folder"):
        suggest(["a"], checkpoint="nowhere")


class Hub:
    """A stand-in for `huggingface_hub.HfApi`."""

    def __init__(self, *, refuses=False):
        self.refuses = refuses
        self.files = {}

    def create_repo(self, repo, *, repo_type, private, exist_ok):
        if self.refuses:
            raise RuntimeError("401 Client Error")
        self.made = (repo, repo_type, private, exist_ok)

    def create_commit(self, *, repo_id, repo_type, operations, commit_message):
        self.files = {op.path_in_repo: op.path_or_fileobj for op in operations}
        self.message = commit_message
        return type("Commit", (), {"commit_url": f"https://hub/{repo_id}/commit/1"})()


def test_push_sends_the_model_and_its_card(tiny, tmp_path):
    import shutil

    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny, folder)
    hub = Hub()
    with pytest.raises(MissingError, match=r"has no README.md; publish a checkpoint that"):
        push_checkpoint(folder, to="hf:org/name", api=hub)
    (folder / "README.md").write_text("# card")
    (folder / "negbench.json").write_text(json.dumps({"stage": "rl"}))
    (folder / "notes.txt").write_text("private")
    address = push_checkpoint(folder, to="hf:org/name", private=True, api=hub)
    assert address == "https://hub/org/name/commit/1"
    assert hub.made == ("org/name", "model", True, True)
    assert set(hub.files) >= {"README.md", "negbench.json", "config.json", "model.safetensors",
                              "tokenizer.json"}  # fmt: skip
    assert "notes.txt" not in hub.files
    assert hub.message.startswith("NegOpt, rl")
    with pytest.raises(DataError, match=r"hub refused org/name: 401 .* `hf auth login`"):
        push_checkpoint(folder, to="hf:org/name", api=Hub(refuses=True))
    for to in ("org/name", "hf:name", "hf:a/b/c"):
        with pytest.raises(ConfigError, match="is not hf:org/name"):
            push_checkpoint(folder, to=to, api=hub)
    with pytest.raises(MissingError, match=r"checkpoint .*nowhere: there is no such folder"):
        push_checkpoint(tmp_path / "nowhere", to="hf:a/b", api=hub)


class Known:
    def pairs(self):
        return [Pair(id=f"p{i}", prompt=f"a cat number {i}", negative=f"blurry, bad {i}")
                for i in range(9)]  # fmt: skip

    def digest(self):
        return "known"


def method(**params):
    return Llm(build_config(Llm.Config, params, owner="method llm"), training=Known())


CASES = [Case(id="a", prompt="a {examples} dog"), Case(id="b", prompt="a car\nat night")]


def test_llm_asks_with_examples_of_the_training_split():
    asked = method(model="m", endpoint="http://localhost:1/v1", shots=2).asked(CASES[0])
    assert asked.count("Negative prompt:") == 3
    assert asked.endswith("Prompt: a {examples} dog\nNegative prompt:")
    plain = method(model="m", endpoint="http://localhost:1/v1", shots=0, template="{prompt}!")
    assert plain.asked(CASES[1]) == "a car at night!"
    assert first_line('\n  Negative prompt: "dark, blurry"\nBecause') == "dark, blurry"
    for wrong in ({"template": "no"}, {"endpoint": "ftp://x"}, {"endpoint": "http://a:b@c/"}):
        with pytest.raises(ConfigError, match="method llm"):
            method(**{"model": "m", **wrong})


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setattr(llm, "WAITS", (0.0, 0.0))
    seen = []
    plan = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers.get("Authorization"), body))
            status, answer = plan.pop(0) if plan else (200, "Negative prompt: dark, dark, ugly")
            data = answer if isinstance(answer, bytes) else json.dumps(
                {"choices": [{"message": {"content": answer}}]}
            ).encode()  # fmt: skip
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen, plan
    server.shutdown()
    server.server_close()
    thread.join()


def test_llm_behind_an_endpoint(endpoint, monkeypatch, tmp_path):
    address, seen, plan = endpoint
    monkeypatch.setenv("MY_KEY", "s3cret")
    asking = method(model="m", endpoint=address, key_env="MY_KEY", shots=1)
    plan[:] = [(503, "busy"), (200, "dark")]
    found = asking.treat(CASES, seed=0)
    assert [t.negative_text() for t in found] == ["dark", "dark, ugly"]
    assert [path for path, _, _ in seen] == ["/v1/chat/completions"] * 3
    assert seen[0][1] == "Bearer s3cret"
    assert seen[0][2]["model"] == "m"
    assert asking.treat(CASES, seed=0) == found  # kept
    assert len(seen) == 3
    assert "s3cret" not in asking.ref("llm").model_dump_json()
    assert "MY_KEY" not in asking.ref("llm").model_dump_json()
    from negbench.store import default_cache

    assert not any(b"s3cret" in p.read_bytes() for p in default_cache().rglob("*") if p.is_file())

    def refused(*answers, match, error=MissingError):
        plan[:] = answers
        with pytest.raises(error, match=match):
            method(model="m2", endpoint=address, key_env="MY_KEY", shots=0).treat(CASES, seed=0)

    refused((401, "no"), match=r"refuses the key; put one into \$MY_KEY")
    refused((404, "no"), match="status 404")
    before = len(seen)
    refused((500, ""), (500, ""), (500, ""), match="status 500.*the same command goes on")
    assert len(seen) == before + 3
    refused((200, b"<html>"), match="did not answer with a chat completion", error=DataError)


def test_llm_of_transformers_is_greedy_and_pinned(tmp_path):
    import torch
    from tiny_t5 import build_tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "gpt"
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_layer=1, n_head=2, n_embd=16, n_positions=512,
                   bos_token_id=1, eos_token_id=1)
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    local = method(model=str(folder), shots=1, max_new_tokens=6)
    local.check()
    found = local.treat(CASES, seed=0)
    assert [t.prompt for t in found] == [case.prompt for case in CASES]
    assert local.treat(CASES[1:], seed=0) == found[1:]
    assert str(folder) not in local.ref("llm").model_dump_json()
    assert "sha256:model" in local.ref("llm").params
    with pytest.raises(MissingError, match="model=org/name is not on this machine"):
        method(model="org/name").check()
    (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="does not work as a causal language model"):
        method(model=str(folder)).treat(CASES, seed=0)
