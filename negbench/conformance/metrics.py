"""What a metric promises, tried on made-up pictures and the features its own networks make."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from negbench.conformance.outcome import Outcome, require, run
from negbench.metrics.base import ImageMetric, Item, Metric, Pixels, SetMetric
from negbench.params import build_config
from negbench.types import Case, Score

COUNT = 8
SIDE = 64
TOLERANCE = 1e-6


def check_metric(
    cls: type[Metric], *, name: str, params: Mapping[str, Any] | None = None
) -> list[Outcome]:
    """Try a metric's promises.

    Args:
        cls: the metric's class, of images or of sets.
        name: what messages call it.
        params: parameters for a metric whose defaults are not enough.

    Returns:
        One outcome a check; a metric that cannot score at all has two.

    Raises:
        NegbenchError: the metric refuses to be built here, for example for lack of weights.
    """

    def build() -> Metric:
        config = build_config(cls.Config, dict(params or {}), owner=f"metric {name}")
        metric = cls(config)
        metric.check()
        return metric

    metric = build()
    outcomes = [run("is built", partial(_is_built, build, name))]
    items = _items(metric)
    if isinstance(metric, ImageMetric):
        outcomes.append(run("scores", partial(_scores, metric, items)))
        if outcomes[-1].passed:
            outcomes.append(run("images stand alone", partial(_alone, metric, items)))
    elif isinstance(metric, SetMetric):
        outcomes.append(run("rows", partial(_rows, metric, items)))
        if outcomes[-1].passed:
            outcomes.append(run("value", partial(_value, metric, items)))
    else:
        advice = "is neither an ImageMetric nor a SetMetric; subclass one of them"
        outcomes.append(Outcome("scores", passed=False, message=advice))
    return outcomes


def _items(metric: Metric) -> list[Item]:
    """Pictures with twins, one equal to its twin and one without, and the features needed."""
    random = np.random.default_rng(0)
    items = []
    for number in range(COUNT):
        twin = _picture(random)
        pixels = twin.copy()
        if number != 1:
            pixels[number : number + 20, 10:40] = 255 - pixels[number : number + 20, 10:40]
        items.append(
            Item(
                image=hashlib.sha256(pixels.tobytes()).hexdigest(),
                pixels=pixels,
                case=Case(id=str(number), prompt=f"a house, view {number}", concept="door"),
                negative="" if number == 3 else "blurry, door",
                twin=None if number == 2 else twin,
                evaluations=50 + number,
            )
        )
    networks = metric.networks()
    images = [item.pixels for item in items]
    made = {spec: network.embed_images(images) for spec, network in networks.items()}
    complete = []
    for number, item in enumerate(items):
        texts = {
            (spec, text): networks[spec].embed_texts([text])[0]
            for spec, text in metric.texts(item.case, item.negative)
        }
        features = {spec: values[number] for spec, values in made.items()}
        complete.append(replace(item, features=features, text_features=texts))
    return complete


def _picture(random: np.random.Generator) -> Pixels:
    coarse = random.integers(0, 256, (8, 8, 3))
    smooth = np.kron(coarse, np.ones((SIDE // 8, SIDE // 8, 1)))
    noise = random.integers(-20, 20, smooth.shape)
    pixels: Pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    return pixels


def _is_built(build: Any, name: str) -> str:
    first, second = build(), build()
    ref = first.ref(name)
    require(ref.digest() == second.ref(name).digest(), "its identity changes when built again")
    return f"version {ref.version}, in {first.unit}"


def _scores(metric: ImageMetric, items: Sequence[Item]) -> str:
    before = [item.pixels.copy() for item in items]
    scores = metric.score(items)
    require(len(scores) == len(items), f"{len(scores)} scores for {len(items)} images")
    require(all(isinstance(score, Score) for score in scores), "returns something but scores")
    unchanged = all(np.array_equal(a, item.pixels) for a, item in zip(before, items, strict=True))
    require(unchanged, "changes the pixels it is given")
    if metric.needs_twin:
        require(scores[2].value is None, "scores an image without a twin, though it needs twins")
    bounds = getattr(metric, "bounds", None) or (-math.inf, math.inf)
    values = [score.value for score in scores if score.value is not None]
    outside = [value for value in values if not bounds[0] <= value <= bounds[1]]
    require(not outside, f"scores {outside[:1]} outside of its bounds {bounds}")
    require(metric.score([]) == [], "scores something where there is no image")
    return f"{len(values)} of {len(items)} images scored, the others with a reason"


def _alone(metric: ImageMetric, items: Sequence[Item]) -> str:
    whole = metric.score(items)
    for number, (item, expected) in enumerate(zip(items, whole, strict=True)):
        (one,) = metric.score([item])
        _near(one.value, expected.value, f"image {number} has another score when it is alone")
    backward = metric.score(list(items)[::-1])[::-1]
    for one, expected in zip(backward, whole, strict=True):
        _near(one.value, expected.value, "the order of the images changes a score")
    return "no score depends on other images"


def _rows(metric: SetMetric, items: Sequence[Item]) -> str:
    rows = metric.rows(items)
    require(
        rows.ndim == 2 and len(rows) == len(items),
        f"rows have shape {rows.shape} for {len(items)} images",
    )
    require(bool(np.isfinite(rows).all()), "rows hold values that are not finite")
    for number in range(len(items)):
        one = metric.rows([items[number]])
        gap = float(np.abs(one[0] - rows[number]).max())
        require(gap <= TOLERANCE, f"the row of image {number} differs by {gap:.2g} when alone")
    return f"{rows.shape[1]} numbers an image"


def _value(metric: SetMetric, items: Sequence[Item]) -> str:
    rows = metric.rows(items)
    value = metric.value(rows)
    require(math.isfinite(value), f"its value is {value}")
    _near(metric.value(rows[::-1]), value, "the order of the images changes the value")
    prompts = [f"prompt {number // 2}" for number in range(len(items))]
    summary = metric.summary(rows, prompts)
    require(summary.value is not None, "its summary of eight images has no value")
    _near(summary.value, value, "summary and value disagree")
    return f"{value:.4g}"


def _near(
    got: float | None, expected: float | None, message: str, tolerance: float = TOLERANCE
) -> None:
    require((got is None) == (expected is None), f"{message}: {got} and {expected}")
    if got is not None and expected is not None:
        near = abs(got - expected) <= tolerance * max(1.0, abs(expected))
        require(near, f"{message}: {got:.8g} and {expected:.8g}")
