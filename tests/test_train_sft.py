"""Fine-tuning: it learns, goes on bit for bit, and says what is wrong in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from tiny_t5 import same_tensors, write_tiny_t5
from typer.testing import CliRunner

from negbench.cli import app
from negbench.errors import ConfigError, MissingError, NegbenchError, StorageError
from negbench.train import folder as folders
from negbench.train import sft
from negbench.train.base_model import load_base
from negbench.train.sft import SftSettings, train_sft
from negbench.train.writing import Pen


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return write_tiny_t5(tmp_path_factory.mktemp("tiny-t5"))


def settings(base, **more):
    values = {
        "base": str(base), "steps": 6, "batch_size": 8, "lr": 1e-2, "eval_every": 3,
        "eval_pairs": 16, "eval_written": 8, "longest": 16,
    }  # fmt: skip
    return SftSettings(**{**values, **more})


def lines(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_a_stopped_run_ends_where_an_undisturbed_one_does(tiny, tmp_path, monkeypatch):
    train_sft(settings(tiny), out=tmp_path / "whole", save_every=1)
    learn = sft._Sft._learn
    for stop_at in (2, 5):

        def stop(self, at=stop_at):
            if self.step == at:
                raise KeyboardInterrupt
            return learn(self)

        monkeypatch.setattr(sft._Sft, "_learn", stop)
        with pytest.raises(KeyboardInterrupt):
            train_sft(settings(tiny), out=tmp_path / "torn", save_every=2)
    monkeypatch.setattr(sft._Sft, "_learn", learn)
    figures = train_sft(settings(tiny), out=tmp_path / "torn", save_every=2)
    assert same_tensors(tmp_path / "whole" / "checkpoint", tmp_path / "torn" / "checkpoint")
    assert lines(tmp_path / "torn") == lines(tmp_path / "whole")
    assert figures["step"] in (3, 6)
    again = train_sft(settings(tiny), out=tmp_path / "torn", save_every=2)
    assert again == figures
    card = (tmp_path / "torn" / "checkpoint" / "README.md").read_text()
    assert "tag precision" in card
    assert "library_name: transformers" in card


def test_it_learns_and_stops_early(tiny, tmp_path):
    figures = train_sft(settings(tiny, steps=60, eval_every=15), out=tmp_path / "a")
    rows = lines(tmp_path / "a")
    assert figures["validation_loss"] < 0.8 * 5.34  # ln(208): knowing nothing
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"]
    wild = settings(tiny, steps=60, eval_every=1, lr=1.0, patience=2)
    best = train_sft(wild, out=tmp_path / "b")
    assert len(lines(tmp_path / "b")) < 60
    assert best["validation_loss"] == min(row["validation_loss"] for row in lines(tmp_path / "b"))


def test_accumulated_batches_are_one_large_batch(tiny, tmp_path):
    shared = {"steps": 2, "eval_every": 2}
    for name, more in (("one", {"batch_size": 8}), ("four", {"batch_size": 2, "accumulate": 4})):
        base = load_base(str(tiny))
        base.model.config.dropout_rate = 0.0
        train_sft(settings(_no_dropout(tiny, tmp_path), **shared, **more), out=tmp_path / name)
    one, four = lines(tmp_path / "one")[-1], lines(tmp_path / "four")[-1]
    assert one["loss"] == pytest.approx(four["loss"], rel=1e-4)
    assert one["validation_loss"] == pytest.approx(four["validation_loss"], rel=1e-4)


def _no_dropout(tiny, tmp_path):
    import shutil

    folder = tmp_path / "no-dropout"
    if not folder.exists():
        shutil.copytree(tiny, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "dropout_rate": 0.0}))
    return folder


def test_half_precision_trains(tiny, tmp_path):
    found = train_sft(settings(tiny, precision="bf16", steps=3), out=tmp_path / "a")
    assert found["validation_loss"] < 6


def test_log_chances_and_writing_agree_with_a_plain_loop(tiny):
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = T5ForConditionalGeneration.from_pretrained(tiny).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "EncDecAttention" in name or name == "shared.weight":
                weight.normal_(std=0.7, generator=torch.Generator().manual_seed(len(name)))
    pen = Pen(model, tokenizer, device=torch.device("cpu"))
    prompts = ["a red cat", "a professor with glasses in the fog , night", "house"]
    likeliest = pen.write(prompts, max_new_tokens=9)
    sampled = pen.write(prompts, max_new_tokens=9, seed=3, temperature=1.5)
    assert sampled.raw == pen.write(prompts, max_new_tokens=9, seed=3, temperature=1.5).raw
    assert sampled.raw != pen.write(prompts, max_new_tokens=9, seed=4, temperature=1.5).raw
    ids, mask = pen.read(prompts)
    from negbench.train.writing import Batch

    for written, temperature in ((likeliest, 1.0), (sampled, 1.5)):
        chances = pen.log_chances(Batch(ids, mask, written.tokens), temperature=temperature)
        for i, prompt in enumerate(prompts):
            encoded = torch.tensor([tokenizer(prompt)["input_ids"]])
            said = [0]
            for t, token in enumerate(t for t in written.tokens[i].tolist() if t >= 0):
                with torch.no_grad():
                    logits = model(
                        input_ids=encoded, decoder_input_ids=torch.tensor([said])
                    ).logits[0, -1, : len(tokenizer)]
                expected = torch.log_softmax(logits / temperature, -1)
                assert torch.allclose(expected, chances[i, t], atol=1e-4)
                if written is likeliest:
                    assert token == int(logits.argmax())
                said.append(token)


def test_samples_come_from_the_softmax(tiny):
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = T5ForConditionalGeneration.from_pretrained(tiny).eval()
    pen = Pen(model, tokenizer, device=torch.device("cpu"))
    written = pen.write(["a cat"] * 4000, max_new_tokens=1, seed=0, temperature=0.5)
    ids, mask = pen.read(["a cat"])
    from negbench.train.writing import Batch

    with torch.no_grad():
        chances = pen.log_chances(
            Batch(ids, mask, torch.zeros((1, 1), dtype=torch.long)), temperature=0.5
        )[0, 0].exp()
    seen = torch.bincount(written.tokens[:, 0], minlength=len(chances)) / 4000
    assert float((seen - chances).abs().max()) < 4 * (0.25 / 4000) ** 0.5


def test_another_question_needs_another_folder(tiny, tmp_path):
    train_sft(settings(tiny, steps=1, eval_every=1), out=tmp_path)
    with pytest.raises(ConfigError, match=r"other settings \(lr was 0.01, is 0.02\)"):
        train_sft(settings(tiny, steps=1, eval_every=1, lr=2e-2), out=tmp_path)
    train_sft(settings(tiny, steps=1, eval_every=1, lr=2e-2), out=tmp_path, restart=True)


def test_two_runs_do_not_write_into_one_folder(tiny, tmp_path):
    asked = settings(tiny, steps=1, eval_every=1)
    train_sft(asked, out=tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with (
        folders.held(tmp_path),
        pytest.raises(ConfigError, match="another training run is writing to"),
    ):
        train_sft(asked, out=tmp_path, restart=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    train_sft(asked, out=tmp_path)


def test_a_full_disk_leaves_the_checkpoint_before(tiny, tmp_path, monkeypatch):
    train_sft(settings(tiny, steps=3), out=tmp_path)
    before = (tmp_path / "checkpoint").resolve()
    write = folders.write_model

    def full(*args, **kwargs):
        write(*args, **kwargs)
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(folders, "write_model", full)
    run = folders.RunFolder(tmp_path, json.loads((tmp_path / "run.json").read_text())["settings"],
                            restart=False)  # fmt: skip
    base = load_base(str(tiny))
    with pytest.raises(StorageError, match="disk is full; free some space"):
        run.publish(base.model, base.tokenizer, step=9, card="", facts={}, half=False)
    assert (tmp_path / "checkpoint").resolve() == before
    assert not list((tmp_path / "checkpoints").glob(".step*"))
    load_base(str(tmp_path / "checkpoint"))


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tiny, tmp_path, monkeypatch):
    train_sft(settings(tiny, steps=3), out=tmp_path)
    before = (tmp_path / "checkpoint").resolve()

    class Killed(BaseException):
        pass

    def killed(model, tokenizer, folder, *, half):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half a")
        raise Killed

    monkeypatch.setattr(folders, "write_model", killed)
    run = folders.RunFolder(tmp_path, json.loads((tmp_path / "run.json").read_text())["settings"],
                            restart=False)  # fmt: skip
    base = load_base(str(tiny))
    with pytest.raises(Killed):
        run.publish(base.model, base.tokenizer, step=9, card="", facts={}, half=False)
    assert (tmp_path / "checkpoint").resolve() == before
    monkeypatch.undo()
    run.publish(base.model, base.tokenizer, step=9, card="", facts={}, half=False)
    assert (tmp_path / "checkpoint").resolve().name == "step-000009"


def test_nan_is_told_in_one_line(tiny, tmp_path, monkeypatch):
    settings_ = settings(tiny, steps=6, eval_every=2)
    batch = Pen.batch
    calls = []

    def poisoned(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 9:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))
        return batch(self, *args, **kwargs)

    monkeypatch.setattr(Pen, "batch", poisoned)
    with pytest.raises(ConfigError, match=r"not finite at step .*last good checkpoint is"):
        train_sft(settings_, out=tmp_path)
    monkeypatch.undo()
    load_base(str(tmp_path / "checkpoint"))


def test_bases_that_do_not_fit(tiny, tmp_path):
    import shutil

    from transformers import GPT2Config

    causal = tmp_path / "gpt"
    GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=30).save_pretrained(causal)
    with pytest.raises(ConfigError, match=r"--base .* not a sequence-to-sequence model"):
        load_base(str(causal))
    with pytest.raises(MissingError, match=r"--base google-t5/t5-small is not on this machine"):
        load_base("t5-small")
    with pytest.raises(MissingError, match="--base nowhere: there is no such folder"):
        load_base("nowhere")
    large = tmp_path / "large"
    shutil.copytree(tiny, large)
    words = json.loads((large / "tokenizer.json").read_text())
    words["model"]["vocab"] = {**words["model"]["vocab"], "zebra": 4000}
    (large / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ConfigError, match=r"--base .*do not belong together"):
        load_base(str(large))
    bare = write_tiny_t5(tmp_path / "bare", weights=False)
    first, second = load_base(str(bare), seed=0), load_base(str(bare), seed=1)
    assert first.digest != second.digest
    torn = tmp_path / "torn"
    shutil.copytree(tiny, torn)
    (torn / "model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(NegbenchError, match=r"model.safetensors"):
        load_base(str(torn))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--stage", "dpo"], "unknown --stage 'dpo'"),
        (["--stage", "sft", "--init", "x"], "--init belongs to --stage rl"),
        (["--stage", "rl", "--likes", "log"], "--likes belongs to --stage sft"),
        (["--stage", "sft", "--likes", "many"], "--likes many: input should be"),
        (["--stage", "sft", "--base", "nowhere"], "--base nowhere: there is no such folder"),
        (["--stage", "sft", "--db", "nowhere"], "--db nowhere: split train is needed"),
        (["--stage", "sft", "--precision", "fp16", "--device", "cpu"], "fp16 needs a GPU"),
        (["--stage", "rl", "--init", "nowhere"], "--init nowhere: there is no such folder"),
        (["--stage", "rl", "--reward", "inception_score=1"], "a set of images.* take fidelity"),
        (["--stage", "rl", "--reward", "beauty=1"], "unknown metric 'beauty'"),
        (["--stage", "rl", "--reward", "aesthetic=much"], "the weight is not a number"),
        (["--stage", "rl", "--reward", "aesthetic=0"], "all weights are zero"),
        (["--stage", "rl", "--reward", "lpips=1"], "lpips"),
        (["--stage", "rl", "--metric-param", "head=x"], "write METRIC.KEY=VALUE"),
        (["--stage", "rl", "--db", "nowhere", "-b", "miniature-quality", "--init", "miniature"],
         "--db nowhere: split train is needed"),
        (["--stage", "rl", "--db", "nowhere", "-b", "miniature-quality"], "give --init"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments, said, tmp_path, monkeypatch):
    import re

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "negopt", *arguments])
    assert isinstance(result.exception, NegbenchError), result.output
    assert re.search(said, str(result.exception)), str(result.exception)
    assert "\n" not in str(result.exception)


def test_tensorboard_without_its_package_is_one_line(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingError, match=r"install negbench\[tensorboard\]"):
        train_sft(settings(tiny, steps=1), out=tmp_path, tensorboard=True)


@pytest.mark.slow
def test_a_killed_process_goes_on(tiny, tmp_path):
    command = [
        sys.executable, "-m", "negbench", "train", "negopt", "--stage", "sft", "--base", str(tiny),
        "--steps", "40", "--batch-size", "8", "--eval-every", "10", "--eval-pairs", "16",
        "--eval-written", "8", "--longest", "16", "--save-every", "3", "--json",
    ]  # fmt: skip
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    out = tmp_path / "torn"
    for lines_seen in (1, 2):
        child = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)  # fmt: skip
        log = out / "metrics.jsonl"
        while child.poll() is None and (
            not log.exists() or log.read_text().count("\n") < lines_seen
        ):
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    assert same_tensors(tmp_path / "whole" / "checkpoint", out / "checkpoint")
    assert lines(out) == lines(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_learn_together(tiny, tmp_path):
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "-m", "negbench", "train", "negopt", "--stage", "sft", "--base", str(tiny), "--steps", "4",
        "--batch-size", "8", "--eval-every", "2", "--eval-pairs", "16", "--eval-written", "8",
        "--longest", "16", "--device", "cpu", "--out", str(tmp_path / "two"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    load_base(str(tmp_path / "two" / "checkpoint"))
    assert [row["step"] for row in lines(tmp_path / "two")] == [2, 4]
