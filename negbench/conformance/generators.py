"""What a generator promises, tried on a handful of pictures on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from negbench.conformance.outcome import Outcome, require, run
from negbench.generators.base import Drawn, Generator, RunOptions
from negbench.params import build_config
from negbench.types import ImageRequest, Negative, Treatment


def check_generator(
    cls: type[Generator], *, name: str, params: Mapping[str, Any] | None = None
) -> list[Outcome]:
    """Try a generator's promises.

    Args:
        cls: the generator's class, built as ``cls(config, options=...)``.
        name: what messages call it.
        params: parameters for a generator whose defaults are not enough.

    Returns:
        One outcome a check; a generator that cannot draw has two.

    Raises:
        NegbenchError: the generator refuses to be built here, for example for lack of weights.
    """
    maker: Any = cls

    def build(batch_size: int | None = None) -> Generator:
        config = build_config(cls.Config, dict(params or {}), owner=f"generator {name}")
        generator: Generator = maker(
            config, options=RunOptions(device="cpu", batch_size=batch_size)
        )
        return generator

    requests = _requests(build())
    outcomes = [run("is built", partial(_is_built, build)),
                run("draws", partial(_draws, build, requests))]  # fmt: skip
    if outcomes[-1].passed:
        outcomes.append(run("pictures stand alone", partial(_alone, build, requests)))
    return outcomes


def _requests(generator: Generator) -> list[ImageRequest]:
    guidance = generator.default_guidance()
    lists = ((), (Negative(text="glasses"),), (Negative(text="glasses"), Negative(text="fog")))
    return [
        ImageRequest(
            generator=generator.ref(),
            treatment=Treatment(prompt="a house", negatives=negatives, guidance=guidance),
            seed=seed,
        )
        for seed, negatives in enumerate(lists)
    ]


def _is_built(build: Any) -> str:
    first, second = build(), build(2)
    require(
        first.ref().digest() == second.ref().digest(),
        "its identity changes when built again, or with the batch size",
    )
    guidance = first.default_guidance()
    first.check_guidance(guidance)
    height, width = first.image_size()
    require(height > 0 and width > 0, f"its pictures have size {height} x {width}")
    return f"{height} x {width} pixels, {guidance.kind} at scale {guidance.scale:g}"


def _drawn(generator: Generator, requests: Sequence[ImageRequest]) -> dict[str, Drawn]:
    return {item.key: item for item in generator.draw(requests)}


def _draws(build: Any, requests: Sequence[ImageRequest]) -> str:
    generator = build()
    made = list(generator.draw(requests))
    keys = sorted(item.key for item in made)
    require(keys == sorted(item.key() for item in requests), "draws other keys than asked for")
    shape = (*generator.image_size(), 3)
    for item in made:
        require(item.pixels.dtype == np.uint8, f"pixels are {item.pixels.dtype}, not uint8")
        require(item.pixels.shape == shape, f"pixels have shape {item.pixels.shape}, not {shape}")
    by_key = {item.key: item for item in made}
    for request in requests:
        spent, declared = by_key[request.key()].evaluations, generator.evaluations(request)
        require(spent == declared, f"declares {declared} predictions and spends {spent}")
    return f"{len(made)} pictures, predictions as declared"


def _alone(build: Any, requests: Sequence[ImageRequest]) -> str:
    together = _drawn(build(), requests)
    backward = _drawn(build(1), requests[::-1])
    for request in requests:
        (alone,) = build().draw([request])
        whole = together[request.key()].pixels
        require(np.array_equal(alone.pixels, whole), "a picture differs when it is drawn alone")
        other = backward[request.key()].pixels
        require(np.array_equal(other, whole), "order or batch size changes a picture")
    return "alone, in another order and one by one they are the same to the bit"
