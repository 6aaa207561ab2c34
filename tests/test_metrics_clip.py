from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tiny_clip import WORDS, make_clip

from negbench.errors import ConfigError, DataError, MissingError, UnknownNameError
from negbench.metrics import networks
from negbench.metrics.base import Item
from negbench.metrics.clip import ClipAlignment, ClipToNegative, cosine
from negbench.metrics.clip_network import ClipNetwork
from negbench.types import Case

SHORT = ["a red cat", "the old house with snow", "", "blurry"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "words")


@pytest.fixture(scope="module")
def network(folder):
    return ClipNetwork(f"local-dir:{folder}")


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    folder = make_clip(tmp_path_factory.mktemp("bpe"), words=False, context=77)
    return ClipNetwork(f"local-dir:{folder}")


def pictures(n: int, *, size: int = 40, seed: int = 0):
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8))


def item(image, prompt: str, negative: str, network: ClipNetwork, spec: str) -> Item:
    texts = [prompt, negative]
    return Item(
        image="x",
        pixels=image,
        case=Case(id="1", prompt=prompt),
        negative=negative,
        twin=None,
        evaluations=1,
        features={spec: network.embed_images([image])[0]},
        text_features={
            (spec, text): row for text, row in zip(texts, network.embed_texts(texts), strict=True)
        },
    )


def test_images_as_open_clip_makes_them(network, folder):
    import open_clip
    import torch
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    images = pictures(5, size=48)
    with torch.no_grad():
        batch = torch.stack([preprocess(Image.fromarray(image)) for image in images])
        wanted = model.eval().encode_image(batch, normalize=True).numpy()
    np.testing.assert_allclose(network.embed_images(images), wanted, rtol=1e-5, atol=1e-6)


def test_short_texts_are_open_clips_own(network, folder):
    import open_clip
    import torch

    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    padded = [*SHORT, *[SHORT[-1]] * (network.batch_size - len(SHORT))]
    with torch.no_grad():
        wanted = model.encode_text(tokenizer(padded), normalize=True).numpy()[: len(SHORT)]
    np.testing.assert_array_equal(network.embed_texts(SHORT), wanted)


def test_features_do_not_depend_on_batch_mates(network):
    images = pictures(network.batch_size + 3)
    together = network.embed_images(images)
    alone = np.concatenate([network.embed_images([image]) for image in images[:3]])
    np.testing.assert_array_equal(together[:3], alone)
    np.testing.assert_array_equal(together, network.embed_images(images[::-1])[::-1])
    texts = [f"{a} {b}" for a in WORDS[:7] for b in WORDS[7:14]]
    together = network.embed_texts(texts)
    np.testing.assert_array_equal(together, network.embed_texts(texts[::-1])[::-1])
    np.testing.assert_array_equal(together[5], network.embed_texts([texts[5]])[0])


@pytest.mark.parametrize("kind", ["network", "bpe"])
def test_long_texts_lose_no_word(kind, request):
    net = request.getfixturevalue(kind)
    tags = [f"{a} {b}" for a in WORDS for b in WORDS[:6]]
    text = ", ".join(tags)
    cut = net.text_windows(text)
    assert len(cut) > 1
    assert all(size <= net.capacity for _, size in cut)
    assert "".join(window for window, _ in cut) == text
    assert all(window.rstrip().endswith(",") for window, _ in cut[:-1])
    rows = net.embed_texts([window for window, _ in cut]).astype(np.float64)
    mean = sum(row * size for row, (_, size) in zip(rows, cut, strict=True))
    np.testing.assert_allclose(net.embed_texts([text])[0], mean / np.linalg.norm(mean), rtol=1e-6)


def test_the_end_of_a_long_text_counts(network):
    start = ", ".join(["a photo of a cat"] * 6)
    first, second = network.embed_texts([f"{start}, red hat", f"{start}, old car"])
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("kind", ["network", "bpe"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(" ", id="blank"),
        pytest.param("\0", id="nul"),
        pytest.param("cat\0dog", id="nul inside"),
        pytest.param("a" * 20_000, id="one word"),
        pytest.param("cat " * 5_000, id="many words"),
        pytest.param("," * 20_000, id="commas"),
        pytest.param("cat," * 5_000, id="tags"),
        pytest.param("é汉🙂" * 6_000, id="unicode"),
        pytest.param("a\n,b;", id="mix"),
    ],
)
def test_hostile_texts(kind, text, request):
    net = request.getfixturevalue(kind)
    row = net.embed_texts([text])
    assert row.shape == (1, 16)
    assert row.dtype == np.float32
    assert np.linalg.norm(row[0]) == pytest.approx(1, abs=1e-5)


def test_torchmetrics_agrees_on_short_text(bpe):
    import torch
    from torchmetrics.functional.multimodal import clip_score

    class Model:
        config = None

        def to(self, device):
            return self

        def get_image_features(self, pixel_values):
            return bpe.model.encode_image(pixel_values)

        def get_text_features(self, input_ids, attention_mask):
            return bpe.model.encode_text(input_ids)

    class Processor:
        def __call__(self, *, images=None, text=None, **_):
            if images is not None:
                made = [bpe.preprocess(i.permute(1, 2, 0).numpy()) for i in images]
                return {"pixel_values": torch.from_numpy(np.stack(made))}
            ids = bpe.tokenizer(text)
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    spec = "clip:x"
    metric = ClipAlignment()
    metric._spec = lambda: spec
    wanted, ours = [], []
    for image, text in zip(pictures(4), ["a cat", "old house at night", "dog", "x"], strict=True):
        for shown in (image, 255 - image):
            with torch.no_grad():
                tensor = torch.from_numpy(shown.transpose(2, 0, 1).copy())
                value = clip_score(tensor, text, model_name_or_path=lambda: (Model(), Processor()))
            wanted.append(float(value))
            ours.append(metric.score([item(shown, text, "", bpe, spec)])[0].value)
    assert max(wanted) > 1
    np.testing.assert_allclose(np.maximum(ours, 0) * 100, wanted, rtol=1e-5, atol=1e-4)


def test_both_metrics_share_one_network_and_score_their_own_text(folder):
    networks.get.cache_clear()
    config = {"clip": f"local-dir:{folder}"}
    alignment = ClipAlignment(ClipAlignment.Config(**config))
    negative = ClipToNegative(ClipToNegative.Config(**config))
    ((spec, net),) = alignment.networks().items()
    assert negative.networks()[spec] is net
    case = Case(id="1", prompt="a red cat")
    assert alignment.texts(case, "ugly") == ((spec, "a red cat"),)
    assert negative.texts(case, "ugly") == ((spec, "ugly"),)
    assert negative.texts(case, " ") == ()
    one = item(pictures(1)[0], "a red cat", "ugly", net, spec)
    image = one.features[spec].astype(np.float64)
    for metric, text in ((alignment, "a red cat"), (negative, "ugly")):
        wanted = float(image @ one.text_features[spec, text].astype(np.float64))
        assert metric.score([one])[0].value == pytest.approx(wanted, abs=1e-6)
    assert (alignment.higher_is_better, negative.higher_is_better) == (True, False)


def test_without_text_there_is_a_reason(network):
    spec = "clip:x"
    for cls, reason in ((ClipAlignment, "prompt is empty"), (ClipToNegative, "no negative prompt")):
        metric = cls()
        metric._spec = lambda: spec
        score = metric.score([item(pictures(1)[0], " ", "\0 ", network, spec)])[0]
        assert score.value is None
        assert reason in score.unscored


def test_a_vector_without_direction_is_a_reason():
    assert math.isnan(cosine(np.zeros(4, np.float32), np.ones(4, np.float32)))


def test_identity_is_weights_config_and_tokenizer_not_the_path(folder, tmp_path):
    ref = ClipNetwork(f"local-dir:{folder}").ref()
    same = make_clip(tmp_path / "elsewhere")
    assert ClipNetwork(f"local-dir:{same}").ref() == ref
    assert ClipNetwork(f"local-dir:{make_clip(tmp_path / 'b', seed=1)}").ref() != ref
    config = json.loads((same / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.4] * 3
    (same / "open_clip_config.json").write_text(json.dumps(config))
    assert ClipNetwork(f"local-dir:{same}").ref() != ref
    metric = ClipAlignment(ClipAlignment.Config(clip=f"local-dir:{folder}"))
    assert str(folder) not in metric.ref("clip_alignment").canonical().decode()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        [[1]],
    ],
)
def test_wrong_pictures_are_refused(network, image):
    with pytest.raises(DataError, match="an image must be"):
        network.embed_images([image])


def test_odd_pictures_are_read(network):
    one = np.full((1, 1, 3), 200, np.uint8)
    wide = np.zeros((3, 70, 3), np.uint8)
    frozen = pictures(1)[0]
    frozen.setflags(write=False)
    rows = network.embed_images([one, wide, frozen, frozen[:, ::-1]])
    assert rows.shape == (4, 16)
    assert np.isfinite(rows).all()


def test_what_is_missing_is_said(tmp_path, folder, monkeypatch):
    import torch
    from safetensors.torch import save_file

    monkeypatch.setenv("NEGBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("negbench.hub.cached_file", lambda *_, **__: None)
    with pytest.raises(MissingError, match="negbench prefetch clip:ViT-L-14/openai"):
        ClipNetwork("ViT-L-14/openai").check()
    with pytest.raises(MissingError, match="prefetch clip:hf-hub:a/b@main"):
        ClipNetwork("hf-hub:a/b@main").check()
    with pytest.raises(MissingError, match="does not exist"):
        ClipNetwork(f"local-dir:{tmp_path}").check()
    with pytest.raises(UnknownNameError, match="ViT-L-14"):
        ClipNetwork("ViT-L-41/openai").check()
    with pytest.raises(UnknownNameError, match="did you mean openai"):
        ClipNetwork("ViT-L-14/openia").check()
    with pytest.raises(UnknownNameError, match="unknown network"):
        networks.get("clap:miniature")
    broken = make_clip(tmp_path / "broken")
    (broken / "open_clip_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="no open_clip config"):
        ClipNetwork(f"local-dir:{broken}").check()
    (broken / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    (broken / "open_clip_model.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match="torn"):
        ClipNetwork(f"local-dir:{broken}").check()
    save_file({"x": torch.ones(1)}, broken / "open_clip_model.safetensors")
    other = ClipNetwork(f"local-dir:{broken}")
    other.check()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        other.embed_images(pictures(1))


def test_the_activation_follows_the_weights(tmp_path, monkeypatch):
    file = tmp_path / "open_clip_model.safetensors"
    file.write_bytes(b"weights")
    monkeypatch.setattr("negbench.hub.cached_file", lambda *_, **__: file)
    openai = ClipNetwork("ViT-L-14/openai")
    assert openai.located.quick_gelu
    assert openai.located.preprocess_cfg["interpolation"] == "bicubic"
    assert not ClipNetwork("ViT-L-14/laion2b_s32b_b82k").located.quick_gelu
    assert openai.ref() != ClipNetwork("ViT-L-14/laion2b_s32b_b82k").ref()
