"""Learning by reward with a generator that takes no time: what it learns, redoes and refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_t5 import same_tensors, write_tiny_t5

from negbench.errors import ConfigError, MissingError, NegbenchError
from negbench.generators import generators
from negbench.generators.base import Drawn, Generator, RunOptions
from negbench.metrics import ImageMetric, metrics
from negbench.train import policy, rl
from negbench.train.base_model import load_base
from negbench.train.rl import RlSettings, train_rl
from negbench.types import Case, Guidance, Ref, Score

DRAWN = []


@pytest.fixture
def tiny(tmp_path_factory):
    return write_tiny_t5(tmp_path_factory.mktemp("tiny-t5"))


@pytest.fixture(autouse=True)
def _parts(monkeypatch):
    """A generator whose pictures are brighter the more often a negative says "dark"."""
    DRAWN.clear()

    @generators.register("lamp")
    class Lamp(Generator):
        def __init__(self, config=None, *, options=None):
            self.options = options or RunOptions()

        def ref(self):
            return Ref(name="lamp")

        def default_guidance(self):
            return Guidance()

        def image_size(self):
            return 8, 8

        def evaluations(self, request):
            return 1

        def draw(self, requests):
            for request in requests:
                DRAWN.append(request.key())
                text = request.treatment.negative_text()
                light = min(200, 50 * ("dark" in text) + 9 * len(text) % 40 + request.seed % 7)
                pixels = np.full((8, 8, 3), light, np.uint8)
                yield Drawn(key=request.key(), pixels=pixels, evaluations=1)

    @metrics.register("light")
    class Light(ImageMetric):
        def score(self, items):
            return [Score.of(float(item.pixels.mean())) for item in items]

    @metrics.register("dull")
    class Dull(ImageMetric):
        higher_is_better = None

        def score(self, items):
            return [Score.of(1.0) for item in items]

    @metrics.register("constant")
    class Constant(ImageMetric):
        def score(self, items):
            return [Score.of(1.0) for item in items]


def settings(init, **more):
    values = {
        "init": str(init), "benchmark": "miniature-quality", "generator": "lamp",
        "reward": {"light": 1}, "steps": 4, "prompts": 2, "group": 4, "noises": 2, "lr": 1e-2,
        "max_new_tokens": 6, "calibration": 16, "held_out": 4, "eval_every": 2, "sheet_every": 4,
    }  # fmt: skip
    return RlSettings(**{**values, **more})


def lines(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if "seconds" not in k and k != "drawn"} for r in rows]


def test_a_stopped_run_ends_where_an_undisturbed_one_does(tiny, tmp_path, monkeypatch):
    train_rl(settings(tiny), out=tmp_path / "whole", cache=tmp_path / "one", save_every=1)
    drawn = len(DRAWN)
    assert drawn == len(set(DRAWN))
    learn = rl._Rl._learn
    for stop_at in (1, 3):

        def stop(self, *args, at=stop_at):
            if self.step == at:
                raise KeyboardInterrupt
            return learn(self, *args)

        monkeypatch.setattr(rl._Rl, "_learn", stop)
        with pytest.raises(KeyboardInterrupt):
            train_rl(settings(tiny), out=tmp_path / "torn", cache=tmp_path / "two", save_every=2)
    monkeypatch.setattr(rl._Rl, "_learn", learn)
    figures = train_rl(settings(tiny), out=tmp_path / "torn", cache=tmp_path / "two", save_every=2)
    assert same_tensors(tmp_path / "whole" / "checkpoint", tmp_path / "torn" / "checkpoint")
    assert lines(tmp_path / "torn") == lines(tmp_path / "whole")
    assert len(DRAWN) == 2 * drawn  # the torn runs drew nothing twice
    assert figures["step"] == 4
    train_rl(settings(tiny), out=tmp_path / "third", cache=tmp_path / "two")
    assert len(DRAWN) == 2 * drawn  # nor does a repeated one
    assert (tmp_path / "whole" / "curves.png").is_file()
    assert (tmp_path / "whole" / "samples" / "step-000004.png").is_file()
    facts = json.loads((tmp_path / "whole" / "checkpoint" / "negbench.json").read_text())
    (term,) = facts["reward"]["terms"]
    assert term["name"] == "light"
    assert term["scale"] > 0
    assert "light x 1" in (tmp_path / "whole" / "checkpoint" / "README.md").read_text()


def test_it_learns_what_the_reward_pays_for(tiny, tmp_path):
    wanted = settings(tiny, steps=20, prompts=4, group=8, noises=1, kl=0.0, eval_every=20, lr=2e-2)
    train_rl(wanted, out=tmp_path / "run", cache=tmp_path / "cache", save_every=20)
    rows = [row for row in lines(tmp_path / "run") if "reward" in row]
    first, last = (np.mean([r["reward"] for r in part]) for part in (rows[:4], rows[-4:]))
    assert last > first + 1.0
    assert rows[-1]["kl"] > 0
    near = settings(tiny, steps=20, prompts=4, group=8, noises=1, kl=10.0, eval_every=20, lr=2e-2)
    train_rl(near, out=tmp_path / "near", cache=tmp_path / "cache", save_every=20)
    held = [row for row in lines(tmp_path / "near") if "reward" in row]
    assert held[-1]["kl"] < rows[-1]["kl"] / 5


def test_a_reward_without_differences_is_refused(tiny, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"constant: all 16 images gain the same .* teaches"):
        train_rl(settings(tiny, reward={"constant": 1}), out=tmp_path / "a", cache=tmp_path / "c")
    with pytest.raises(ConfigError, match="dull: this metric has no better direction"):
        train_rl(settings(tiny, reward={"dull": 1}), out=tmp_path / "b", cache=tmp_path / "c")
    monkeypatch.setattr(rl, "FLAT_STEPS", 2)
    monkeypatch.setattr(rl, "guard", lambda *_, **__: 0.0)
    weigh = rl._Rl._weigh
    monkeypatch.setattr(
        rl._Rl, "_weigh", lambda self, *a, **k: ([1.0] * len(a[0]), weigh(self, *a, **k)[1])
    )
    with pytest.raises(ConfigError, match=r"equal for 2 steps.*last good checkpoint is"):
        train_rl(settings(tiny, steps=9), out=tmp_path / "d", cache=tmp_path / "c")
    load_base(str(tmp_path / "d" / "checkpoint"))


def test_checkpoints_that_do_not_fit(tiny, tmp_path):
    bare = write_tiny_t5(tmp_path / "bare", weights=False)
    with pytest.raises(MissingError, match="has no weights; fine-tune it first"):
        train_rl(settings(bare), out=tmp_path / "a", cache=tmp_path / "c")
    other = load_base(str(tiny))
    other.tokenizer.add_tokens(["zebra"])
    from negbench.train.base_model import check_same_vocabulary

    with pytest.raises(ConfigError, match="another vocabulary"):
        check_same_vocabulary(load_base(str(tiny)), other)
    train_rl(settings(tiny, steps=1, eval_every=1), out=tmp_path / "b", cache=tmp_path / "c")
    with pytest.raises(ConfigError, match="other settings"):
        train_rl(settings(tiny, steps=2, eval_every=1), out=tmp_path / "b", cache=tmp_path / "c")


def test_nan_stops_with_the_last_good_checkpoint(tiny, tmp_path, monkeypatch):
    import torch

    real = policy.policy_loss
    calls = []

    def broken(*args, **kwargs):
        calls.append(1)
        loss, kl = real(*args, **kwargs)
        return (loss * torch.nan if len(calls) > 4 else loss), kl

    monkeypatch.setattr(policy, "policy_loss", broken)
    with pytest.raises(ConfigError, match=r"not finite at step 3.*last good checkpoint"):
        train_rl(settings(tiny), out=tmp_path / "a", cache=tmp_path / "c")
    load_base(str(tmp_path / "a" / "checkpoint"))


def test_search_finds_the_tag_that_pays_within_its_budget(tiny, tmp_path):
    from negbench.adaptive import adapt, planned
    from negbench.methods.base import Pair
    from negbench.methods.search import Search
    from negbench.params import build_config
    from negbench.types import Guidance as Rule

    train_rl(settings(tiny, steps=1, eval_every=1), out=tmp_path / "run", cache=tmp_path / "c")

    class Known:
        def pairs(self):
            words = ["dark", "foggy", "ugly", "rusty", "noise", "striped", "cropped", "bow"]
            return [Pair(id=w, prompt="a cat", negative=f"{w}, blurry, low quality")
                    for w in words]  # fmt: skip

        def digest(self):
            return "known"

    def search(**params):
        values = {"reward": str(tmp_path / "run" / "checkpoint"), "images": 48, "noises": 2}
        config = build_config(Search.Config, {**values, **params}, owner="method search")
        method = Search(config, training=Known())
        method.check()
        return method

    cases = [Case(id=f"c{i}", prompt=p) for i, p in enumerate(["a cat", "a red car", "fog"])]
    lamp = generators.get("lamp")()
    DRAWN.clear()

    def run(method, cache):
        return adapt(method, "search", cases, generator=lamp, guidance=Rule(), cache=cache)

    found, notes = run(search(), tmp_path / "s")
    assert all("dark" in item.negative_text() for item in found)
    assert len(set(DRAWN)) == len(DRAWN) <= 3 * (48 + 2)
    assert "a prompt, on noises that are not the benchmark's" in notes[0]
    drawn = len(DRAWN)
    assert run(search(), tmp_path / "s")[0] == found
    for kept in (tmp_path / "s" / "treatments").iterdir():
        kept.unlink()
    assert run(search(), tmp_path / "s")[0] == found  # replayed from the stores
    assert len(DRAWN) == drawn
    alone = adapt(search(), "search", cases[1:2], generator=lamp, guidance=Rule(),
                  cache=tmp_path / "t")  # fmt: skip
    assert alone[0] == found[1:2]
    assert planned(search(), cases)[1] == [
        "the search comes first and draws at most 144 images beside their twins"
    ]
    with pytest.raises(MissingError, match="there is no such checkpoint"):
        search(reward="nowhere")
    with pytest.raises(ConfigError, match="less than one list on 2 noises"):
        search(images=1)
    with pytest.raises(MissingError, match="holds no frozen reward"):
        search(reward=str(tiny))


def test_evaluate_runs_an_adaptive_method(tiny, tmp_path):
    from negbench.evaluate import evaluate
    from negbench.plan import make_plan

    train_rl(settings(tiny, steps=1, eval_every=1), out=tmp_path / "run", cache=tmp_path / "c")
    asked = {
        "methods": ["search"], "generator": "lamp", "metrics": ["light"], "limit": 2,
        "method_params": {"reward": str(tmp_path / "run" / "checkpoint"), "images": "16"},
        "out": tmp_path / "runs", "cache": tmp_path / "c",
    }  # fmt: skip
    DRAWN.clear()
    assert make_plan(**asked, dry=True).jobs[0].notes
    assert not DRAWN
    (record,) = evaluate(make_plan(**asked))
    assert record.status == "complete"
    assert any("searched with" in note for note in record.notes)


@pytest.mark.slow
def test_a_real_t5_small_and_a_tiny_sdxl_go_through_both_stages(tmp_path):
    from tiny_pipelines import make_sdxl
    from tiny_t5 import build_tokenizer
    from transformers import T5Config

    from negbench.generators.resolve import resolve
    from negbench.train.sft import SftSettings, train_sft

    base = tmp_path / "t5-small"
    T5Config(
        vocab_size=32128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    ).save_pretrained(base)  # fmt: skip
    build_tokenizer().save_pretrained(base)
    sft = SftSettings(base=str(base), steps=2, batch_size=4, eval_every=2, eval_pairs=8,
                      eval_written=4, longest=16)  # fmt: skip
    train_sft(sft, out=tmp_path / "sft")
    sdxl = make_sdxl(tmp_path / "sdxl")
    resolve(str(sdxl), params={"steps": 2})
    asked = settings(
        tmp_path / "sft" / "checkpoint", generator=str(sdxl), generator_options={"steps": 2},
        reward={"aesthetic": 1, "clip_alignment": 1, "fidelity": 1}, steps=2, lr=1e-4, noises=2,
    )  # fmt: skip
    figures = train_rl(asked, out=tmp_path / "rl", cache=tmp_path / "c")
    assert figures["step"] == 2
    assert np.isfinite(figures["reward"])
    again = load_base(str(tmp_path / "rl" / "checkpoint"))
    assert again.model.num_parameters() > 60_000_000


def test_reward_of_unknown_parameters(tiny, tmp_path):
    with pytest.raises(NegbenchError, match="has no parameter 'depth'"):
        train_rl(settings(tiny, reward={"aesthetic": 1}, metric_params={"aesthetic.depth": 3}),
                 out=tmp_path / "a", cache=tmp_path / "c")  # fmt: skip
