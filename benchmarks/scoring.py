"""Scoring the same pictures with negbench and with the usual tools: time, ratio and equality.

The usual way is a metric at a time: torchmetrics' CLIPScore for the prompt and again for the
negative prompt, the aesthetic script picture by picture, torchmetrics' InceptionScore, SSIM and
PSNR. negbench embeds each picture once for all metrics of a CLIP.

    python benchmarks/scoring.py                      # the miniature, 1,000 pictures
    python benchmarks/scoring.py --random             # the same sizes with random weights
    python benchmarks/scoring.py --real --images 100  # ViT-L-14, Inception v3 (negbench prefetch)
    python benchmarks/scoring.py --real --random --images 32   # these sizes with random weights
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from negbench import miniature
from negbench.metrics import metrics, networks
from negbench.metrics.base import ImageMetric, Item, SetMetric
from negbench.types import Case

BATCH = 32
PARAMS: dict[str, dict[str, dict[str, Any]]] = {
    "miniature": {},
    "real": {
        "clip_alignment": {"clip": "ViT-L-14/openai"},
        "clip_to_negative": {"clip": "ViT-L-14/openai"},
        "aesthetic": {"head": "laion-v2"},
        "inception_score": {"network": "inception-v3"},
    },
}
NAMES = ("clip_alignment", "clip_to_negative", "aesthetic", "inception_score", "ssim", "psnr")


@contextmanager
def random_weights() -> Iterator[None]:
    """Stand in for the miniature's weights: the same classes and sizes, untrained."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from negbench.metrics.heads import AestheticHead
    from negbench.miniature.nets import ConvClassifier

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cfg: dict[str, Any] = {
            "embed_dim": 128,
            "vision_cfg": {
                "image_size": 64,
                "layers": 4,
                "width": 128,
                "head_width": 32,
                "patch_size": 8,
            },
            "text_cfg": {"context_length": 77, "width": 128, "heads": 4, "layers": 4},
        }
        (folder / "clip").mkdir()
        save_file(open_clip.CLIP(**cfg).state_dict(), folder / "clip/open_clip_model.safetensors")
        (folder / "clip/open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))
        (folder / "aesthetic").mkdir()
        (folder / "aesthetic/config.json").write_text('{"input_dim": 128}')
        save_file(AestheticHead(128).state_dict(), folder / "aesthetic/model.safetensors")
        labels = [f"subject {i}" for i in range(12)]
        net = ConvClassifier(labels=labels, widths=(24, 48, 96, 128), kind="softmax")
        net.head.weight.data *= 20
        net.save(folder / "inception")
        kept = miniature.weights_dir
        miniature.weights_dir = lambda: folder
        try:
            yield
        finally:
            miniature.weights_dir = kept


@contextmanager
def random_real_weights() -> Iterator[None]:
    """ViT-L-14, a head as LAION's and Inception v3 with random weights: time needs no others."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from negbench.metrics import weights
    from negbench.metrics.aesthetic import LAION_V2
    from negbench.metrics.heads import AestheticHead

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cfg = open_clip.get_model_config("ViT-L-14")
        (folder / "clip").mkdir()
        save_file(open_clip.CLIP(**cfg).state_dict(), folder / "clip/open_clip_model.safetensors")
        (folder / "clip/open_clip_config.json").write_text(json.dumps({"model_cfg": cfg}))
        (folder / "head").mkdir()
        described = {**LAION_V2.model_dump(mode="json"), "clip": f"local-dir:{folder / 'clip'}"}
        (folder / "head/config.json").write_text(json.dumps(described))
        head = AestheticHead(
            LAION_V2.input_dim,
            hidden=LAION_V2.hidden,
            dropout=LAION_V2.dropout,
            activation=LAION_V2.activation,
        )
        save_file(head.state_dict(), folder / "head/model.safetensors")
        kept, params = (weights.load_pickle, weights.find), dict(PARAMS["real"])
        blank = folder / "inception.pt"
        torch.save({}, blank)
        weights.load_pickle, weights.find = lambda _: {}, lambda _: blank
        PARAMS["real"] |= {
            "clip_alignment": {"clip": described["clip"]},
            "clip_to_negative": {"clip": described["clip"]},
            "aesthetic": {"head": f"local-dir:{folder / 'head'}"},
        }
        try:
            with mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
                yield
        finally:
            weights.load_pickle, weights.find = kept
            PARAMS["real"] = params


def scenes(
    n: int, *, size: int, seed: int = 0
) -> tuple[list[Any], list[Any], list[str], list[str]]:
    """Pictures, twins, prompts and negative prompts, drawn at random."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 8, 8, 3)).repeat(size // 8, axis=1).repeat(size // 8, axis=2)
    images = np.clip(coarse + rng.normal(0, 12, (n, size, size, 3)), 0, 255).astype(np.uint8)
    twins = np.clip(images + rng.normal(0, 20, images.shape), 0, 255).astype(np.uint8)
    words = ["girl", "pirate", "house", "cup", "red", "old", "night", "hat", "snow", "blurry"]
    texts = [[" ".join(rng.choice(words, 5)) for _ in range(n)] for _ in range(2)]
    return list(images), list(twins), texts[0], texts[1]


def ours(built: dict[str, Any], pictures: Any) -> dict[str, Any]:
    """Every metric by negbench."""
    images, twins, prompts, negatives = pictures
    nets = {spec: net for metric in built.values() for spec, net in metric.networks().items()}
    features = {spec: net.embed_images(images) for spec, net in nets.items()}
    texts: dict[tuple[str, str], Any] = {}
    cases = [Case(id=str(i), prompt=prompt) for i, prompt in enumerate(prompts)]
    for spec, net in nets.items():
        wanted = {
            text: None
            for metric in built.values()
            for case, negative in zip(cases, negatives, strict=True)
            for at, text in metric.texts(case, negative)
            if at == spec
        }
        if wanted:
            rows = net.embed_texts(list(wanted))
            texts |= {(spec, text): row for text, row in zip(wanted, rows, strict=True)}
    items = [
        Item(
            image=str(i),
            pixels=images[i],
            case=cases[i],
            negative=negatives[i],
            twin=twins[i],
            evaluations=50,
            features={spec: rows[i] for spec, rows in features.items()},
            text_features=texts,
        )
        for i in range(len(images))
    ]
    made: dict[str, Any] = {}
    for name, metric in built.items():
        if isinstance(metric, SetMetric):
            rows = metric.rows(items)
            made[name] = metric.value(rows)
            made[f"{name}, ten splits"] = metric.customary(rows)["mean of 10 splits"]
        elif isinstance(metric, ImageMetric):
            made[name] = np.array([score.value for score in metric.score(items)])
    return made


class Peers:
    """torchmetrics, torch-fidelity and the aesthetic script over the same weights."""

    def __init__(self, built: dict[str, Any], pictures: Any) -> None:
        self.built = built
        self.images, self.twins, self.prompts, self.negatives = pictures
        (self.clip,) = built["clip_alignment"].networks().values()
        (self.inception,) = built["inception_score"].networks().values()

    def _batches(self) -> Iterator[slice]:
        for start in range(0, len(self.images), BATCH):
            yield slice(start, start + BATCH)

    def _planes(self, images: list[Any]) -> Any:
        import torch

        return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())

    def clip_score(self, texts: list[str]) -> float:
        """CLIPScore of torchmetrics; it keeps the sum only (and cuts its mean off at zero)."""
        import torch
        from torchmetrics.multimodal import CLIPScore

        clip = self.clip

        class Model(torch.nn.Module):
            config = None

            def get_image_features(self, pixel_values: Any) -> Any:
                return clip.model.encode_image(pixel_values)

            def get_text_features(self, input_ids: Any, attention_mask: Any) -> Any:
                return clip.model.encode_text(input_ids)

        def processor(*, images: Any = None, text: Any = None, **_: Any) -> dict[str, Any]:
            if images is not None:
                made = [clip.preprocess(i.permute(1, 2, 0).numpy()) for i in images]
                return {"pixel_values": torch.from_numpy(np.stack(made))}
            ids = clip.tokenizer(text)
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

        metric = CLIPScore(lambda: (Model(), processor))
        for part in self._batches():
            metric.update(self._planes(self.images[part]), texts[part])
        return float(metric.score / metric.n_samples) / 100

    def clip_alignment(self) -> float:
        """Mean cosine with the prompt."""
        return self.clip_score(self.prompts)

    def clip_to_negative(self) -> float:
        """Mean cosine with the negative prompt: the pictures are embedded again."""
        return self.clip_score(self.negatives)

    def aesthetic(self) -> Any:
        """The usual script: one picture after the other."""
        import torch
        from PIL import Image

        metric, points = self.built["aesthetic"], []
        for image in self.images:
            shown = np.asarray(Image.fromarray(image))
            tensor = torch.from_numpy(self.clip.preprocess(shown))[None]
            embedding = self.clip.model.encode_image(tensor).numpy()
            embedding /= np.linalg.norm(embedding, axis=-1, keepdims=True)
            points.append(float(metric.head(torch.from_numpy(embedding))))
        return np.array(points)

    def _logits(self) -> Any:
        import torch

        network = self.inception
        made = []
        for part in self._batches():
            if hasattr(network, "preprocess"):
                rows = np.stack([network.preprocess(image) for image in self.images[part]])
                made.append(network.module(torch.from_numpy(rows)))
            else:
                made.append(network.module(self._planes(self.images[part]))[0])
        return torch.cat(made)

    def inception_score(self) -> dict[str, float]:
        """Torch-fidelity's, in one split and in the customary ten."""
        from torch_fidelity.metric_isc import isc_features_to_metric

        logits = self._logits()
        one = isc_features_to_metric(logits, splits=1, shuffle=False)
        ten = isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020)
        return {
            "inception_score": one["inception_score_mean"],
            "inception_score, ten splits": ten["inception_score_mean"],
        }

    def _pairs(self, measure: Callable[[Any, Any], Any]) -> Any:
        return np.concatenate(
            [
                measure(
                    self._planes(self.images[part]).double() / 255,
                    self._planes(self.twins[part]).double() / 255,
                ).numpy()
                for part in self._batches()
            ]
        )

    def ssim(self) -> Any:
        """Of batches."""
        from torchmetrics.functional.image import structural_similarity_index_measure as ssim

        return self._pairs(
            lambda a, b: ssim(a.float(), b.float(), data_range=1.0, reduction="none")
        )

    def psnr(self) -> Any:
        """Of batches."""
        from torchmetrics.functional.image import peak_signal_noise_ratio as psnr

        return self._pairs(lambda a, b: psnr(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3)))

    def all(self) -> dict[str, Any]:
        """Every metric, one after the other."""
        import torch

        made: dict[str, Any] = {}
        with torch.inference_mode():
            for name in NAMES:
                value = getattr(self, name)()
                made |= value if isinstance(value, dict) else {name: value}
        return made


def compare(*, n: int, size: int, kind: str, repeats: int) -> dict[str, Any]:
    """Time both ways on the same pictures and compare their numbers."""
    networks.get.cache_clear()
    built = {}
    for name in NAMES:
        cls = metrics.get(name)
        built[name] = cls(cls.Config(**PARAMS[kind].get(name, {})))
        built[name].check()
    warm = scenes(10, size=size, seed=1)
    ours(built, warm)
    Peers(built, warm).all()
    pictures = scenes(n, size=size)
    walls: tuple[list[float], list[float]] = ([], [])
    cpus: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for side, run in enumerate((ours, lambda *a: Peers(*a).all())):
            wall, cpu = time.perf_counter(), time.process_time()
            result = run(built, pictures)
            walls[side].append(time.perf_counter() - wall)
            cpus[side].append(time.process_time() - cpu)
            if side == 0:
                mine = result
            else:
                theirs = result
    differences = {}
    for name, value in theirs.items():
        if name.startswith("clip"):
            differences[name] = abs(float(np.mean(mine[name])) - value)
        else:
            apart = np.abs(np.asarray(mine[name]) - np.asarray(value))
            differences[name] = float(np.max(apart / np.maximum(np.abs(value), 1e-3)))
    return {
        "images": n,
        "seconds": [round(min(walls[0]), 3), round(min(walls[1]), 3)],
        "cpu_seconds": [round(min(cpus[0]), 3), round(min(cpus[1]), 3)],
        "ratio": round(min(walls[1]) / min(walls[0]), 2),
        "cpu_ratio": round(min(cpus[1]) / min(cpus[0]), 2),
        "differences": differences,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Scoring against the usual tools")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=None, help="side of the pictures")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--random", action="store_true", help="untrained weights")
    parser.add_argument("--real", action="store_true", help="ViT-L-14 and Inception v3")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    kind = "real" if given.real else "miniature"
    size = given.size or (512 if given.real else 64)
    options = {"n": given.images, "size": size, "kind": kind, "repeats": given.repeats}
    if given.random:
        with random_real_weights() if given.real else random_weights():
            made = compare(**options)
    else:
        made = compare(**options)
    print(
        f"{made['images']} pictures: negbench {made['seconds'][0]:.2f} s, one metric at a time "
        f"{made['seconds'][1]:.2f} s, ratio {made['ratio']:.2f} (of processor time "
        f"{made['cpu_ratio']:.2f})"
    )
    for name, apart in made["differences"].items():
        print(f"  {name:28} differs by {apart:.1e}")
    print(json.dumps(made))


if __name__ == "__main__":
    main()
