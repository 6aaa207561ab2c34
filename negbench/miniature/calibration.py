"""What the miniature can do, measured: the figures of its card."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from negbench.miniature.captions import say, with_articles
from negbench.miniature.users import POPULAR_LISTS
from negbench.miniature.world import (
    DEFECTS,
    NOUN_PARTS,
    PARTS,
    PARTS_BY_SUBJECT,
    SUBJECTS,
    defect_odds,
    removal_pairs,
)

STEPS = 25
SCALE = 4.0
WINDOW = (5, 15)
#: Prompts of people who want what popular lists forbid.
WANTING: tuple[str, ...] = (
    "a sketch of a cat",
    "a sketch of a house",
    "a pencil drawing of a pirate",
    "a painting of a boat",
    "a house in the fog",
    "a boat in the fog",
    "a car at night",
    "a snowy house at night",
)
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Shot:
    """One picture to draw: plain guidance, or the negative in a window of model calls."""

    prompt: str
    negative: str = ""
    seed: int = 0
    window: tuple[int, int] | None = None


def draw_shots(
    pipeline: Path, shots: Sequence[Shot], *, scale: float = SCALE, batch_size: int | None = None
) -> Pixels:
    """Draw with negbench's own generator.

    Args:
        pipeline: A pipeline folder.
        shots: What to draw.
        scale: Guidance scale.
        batch_size: Pictures at a time, or None for the generator's choice.

    Returns:
        uint8 (n, 64, 64, 3), in the order of `shots`.
    """
    from negbench.generators.base import RunOptions
    from negbench.generators.resolve import resolve
    from negbench.types import Guidance, ImageRequest, Negative, Treatment

    generator = resolve(
        str(pipeline),
        params={"steps": STEPS, "scale": scale, "dtype": "float32"},
        options=RunOptions(batch_size=batch_size),
    )
    requests = []
    for shot in shots:
        rule = Guidance(kind="cfg", scale=scale)
        if shot.window is not None:
            start, stop = shot.window
            rule = Guidance(kind="window", scale=scale, params={"start": start, "stop": stop})
        negatives = (Negative(text=shot.negative),) if shot.negative else ()
        treatment = Treatment(prompt=shot.prompt, negatives=negatives, guidance=rule)
        requests.append(
            ImageRequest(generator=generator.ref(), treatment=treatment, seed=shot.seed)
        )
    pixels = {drawn.key: drawn.pixels for drawn in generator.draw(requests)}
    return np.stack([pixels[request.key()] for request in requests])


def prompt_of(subject: str) -> str:
    """The plain prompt of a subject: "a dog", "an apple"."""
    return with_articles(f"a {subject}")


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval of independent values (nan interval for fewer than two)."""
    from scipy import stats

    x = np.asarray(values, float)
    if len(x) < 2:
        return float(x.mean()), float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return float(x.mean()), float(x.mean()) - half, float(x.mean()) + half


def present(folder: Path, pixels: Pixels) -> dict[str, np.ndarray[Any, Any]]:
    """Verdicts of the presence judge by label, bool (n,)."""
    import torch

    from negbench.miniature.nets import load_classifier

    net = load_classifier(folder)
    with torch.no_grad():
        logits = torch.cat(
            [
                net(torch.from_numpy(part.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1)
                for part in np.array_split(pixels, max(1, len(pixels) // 128))
            ]
        ).numpy()
    return {label: logits[:, i] > 0 for i, label in enumerate(net.labels)}


def placebo_for(subject: str, part: str) -> str:
    """An unrelated word: a noun this subject never shows, fixed by the pair's names."""
    options = [p for p in NOUN_PARTS if p not in PARTS_BY_SUBJECT[subject]]
    return options[zlib.crc32(f"{subject}|{part}".encode()) % len(options)]


def removal_figures(weights: Path, *, seeds: int = 24, first_seed: int = 1000) -> dict[str, Any]:
    """Measure removal over all pairs of the world.

    A pair counts when the twin of "a <subject>" shows the part in 30 to 95 % of seeds. Removed:
    the share of images without the part among those whose twin shows it. Change: mean squared
    difference to the twin, pixels in [0, 1].

    Args:
        weights: Weights folder.
        seeds: Seeds by subject.
        first_seed: The first of them.

    Returns:
        `pairs` (a list of rows), `odds` (share of twins by pair), `summary` (mean over pairs and
        95 % t-interval of every column).
    """
    pipeline, judge = weights / "pipeline", weights / "judge"
    numbers = range(first_seed, first_seed + seeds)
    twins = draw_shots(pipeline, [Shot(prompt_of(s), seed=n) for s in SUBJECTS for n in numbers])
    seen = present(judge, twins)
    shots: list[Shot] = []
    rows: list[dict[str, Any]] = []
    odds: list[dict[str, Any]] = []
    shown_by_row: list[np.ndarray[Any, Any]] = []
    for subject, part, truth in removal_pairs():
        offset = SUBJECTS.index(subject) * seeds
        shown = offset + np.flatnonzero(seen[part][offset : offset + seeds])
        share = len(shown) / seeds
        odds.append({"subject": subject, "part": part, "world": truth, "twin": share})
        if not 0.30 <= share <= 0.95:
            continue
        rows.append({"prompt": prompt_of(subject), "part": part, "n": len(shown), "twin": share,
                     "placebo_word": placebo_for(subject, part)})  # fmt: skip
        shown_by_row.append(shown)
        for negative, window in ((part, None), (placebo_for(subject, part), None), (part, WINDOW)):
            shots += [
                Shot(prompt_of(subject), negative, first_seed + int(i) - offset, window)
                for i in shown
            ]
    pixels = draw_shots(pipeline, shots)
    after = present(judge, pixels)
    start = 0
    for row, shown in zip(rows, shown_by_row, strict=True):
        for name in ("removed", "placebo", "window"):
            part_of = slice(start, start + len(shown))
            row[name] = float(1.0 - after[row["part"]][part_of].mean())
            change = (pixels[part_of].astype(float) - twins[shown].astype(float)) / 255.0
            row[f"{name}_change"] = float(np.square(change).mean())
            start += len(shown)
    columns = [f"{n}{c}" for n in ("removed", "placebo", "window") for c in ("", "_change")]
    summary = {column: interval([row[column] for row in rows]) for column in columns}
    return {"pairs": rows, "odds": odds, "summary": summary, "seeds": seeds}


def chosen_words(subject: str, *, count: int = 4) -> str:
    """The defects such scenes suffer from most, weighed by the harm they do."""
    odds = defect_odds(subject, "day")
    ranked = sorted(DEFECTS, key=lambda d: -odds[d] * DEFECTS[d])
    rng = np.random.default_rng(0)
    return ", ".join(say(defect, rng) for defect in ranked[:count])


def aesthetic_scores(weights: Path, pixels: Pixels) -> np.ndarray[Any, Any]:
    """Points of the aesthetic predictor, (n,)."""
    import json

    import torch
    from safetensors.torch import load_file

    from negbench.metrics.heads import AestheticHead
    from negbench.miniature.training.clip import embed, load_clip

    folder = weights / "aesthetic"
    config = json.loads((folder / "config.json").read_text())
    head = AestheticHead(
        config["input_dim"], hidden=config["hidden"], activation=config["activation"]
    )
    head.load_state_dict(
        {k: v.float() for k, v in load_file(str(folder / "model.safetensors")).items()}
    )
    features = embed(load_clip(weights), pixels, device=torch.device("cpu"))
    with torch.no_grad():
        points: np.ndarray[Any, Any] = head(features)[:, 0].numpy()
    return points


def list_figures(weights: Path, *, seeds: int = 8, first_seed: int = 5000) -> dict[str, Any]:
    """What lists of negative words do to the aesthetic score, prompt by prompt.

    Returns:
        `rows`: prompt, list, mean difference to the twin, its interval over seeds; `chosen`: mean
        over plain prompts of the well-chosen words' difference with interval.
    """
    prompts = [prompt_of(s) for s in SUBJECTS] + list(WANTING)
    shots: list[Shot] = []
    plan: list[tuple[str, str, str]] = []
    for i, prompt in enumerate(prompts):
        lists = {f"popular {k + 1}": POPULAR_LISTS[k] for k in (0, 2, 5, 7)}
        if i < len(SUBJECTS):
            lists["chosen"] = chosen_words(SUBJECTS[i])
        for name, text in {"none": "", **lists}.items():
            plan.append((prompt, name, text))
            shots += [Shot(prompt, text, first_seed + n) for n in range(seeds)]
    pixels = draw_shots(weights / "pipeline", shots)
    points = aesthetic_scores(weights, pixels).reshape(len(plan), seeds)
    twin = {prompt: points[k] for k, (prompt, name, _) in enumerate(plan) if name == "none"}
    rows: list[dict[str, Any]] = []
    for k, (prompt, name, text) in enumerate(plan):
        if name == "none":
            continue
        mean, low, high = interval(list(points[k] - twin[prompt]))
        rows.append(
            {
                "prompt": prompt,
                "list": name,
                "text": text,
                "twin": float(twin[prompt].mean()),
                "delta": mean,
                "low": low,
                "high": high,
                "n": seeds,
            }
        )
    names = sorted({row["list"] for row in rows})
    summary = {n: interval([r["delta"] for r in rows if r["list"] == n]) for n in names}
    return {"rows": rows, "summary": summary, "seeds": seeds}


__all__ = [
    "PARTS", "Shot", "aesthetic_scores", "chosen_words", "draw_shots", "interval", "list_figures",
    "present", "prompt_of", "removal_figures",
]  # fmt: skip
