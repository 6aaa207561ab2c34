"""NegOpt with a tiny T5 built from a config: what it writes, and what it refuses."""

from __future__ import annotations

import json
import shutil

import pytest

from negbench.errors import ConfigError, DataError, MissingError, NegbenchError
from negbench.methods import checkpoint as checkpoints
from negbench.methods.check import treat_checked
from negbench.methods.negopt import NegOpt
from negbench.params import build_config
from negbench.types import Case

WORDS = ["blurry", "noisy", "dark", "cropped", "rusty", "a", "cat", "dog", "house", "car", "red",
         "old", "night", "tree"]  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A T5 of 20,000 parameters with a word-level tokenizer, as `save_pretrained` leaves it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("t5")
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", ",", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=48,
    )  # fmt: skip
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=32,  # more than the tokenizer has, as T5's own is padded
            d_model=32, d_kv=8, d_ff=64, num_layers=1, num_decoder_layers=2, num_heads=4,
            decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, tie_word_embeddings=False,
        )
    )  # fmt: skip
    with torch.no_grad():  # untrained, prompts would hardly matter
        for name, weight in model.named_parameters():
            if "EncDecAttention" in name or "lm_head" in name:
                weight.normal_(std=0.5)
    model.generation_config.update(do_sample=True, num_beams=3, max_new_tokens=3)  # not ours
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def negopt(folder, **params):
    params = {"checkpoint": str(folder), "max_new_tokens": 24, **params}
    return NegOpt(build_config(NegOpt.Config, params, owner="method negopt"))


def texts(method, cases, seed=0):
    return [t.negative_text() for t in treat_checked(method, "negopt", cases, seed=seed)]


CASES = [
    Case(id=f"c{i}", prompt=" ".join(WORDS[(i * 5 + j) % 14] for j in range(1 + (i * 7) % 40)))
    for i in range(13)
]


@pytest.mark.parametrize("decode", ["greedy", "beam", "sample"])
def test_answers_do_not_depend_on_the_batch(tiny, decode):
    method = negopt(tiny, decode=decode)
    together = texts(method, CASES)
    assert len(set(together)) > 3, together
    assert texts(method, CASES) == together
    assert texts(method, CASES[::-1]) == together[::-1]
    assert [texts(method, [case])[0] for case in CASES] == together
    assert texts(method, CASES[4:9]) == together[4:9]
    if decode == "sample":
        assert texts(method, CASES, seed=1) != together
    else:
        assert texts(method, CASES, seed=1) == together


def test_greedy_equals_a_plain_loop(tiny):
    """Token by token with the bare model: no padding, no batch, no `generate`."""
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    from negbench.methods.texts import tidied

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = T5ForConditionalGeneration.from_pretrained(tiny).eval()
    expected = []
    for case in CASES[:5]:
        ids = torch.tensor([tokenizer(case.prompt, truncation=True, max_length=48)["input_ids"]])
        out = [0]
        with torch.no_grad():
            while len(out) <= 24 and out[-1] != 1:
                logits = model(input_ids=ids, decoder_input_ids=torch.tensor([out])).logits[0, -1]
                out.append(int(logits[: len(tokenizer)].argmax()))
        expected.append(tidied(tokenizer.decode(out, skip_special_tokens=True)))
    assert texts(negopt(tiny, decode="greedy"), CASES[:5]) == expected


def test_sampling_draws_from_the_softmax(tiny):
    """First tokens over many seeds against the model's own probabilities."""
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = T5ForConditionalGeneration.from_pretrained(tiny).eval()
    ids = torch.tensor([tokenizer("a red cat")["input_ids"]])
    with torch.no_grad():
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits[0, -1]
    expected = torch.softmax(logits[: len(tokenizer)] / 2.0, dim=-1)
    cases = [Case(id=str(i), prompt="a red cat") for i in range(800)]
    method = negopt(tiny, decode="sample", temperature=2.0, max_new_tokens=1)
    drawn = texts(method, cases)
    for word in WORDS:
        share = drawn.count(word) / len(drawn)
        wanted = float(expected[tokenizer.convert_tokens_to_ids(word)])
        assert share == pytest.approx(wanted, abs=4 * (wanted * (1 - wanted) / 800) ** 0.5 + 1e-3)
    narrow = negopt(tiny, decode="sample", top_p=0.01, max_new_tokens=1)
    assert len(set(texts(narrow, cases[:40]))) == 1


def test_prefix_and_settings_reach_the_model(tiny):
    assert texts(negopt(tiny, prefix="old tree "), CASES) != texts(negopt(tiny), CASES)
    short = texts(negopt(tiny, max_new_tokens=1), CASES)
    assert all(len(text.split()) <= 1 for text in short)


def test_identity_is_the_files_bytes_not_their_place(tiny, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    here, there = negopt(tiny).ref("negopt"), negopt(copy).ref("negopt")
    assert here == there
    assert "checkpoint" not in here.params
    assert len(here.params["sha256:checkpoint"]) == 64
    assert negopt(tiny, decode="greedy").ref("negopt") != here
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        byte = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([byte[0] ^ 1]))
    assert negopt(copy).ref("negopt") != here


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"decode": "greedy", "temperature": "0.5"}, "need decode=sample"),
        ({"decode": "sample", "num_beams": "8"}, "needs decode=beam"),
        ({"decode": "best"}, "decode = 'best'"),
        ({"max_new_tokens": "0"}, "max_new_tokens"),
        ({"beams": "3"}, "no parameter 'beams'"),
    ],
)
def test_bad_parameters(params, said):
    with pytest.raises(NegbenchError, match=said):
        build_config(NegOpt.Config, params, owner="method negopt")


# --- checkpoints that cannot be used: refused while planning, without torch


def edited(tiny, tmp_path, **files):
    """A copy with files replaced: bytes, a JSON value, or None to delete."""
    folder = tmp_path / "edited"
    shutil.copytree(tiny, folder)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        if content is None:
            path.unlink()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("files", "kind", "said"),
    [
        ({"config__json": None}, MissingError, "no config.json"),
        ({"config__json": b"{"}, DataError, "not valid JSON"),
        ({"config__json": [1]}, DataError, "does not hold a JSON object"),
        (
            {"config__json": {"model_type": "gpt2", "vocab_size": 32}},
            ConfigError,
            "type 'gpt2', not a sequence-to-sequence model",
        ),
        ({"model__safetensors": None}, MissingError, "model.safetensors is missing"),
        (
            {"model__safetensors": None, "pytorch_model__bin": b"\x80"},
            ConfigError,
            "only pytorch_model.bin, which is not safe to load",
        ),
        ({"model__safetensors": b"PK\x03\x04" * 9}, DataError, "not a safetensors file"),
        ({"tokenizer__json": None}, MissingError, "no tokenizer"),
        (
            {"config__json": {"model_type": "t5", "is_encoder_decoder": True, "vocab_size": 9}},
            ConfigError,
            "token ids up to 17 but the model only 9",
        ),
        (
            {
                "model__safetensors": None,
                "model__safetensors__index__json": {
                    "weight_map": {"a": "model-1-of-2.safetensors"}
                },
            },
            MissingError,
            "model-1-of-2.safetensors is missing",
        ),
        (
            {
                "model__safetensors": None,
                "model__safetensors__index__json": {"weight_map": {"a": "../up.safetensors"}},
            },
            MissingError,
            "index.json is missing",
        ),
    ],
)
def test_unusable_checkpoints_are_refused(tiny, tmp_path, files, kind, said):
    folder = edited(tiny, tmp_path, **files)
    with pytest.raises(kind, match=said) as failure:
        negopt(folder).check()
    assert "\n" not in str(failure.value)


def test_a_torn_file_is_refused(tiny, tmp_path):
    whole = (tiny / "model.safetensors").read_bytes()
    folder = edited(tiny, tmp_path, model__safetensors=whole[:-100])
    with pytest.raises(DataError, match="is torn"):
        negopt(folder).check()


def test_a_checkpoint_with_weights_missing_is_refused(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny / "model.safetensors")
    kept = {key: value for key, value in weights.items() if "decoder.block.0" not in key}
    assert len(kept) < len(weights)
    folder = edited(tiny, tmp_path)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks .* weights"):
        texts(negopt(folder), CASES[:1])


def test_an_encoder_decoder_that_is_no_text_model_is_refused(tiny, tmp_path):
    folder = edited(
        tiny,
        tmp_path,
        config__json={
            "model_type": "vision-encoder-decoder",
            "is_encoder_decoder": True,
            "vocab_size": 32,
        },
    )
    with pytest.raises(ConfigError, match="does not work as a sequence-to-sequence") as failure:
        texts(negopt(folder), CASES[:1])
    assert len(str(failure.value)) < 600


def test_names_that_lead_nowhere(tmp_path):
    with pytest.raises(MissingError, match="no such folder"):
        negopt(tmp_path / "nothing").check()
    with pytest.raises(MissingError, match="no such folder"):
        negopt("just-a-word").check()
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    with pytest.raises(ConfigError, match="is a file"):
        negopt(file).check()
    command = "negbench prefetch --method negopt -p checkpoint=some/repo@v1"
    with pytest.raises(MissingError, match=command):
        negopt("some/repo@v1").check()


def test_prefetch_offline_says_so(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", unreachable)
    with pytest.raises(MissingError, match=r"cannot be fetched from .*: no route to host"):
        negopt("some/repo").prefetch()


def test_prefetch_takes_what_is_needed_and_no_pickle(tiny, monkeypatch):
    import huggingface_hub

    listed = ["README.md", "config.json", "model.safetensors", "pytorch_model.bin", "spiece.model",
              "onnx/model.safetensors", "modeling_custom.py", "tokenizer_config.json"]  # fmt: skip
    wanted = {}

    def download(repo, *, revision=None, allow_patterns=None, local_files_only=False):
        if allow_patterns is not None:
            wanted.update(repo=repo, revision=revision, files=sorted(allow_patterns))
        return str(tiny)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *a, **k: listed)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    method = negopt("some/repo@main")
    method.prefetch()
    assert wanted == {
        "repo": "some/repo",
        "revision": "main",
        "files": ["config.json", "model.safetensors", "spiece.model", "tokenizer_config.json"],
    }
    method.check()
    listed.remove("model.safetensors")
    with pytest.raises(MissingError, match=r"has no model\.safetensors"):
        method.prefetch()


def test_default_checkpoint_is_the_miniatures(tiny, monkeypatch):
    from negbench import miniature

    monkeypatch.setattr(miniature, "negopt_dir", lambda: tiny)
    method = NegOpt()
    method.check()
    assert checkpoints.locate("miniature") == tiny
    assert method.notes(CASES)[0].startswith("negopt: checkpoint miniature (")
    monkeypatch.setattr(miniature, "negopt_dir", lambda: tiny / "gone")
    with pytest.raises(MissingError, match="reinstall negbench"):
        NegOpt().check()


def test_checking_loads_no_torch(tiny):
    import subprocess
    import sys

    code = (
        "import sys; from negbench.methods.negopt import NegOpt;"
        f"NegOpt(NegOpt.Config(checkpoint={str(tiny)!r})).ref('negopt');"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
