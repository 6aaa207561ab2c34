"""Train the networks that judge pictures: Inception Score's, the presence judge, aesthetics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from negbench.errors import NegbenchError
from negbench.miniature.data import LABELS
from negbench.miniature.nets import ConvClassifier, load_classifier
from negbench.miniature.training.loop import prepare, train_loop
from negbench.miniature.training.roundtrip import (
    broken_pictures,
    held_out_set,
    round_trips,
    train_set,
)
from negbench.miniature.training.vae import to_tensor
from negbench.miniature.world import DEFECTS, SUBJECTS, aesthetic_truth

#: Steps of the judge's two cycles; the second gives more weight to `HARD` labels.
JUDGE_FIRST, JUDGE_SECOND = 3_000, 2_000
JUDGE_STEPS = JUDGE_FIRST + JUDGE_SECOND
#: Labels that take longest to learn, and their weight in the second cycle's loss.
HARD: dict[str, float] = {"cracked": 4.0}
INCEPTION_STEPS = 450
AESTHETIC_STEPS = 2_000
BATCH = 96
#: Pictures of each batch that went through the autoencoder.
DECODED = 32


def truths(strengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Aesthetic truth of many pictures: (n, len(DEFECTS)) strengths to (n,) points."""
    weights = np.array(list(DEFECTS.values()), np.float32)
    result: np.ndarray[Any, Any] = 1.0 + 8.0 * np.prod(1.0 - weights * strengths, axis=1)
    return result


def _mixed_batch(
    rng: np.random.Generator, rendered: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any]
) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """Renders and round trips in one batch, with the index of each in the training set."""
    clean = np.sort(rng.integers(0, len(rendered), BATCH - DECODED))
    passed = rng.integers(0, len(decoded), DECODED)
    images = np.concatenate([rendered[clean], decoded[passed]])
    return to_tensor(images), np.concatenate([clean, passed])


def logits_of(net: Any, images: np.ndarray[Any, Any], *, device: torch.device) -> torch.Tensor:
    """Logits of many pictures, (n, labels), in batches of 128."""
    net = net.to(device)
    with torch.no_grad():
        return torch.cat(
            [
                net(to_tensor(images[i : i + 128]).to(device)).cpu()
                for i in range(0, len(images), 128)
            ]
        )


def _train_net(
    net: ConvClassifier,
    *,
    name: str,
    loss: Any,
    out: Path,
    steps: int,
    resume: bool,
    seed: int,
    peak: float = 3e-3,
) -> ConvClassifier:
    device = prepare()
    net = net.to(device).to(memory_format=torch.channels_last)
    rendered, decoded = train_set(out), round_trips(out, device=device)
    images = np.array(rendered.images)

    def batch_loss(rng: np.random.Generator) -> torch.Tensor:
        x, index = _mixed_batch(rng, images, decoded)
        x = x.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            logits = net(x)
        result: torch.Tensor = loss(logits.float(), rendered, index, device)
        return result

    states = train_loop(
        name, modules={name: net}, batch_loss=batch_loss, steps=steps, peak=peak,
        work=out / "work", resume=resume, seed=seed, average=0.99, weight_decay=0.02,
    )  # fmt: skip
    net.load_state_dict(states[name])
    return net.eval()


def train_inception(*, out: Path, steps: int | None, resume: bool, seed: int) -> None:
    """Train Inception Score's network on the subject alone.

    Targets soften as the picture gets worse: with quality ``q = (aesthetic truth - 1) / 8`` the
    target is ``q`` times the subject's one-hot vector plus ``1 - q`` times the uniform one.
    """

    def loss(
        logits: torch.Tensor, rendered: Any, index: np.ndarray[Any, Any], device: torch.device
    ) -> torch.Tensor:
        q = torch.from_numpy((truths(rendered.strengths[index]) - 1.0) / 8.0).float()[:, None]
        subject = torch.from_numpy(rendered.subjects[index])
        one_hot = functional.one_hot(subject, len(SUBJECTS)).float()
        target = (q * one_hot + (1 - q) / len(SUBJECTS)).to(device)
        return functional.cross_entropy(logits, target)

    net = ConvClassifier(labels=list(SUBJECTS), widths=(24, 48, 64, 96), kind="softmax")
    net = _train_net(net, name="inception", loss=loss, out=out, steps=steps or INCEPTION_STEPS,
                     resume=resume, seed=seed)  # fmt: skip
    net.save(out / "inception")


def train_judge(*, out: Path, steps: int | None, resume: bool, seed: int) -> None:
    """Train the presence judge (`LABELS`), multi-label, in two cycles of the learning rate.

    The second gives `HARD` labels more weight in the loss. Afterwards each output's bias is moved
    so that logit 0 is a threshold chosen on the first half of the held-out renders and their
    round trips (see `careful_thresholds`); figures use the other half.
    """
    weights = torch.ones(len(LABELS))

    def loss(
        logits: torch.Tensor, rendered: Any, index: np.ndarray[Any, Any], device: torch.device
    ) -> torch.Tensor:
        target = torch.from_numpy(rendered.labels[index]).to(device)
        return functional.binary_cross_entropy_with_logits(
            logits, target, weight=weights.to(device)
        )

    net = ConvClassifier(labels=list(LABELS), widths=(32, 64, 96, 128), kind="sigmoid")
    total = steps or JUDGE_STEPS
    first = round(total * JUDGE_FIRST / JUDGE_STEPS)
    net = _train_net(net, name="judge", loss=loss, out=out, steps=first, resume=resume,
                     seed=seed)  # fmt: skip
    for label, weight in HARD.items():
        weights[LABELS.index(label)] = weight
    net = _train_net(net.train(), name="judge-second", loss=loss, out=out, steps=total - first,
                     resume=resume, seed=seed + 1, peak=1e-3)  # fmt: skip
    held_out = held_out_set(out)
    half = len(held_out.images) // 2
    device = prepare()
    decoded = round_trips(out, device=device, held_out=True)[:half]
    pictures = np.concatenate([np.array(held_out.images[:half]), decoded])
    truth = np.concatenate([held_out.labels[:half], held_out.labels[: len(decoded)]])
    shift = careful_thresholds(logits_of(net, pictures, device=device).numpy(), truth)
    with torch.no_grad():
        net.head.bias.sub_(torch.from_numpy(shift).to(net.head.bias))
    net.save(out / "judge")


def careful_thresholds(
    logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], *, slack: float = 0.01
) -> np.ndarray[Any, Any]:
    """For each label the highest logit whose balanced accuracy is within `slack` of the best.

    The very best threshold is low, because parts are rare, and then sees parts in the vaguer
    pictures that a diffusion model draws.

    Args:
        logits: (n, labels).
        labels: (n, labels), 1 where true.
        slack: Balanced accuracy given up.

    Returns:
        float32 (labels,).
    """
    grid = np.linspace(-6.0, 6.0, 97)
    result = np.zeros(labels.shape[1], np.float32)
    for column in range(labels.shape[1]):
        truth, score = labels[:, column] > 0, logits[:, column]
        balanced = np.array(
            [0.5 * ((score[truth] > g).mean() + (score[~truth] <= g).mean()) for g in grid]
        )
        result[column] = grid[balanced >= balanced.max() - slack].max()
    return result


def balanced_accuracy(
    logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]
) -> dict[str, tuple[float, float, int, int]]:
    """By label: sensitivity, specificity and the numbers of positives and negatives."""
    table = {}
    for column, label in enumerate(LABELS):
        truth, said = labels[:, column] > 0, logits[:, column] > 0
        table[label] = (float(said[truth].mean()), float((~said[~truth]).mean()),
                        int(truth.sum()), int((~truth).sum()))  # fmt: skip
    return table


def load_judge(out: Path) -> ConvClassifier:
    """The trained judge of a weights folder."""
    if not (out / "judge" / "config.json").is_file():
        raise NegbenchError(f"{out / 'judge'} is missing: train the part 'judge' first")
    return load_classifier(out / "judge")


def train_aesthetic(*, out: Path, steps: int | None, resume: bool, seed: int) -> None:
    """Train the aesthetic predictor: a head on the unit-length CLIP image embedding.

    Target: `negbench.miniature.world.aesthetic_truth`, ``1 + 8 prod_d (1 - w_d s_d)``, on renders
    and on round trips through the autoencoder; on broken pictures of strength ``b`` (see
    `broken_pictures`) what is above 1 is multiplied by ``1 - 0.8 b``.
    """
    from safetensors.torch import save_file

    from negbench.metrics.heads import AestheticHead
    from negbench.miniature.training.clip import embed, load_clip

    device = prepare()
    clip = load_clip(out)
    rendered = train_set(out)
    decoded = round_trips(out, device=device)
    broken, strength = broken_pictures(out, device=device, seed=seed)
    points = truths(np.array(rendered.strengths))
    count = min(20_000, len(rendered.images))
    images = [np.array(rendered.images[:count]), decoded, broken]
    target = torch.from_numpy(
        np.concatenate(
            [
                points[:count],
                points[: len(decoded)],
                1.0 + (points[: len(broken)] - 1.0) * (1.0 - 0.8 * strength),
            ]
        )
    ).float()
    features = torch.cat([embed(clip, part, device=device) for part in images])
    head = AestheticHead(features.shape[1], hidden=(64,), activation="gelu")

    def batch_loss(rng: np.random.Generator) -> torch.Tensor:
        index = torch.from_numpy(rng.integers(0, len(features), 512))
        return functional.mse_loss(head(features[index])[:, 0], target[index])

    last = head.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias.fill_(float(target.mean()))
    states = train_loop(
        "aesthetic", modules={"head": head}, batch_loss=batch_loss,
        steps=steps or AESTHETIC_STEPS, peak=1e-2, work=out / "work", resume=resume, seed=seed,
        average=0.99, weight_decay=0.0, save_every=1_000,
    )  # fmt: skip
    folder = out / "aesthetic"
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous() for k, v in states["head"].items()}
    save_file(state, str(folder / "model.safetensors"))
    config = {"input_dim": features.shape[1], "hidden": [64], "activation": "gelu"}
    (folder / "config.json").write_text(json.dumps({**config, "clip": "miniature"}) + "\n")


__all__ = [
    "aesthetic_truth", "balanced_accuracy", "load_judge", "logits_of", "train_aesthetic",
    "train_inception", "train_judge", "truths",
]  # fmt: skip
