from __future__ import annotations

import json
import math

import numpy as np
import pytest

from negbench.errors import ConfigError, DataError, MissingError
from negbench.metrics import metrics, networks, weights
from negbench.metrics.aesthetic import LAION_V2, Aesthetic
from negbench.metrics.base import Item
from negbench.metrics.cost import Evaluations
from negbench.metrics.damage import Lpips, NoOp, Psnr, Ssim
from negbench.metrics.inception import InceptionScore, probabilities
from negbench.types import Case


@pytest.fixture(autouse=True)
def _own_networks():
    """No test leaves behind a network that it read from a folder of its own."""
    yield
    networks.get.cache_clear()


SPEC = "inception:miniature"


def picture(seed: int = 0, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def item(image, twin=None, **features) -> Item:
    return Item(
        image=f"{abs(hash(image.tobytes())):064x}"[:64],
        pixels=image,
        case=Case(id="1", prompt="a cat"),
        negative="",
        twin=twin,
        evaluations=50,
        features=features,
    )


def logits(n: int = 60, classes: int = 11, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, classes)) * 3).astype(np.float32)


def rows_of(values: np.ndarray) -> np.ndarray:
    image = picture(size=2)
    return InceptionScore().rows([item(image, **{SPEC: row}) for row in values])


# Inception Score


def test_inception_score_equals_torch_fidelity():
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    raw = logits(997, 40)
    rows = rows_of(raw)
    metric = InceptionScore()
    whole = isc_features_to_metric(torch.from_numpy(raw), splits=1, shuffle=False)
    assert metric.value(rows) == pytest.approx(whole["inception_score_mean"], rel=1e-5)
    ten = isc_features_to_metric(torch.from_numpy(raw), splits=10, shuffle=True, rng_seed=2020)
    made = metric.customary(rows)
    assert made["mean of 10 splits"] == pytest.approx(ten["inception_score_mean"], rel=1e-5)
    assert made["sd of 10 splits"] == pytest.approx(ten["inception_score_std"], rel=1e-5)
    assert metric.customary(rows[:9]) == {}


def test_inception_score_equals_torchmetrics():
    import torch
    from torchmetrics.image.inception import InceptionScore as Theirs

    raw = logits(300, 21)
    with pytest.warns(UserWarning, match="extracted features"):
        theirs = Theirs(feature=torch.nn.Identity(), splits=2)
    theirs.update(torch.from_numpy(raw))
    torch.manual_seed(3)
    order = torch.randperm(300).numpy()
    torch.manual_seed(3)
    mean, _ = theirs.compute()
    halves = [InceptionScore().value(rows_of(raw[half])) for half in (order[:150], order[150:])]
    assert np.mean(halves) == pytest.approx(float(mean), rel=1e-5)


def test_inception_score_of_certain_and_varied_answers_is_the_number_of_classes():
    metric = InceptionScore()
    assert metric.value(np.eye(7, dtype=np.float32)) == pytest.approx(7)
    assert metric.value(np.full((5, 4), 0.25, np.float32)) == pytest.approx(1)
    assert metric.log_value(np.eye(7, dtype=np.float32)) == pytest.approx(math.log(7))


def test_interval_and_test_equal_those_over_whole_sets_of_rows():
    from negbench.metrics.base import SetMetric

    rows, twins = rows_of(logits(40)), rows_of(logits(40, seed=1) * 0.7)
    prompts = [f"prompt {i % 8}" for i in range(40)]
    metric = InceptionScore()
    fast, slow = (cls.contrast(metric, rows, twins, prompts) for cls in (InceptionScore, SetMetric))
    assert fast.delta == pytest.approx(slow.delta)
    assert fast.ci95 == pytest.approx(slow.ci95)
    assert fast.p == pytest.approx(slow.p, abs=0.05)
    assert metric.contrast(rows, rows, prompts).p == 1
    # made on the logarithm, so it differs a little from the interval on the score itself
    fast, slow = (cls.summary(metric, rows, prompts) for cls in (InceptionScore, SetMetric))
    assert fast.value == pytest.approx(slow.value)
    assert fast.ci95 == pytest.approx(slow.ci95, rel=0.05)


def test_probabilities_of_large_logits_are_exact():
    raw = np.array([[1e4, 0.0, -1e4], [88.8, 88.8, 88.8]], np.float32)
    np.testing.assert_allclose(probabilities(raw), [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)
    with pytest.raises(DataError, match="no finite answer"):
        rows_of(np.array([[np.nan, 1.0]], np.float32))


# Damage to the twin


def test_ssim_and_psnr_by_their_formulas():
    from scipy.ndimage import gaussian_filter

    first, second = picture(0), picture(1)
    second = (0.7 * first + 0.3 * second).astype(np.uint8)
    x, y = first / 255.0, second / 255.0

    def blur(z):
        return gaussian_filter(z, sigma=(1.5, 1.5, 0), truncate=3.5, mode="mirror")

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    ssim = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert Ssim().score([item(first, second)])[0].value == pytest.approx(ssim.mean(), rel=1e-5)
    psnr = -10 * math.log10(((x - y) ** 2).mean())
    assert Psnr().score([item(first, second)])[0].value == pytest.approx(psnr, rel=1e-5)


def test_damage_of_pairs_equals_torchmetrics_in_a_batch():
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    pairs = [(picture(i), (0.8 * picture(i) + 0.2 * picture(i + 10))) for i in range(4)]
    pairs = [(first, second.astype(np.uint8)) for first, second in pairs]

    def batch(side):
        return torch.from_numpy(np.stack([p[side] for p in pairs]).transpose(0, 3, 1, 2) / 255.0)

    theirs = ssim(batch(0), batch(1), data_range=1.0, reduction="none").numpy()
    ours = [s.value for s in Ssim().score([item(*pair) for pair in pairs])]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_equal_pictures():
    image = picture()
    pair = [item(image, image.copy())]
    assert Ssim().score(pair)[0].value == pytest.approx(1)
    assert Psnr().score(pair)[0].unscored == "equal to its twin"
    assert NoOp().score(pair)[0].value == 1
    changed = image.copy()
    changed[0, 0, 0] ^= 1
    assert NoOp().score([item(changed, image)])[0].value == 0
    assert Psnr().score([item(changed, image)])[0].value > 60


@pytest.mark.parametrize("metric", [Ssim(), Psnr(), NoOp(), Lpips()])
def test_a_twin_itself_has_a_reason(metric):
    assert metric.score([item(picture())])[0].unscored == "no twin to compare with"
    assert "another size" in metric.score([item(picture(), picture(size=32))])[0].unscored
    with pytest.raises(DataError, match="uint8"):
        metric.score([item(picture().astype(np.float32), picture())])


def test_pictures_too_small_to_compare():
    one, other = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    assert "too small" in Ssim().score([item(one, other)])[0].unscored
    assert "too small" in Lpips().score([item(one, other)])[0].unscored
    assert Psnr().score([item(one, other)])[0].value == pytest.approx(0, abs=1e-5)
    assert Ssim().score([item(picture(size=6), picture(1, size=6))])[0].value is not None


def test_evaluations_are_counted():
    assert Evaluations().score([item(picture())])[0].value == 50


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_equals_torchmetrics_with_the_same_trunk(net, monkeypatch):
    import torch
    import torchvision
    from torchmetrics.functional.image.lpips import _LPIPS

    torch.manual_seed(0)
    trunk = getattr(torchvision.models, {"alex": "alexnet", "vgg": "vgg16"}[net])().features
    state = {f"features.{key}": value for key, value in trunk.state_dict().items()}
    state["classifier.0"] = torch.ones(1)
    monkeypatch.setattr(weights, "load_pickle", lambda name: state)
    monkeypatch.setattr(
        "torchmetrics.functional.image.lpips._get_tv_model_features", lambda *_, **__: trunk
    )
    theirs = _LPIPS(pretrained=True, net=net).eval()
    metric = Lpips(Lpips.Config(net=net))
    side = 31 if net == "alex" else 16
    for first, second in ((picture(0), picture(1)), (picture(2, side), picture(3, side))):
        one, other = (
            torch.from_numpy(p.transpose(2, 0, 1)[None] / 127.5 - 1).float()
            for p in (first, second)
        )
        with torch.no_grad():
            wanted = float(theirs(one, other))
        score = metric.score([item(first, second)])[0]
        assert score.value == pytest.approx(wanted, rel=1e-5)
        assert wanted > 0
    assert metric.score([item(picture(), picture())])[0].value == pytest.approx(0, abs=1e-7)


def test_lpips_is_refused_while_planning_without_its_trunk(tmp_path, monkeypatch):
    monkeypatch.setenv("NEGBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingError, match="negbench prefetch lpips-alex"):
        Lpips().check()


# Aesthetic


def head_folder(folder, config, module):
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(module.state_dict(), folder / "model.safetensors")
    return Aesthetic(Aesthetic.Config(head=f"local-dir:{folder}"))


def unit(n: int, d: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_head_scores_each_embedding_alone(tmp_path):
    from negbench.metrics.heads import AestheticHead

    config = {"input_dim": 16, "hidden": [8], "activation": "relu", "clip": "local-dir:/nowhere"}
    module = AestheticHead(16, hidden=(8,), activation="relu")
    metric = head_folder(tmp_path / "head", config, module)
    rows = unit(40, 16)
    spec = "clip:local-dir:/nowhere"
    items = [item(picture(size=2), **{spec: row}) for row in rows]
    state = {k: v.numpy().astype(np.float64) for k, v in module.state_dict().items()}
    inner = np.maximum(rows @ state["layers.0.weight"].T + state["layers.0.bias"], 0)
    wanted = (inner @ state["layers.2.weight"].T + state["layers.2.bias"]).reshape(-1)
    scores = [score.value for score in metric.score(items)]
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-6)
    assert scores[3:5] == [score.value for score in metric.score(items[3:5])]
    with pytest.raises(ConfigError, match="do not belong together"):
        metric.score([item(picture(size=2), **{spec: rows[0, :9]})])


def test_laions_head_has_laions_layers(tmp_path, monkeypatch):
    import torch
    from torch import nn

    theirs = nn.Sequential(
        nn.Linear(768, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2),
        nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
    ).eval()  # fmt: skip
    state = {f"layers.{key}": value for key, value in theirs.state_dict().items()}
    file = tmp_path / "head.pth"
    file.write_bytes(b"")
    monkeypatch.setattr(weights, "find", lambda name: file)
    monkeypatch.setattr(weights, "load_pickle", lambda name: state)
    metric = Aesthetic(Aesthetic.Config(head="laion-v2"))
    (spec,) = metric.networks()
    assert spec == f"clip:{LAION_V2.clip}" == "clip:ViT-L-14/openai"
    rows = unit(3, 768)
    scores = metric.score([item(picture(size=2), **{spec: row}) for row in rows])
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(rows)).reshape(-1).numpy()
    np.testing.assert_allclose([score.value for score in scores], wanted, rtol=1e-5, atol=1e-6)


def test_what_is_wrong_with_a_head_is_said(tmp_path, monkeypatch):
    from negbench.metrics.heads import AestheticHead

    monkeypatch.setenv("NEGBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="unknown head 'laion'"):
        Aesthetic(Aesthetic.Config(head="laion")).check()
    with pytest.raises(MissingError, match="negbench prefetch laion-v2"):
        Aesthetic(Aesthetic.Config(head="laion-v2")).check()
    with pytest.raises(MissingError, match=r"config\.json does not exist"):
        Aesthetic(Aesthetic.Config(head=f"local-dir:{tmp_path}")).check()
    config = {"input_dim": 16, "hidden": [4], "clip": "local-dir:/nowhere"}
    with pytest.raises(ConfigError, match="does not fit its description"):
        _ = head_folder(tmp_path / "a", config, AestheticHead(16)).head
    with pytest.raises(ConfigError, match="describes no head"):
        head_folder(tmp_path / "b", {"input_dim": "x"}, AestheticHead(16)).check()


# Inception v3


@pytest.fixture
def inception_state():
    """A state dict of the right shapes, with random weights."""
    import torch
    from torch_fidelity import feature_extractor_inceptionv3 as module

    class Bare(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_, **__):
            return None

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        state = Bare("x", ["logits_unbiased"]).state_dict()
    state["fc.weight"] = state["fc.weight"] * 40  # else all random answers are nearly alike
    return state


@pytest.mark.slow
def test_inception_v3_is_torch_fidelitys(inception_state, monkeypatch):
    import torch

    from negbench.metrics.classifiers import InceptionV3

    monkeypatch.setattr(weights, "load_pickle", lambda name: inception_state)
    monkeypatch.setattr(InceptionV3, "batch_size", 2)
    network = InceptionV3()
    images = [*(picture(i) for i in range(3)), picture(3, size=40), np.zeros((1, 1, 3), np.uint8)]
    made = network.embed_images(images)
    assert made.shape == (5, 1008)
    np.testing.assert_array_equal(made[2], network.embed_images([images[2]])[0])
    np.testing.assert_array_equal(made[:2], network.embed_images(images[1::-1])[::-1])
    for image, row in zip(images, made, strict=True):
        with torch.no_grad():
            wanted = network.module(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))[0][0]
        np.testing.assert_allclose(row, wanted.numpy(), rtol=1e-4, atol=1e-5)


# The miniature's classifiers


def small_net(folder, kind: str, labels: list[str]):
    import torch

    from negbench.miniature.nets import ConvClassifier

    torch.manual_seed(0)
    net = ConvClassifier(labels=labels, widths=(4, 8), kind=kind)
    for name, value in net.named_buffers():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    net.save(folder)
    return folder


@pytest.fixture
def judge(tmp_path, monkeypatch):
    folder = small_net(tmp_path / "judge", "sigmoid", ["hat", "glasses", "blurry"])
    monkeypatch.setattr("negbench.miniature.judge_dir", lambda: folder)
    networks.get.cache_clear()
    return networks.get("judge:miniature")


def test_the_judge_gives_a_probability_a_label(judge):
    import torch

    from negbench.miniature.nets import load_classifier

    assert judge.labels == ("hat", "glasses", "blurry")
    images = [picture(i) for i in range(34)]
    made = judge.embed_images(images)
    batch = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2) / 127.5 - 1).float()
    with torch.no_grad():
        wanted = torch.sigmoid(load_classifier(judge.folder)(batch)).numpy()
    np.testing.assert_allclose(made, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(made[33], judge.embed_images([images[33]])[0])
    odd = judge.embed_images([np.zeros((1, 1, 3), np.uint8), picture(size=100)])
    assert odd.shape == (2, 3)


def test_the_miniatures_inception_score(tmp_path, monkeypatch):
    folder = small_net(tmp_path / "inception", "softmax", ["cat", "dog", "house", "car"])
    monkeypatch.setattr("negbench.miniature.inception_dir", lambda: folder)
    networks.get.cache_clear()
    metric = InceptionScore()
    metric.check()
    (network,) = metric.networks().values()
    features = network.embed_images([picture(i) for i in range(5)])
    rows = metric.rows([item(picture(i), **{SPEC: row}) for i, row in enumerate(features)])
    assert rows.shape == (5, 4)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-6)
    assert 1 <= metric.value(rows) <= 4
    assert metric.ref("inception_score").params["weights"] == [network.ref().digest()]
    torn = (folder / "model.safetensors").read_bytes()[:-9]
    (folder / "model.safetensors").write_bytes(torn)
    networks.get.cache_clear()
    with pytest.raises(DataError, match="torn"):
        InceptionScore().check()
    (folder / "config.json").write_text("{}")
    networks.get.cache_clear()
    with pytest.raises(ConfigError, match="describes no classifier"):
        InceptionScore().check()
    (folder / "config.json").unlink()
    networks.get.cache_clear()
    with pytest.raises(MissingError, match="reinstall negbench"):
        InceptionScore().check()


# Registry


def test_every_metric_has_unit_direction_and_defaults():
    for name in metrics.names():
        metric = metrics.get(name)()
        assert metric.unit
        assert metric.higher_is_better in {True, False, None}


def test_rows_of_any_shape_go_in_batches_of_one_shape():
    seen = []

    def run(batch):
        seen.append(tuple(batch.shape))
        return batch.float().mean(dim=(1, 2, 3), keepdim=True).reshape(-1, 1)

    rows = [picture(i, size=(2 if i % 3 else 5)) for i in range(7)]
    made = networks.in_fixed_batches(rows, size=4, run=run)
    np.testing.assert_allclose(made[:, 0], [row.mean() for row in rows], rtol=1e-6)
    assert sorted(set(seen)) == [(4, 2, 2, 3), (4, 5, 5, 3)]
    assert networks.in_fixed_batches([], size=4, run=run).shape == (0, 0)
