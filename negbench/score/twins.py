"""Requests for twins that are missing, with the settings that the picture's metadata state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from negbench.errors import ConfigError, NegbenchError
from negbench.generators.base import Generator, RunOptions
from negbench.plan import resolve_generator
from negbench.protocols import Benchmark
from negbench.score.given import Drawer
from negbench.score.pairing import Picture
from negbench.types import SEED_BITS, Guidance, ImageRequest, Treatment

MAX_SETTINGS = 64
"""Most different sets of steps, size and sampler for which a generator is prepared."""

SCHEDULERS = {
    "euler a": "euler_a", "euler ancestral": "euler_a", "euler": "euler", "ddim": "ddim",
    "heun": "heun", "lms": "lms", "plms": "pndm", "pndm": "pndm", "dpm2": "kdpm2",
    "dpm2 a": "kdpm2_a", "dpm++ 2m": "dpm++2m", "dpm++ 2m karras": "dpm++2m_karras",
    "dpm++ 2m sde": "dpm++2m_sde", "unipc": "unipc", "deis": "deis", "dpmpp_2m": "dpm++2m",
    "euler_ancestral": "euler_a", "uni_pc": "unipc",
}  # fmt: skip
"""Samplers by the names that other tools give them."""


@dataclass
class DrawnTwins:
    """What can be drawn for pictures without a twin.

    Attributes:
        exact: picture and request of a twin with the very noise and network of the picture.
        similar: the same where only prompt and settings agree: another software drew the picture.
        drawers: who draws.
        refused: why there is none, and how often.
        notes: what a reader should know.
    """

    exact: list[tuple[Picture, ImageRequest]] = field(default_factory=list)
    similar: list[tuple[Picture, ImageRequest]] = field(default_factory=list)
    drawers: list[Drawer] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def twins_to_draw(
    pictures: Sequence[Picture],
    *,
    bench: Benchmark,
    generator: str,
    params: Mapping[str, Any],
    options: RunOptions,
) -> DrawnTwins:
    """A request for the twin of each picture.

    Steps, size, sampler and scale are the picture's own as far as they are known and `params` do
    not say otherwise.

    Raises:
        NegbenchError: the generator cannot be had at all.
    """
    from negbench.generators import generators

    made = DrawnTwins()
    built: dict[tuple[tuple[str, Any], ...], Generator | str] = {}
    requests: dict[tuple[tuple[str, Any], ...], dict[str, ImageRequest]] = {}
    plugin = generator in generators
    first = resolve_generator(bench, generator, params, options)
    unknown: set[str] = set()
    for picture in pictures:
        chosen = {} if plugin or picture.known.mark else _settings_of(picture, params, unknown)
        key = tuple(sorted(chosen.items()))
        if key not in built:
            built[key] = _build(bench, generator, {**params, **chosen}, options, known=len(built))
        drawer = built[key]
        reason = drawer if isinstance(drawer, str) else _misfit(picture, drawer)
        if reason is not None or isinstance(drawer, str):
            made.refused[str(reason)] = made.refused.get(str(reason), 0) + 1
            continue
        request = _request(picture, drawer)
        requests.setdefault(key, {})[request.key()] = request
        mark = picture.known.mark
        same = mark is not None and mark.generator == drawer.ref().digest()
        (made.exact if same else made.similar).append((picture, request))
    for key, wanted in requests.items():
        drawer = built[key]
        assert isinstance(drawer, Generator)
        made.drawers.append(Drawer(drawer, wanted))
    if unknown:
        names = ", ".join(sorted(unknown)[:5])
        made.notes.append(
            f"samplers that {first.ref().name} does not know ({names}) were replaced by its own"
        )
    return made


def _settings_of(picture: Picture, params: Mapping[str, Any], unknown: set[str]) -> dict[str, Any]:
    known = dict(picture.known.settings)
    chosen: dict[str, Any] = {"width": picture.size[0], "height": picture.size[1]}
    if known.get("steps"):
        chosen["steps"] = known["steps"]
    sampler = str(known.get("sampler") or "").lower().replace(" automatic", "")
    if sampler in SCHEDULERS:
        chosen["scheduler"] = SCHEDULERS[sampler]
    elif sampler:
        unknown.add(sampler[:40])
    return {name: value for name, value in chosen.items() if name not in params}


def _build(
    bench: Benchmark, spec: str, params: Mapping[str, Any], options: RunOptions, *, known: int
) -> Generator | str:
    if known >= MAX_SETTINGS:
        return f"more than {MAX_SETTINGS} different settings; fix some with -o, as -o steps=30"
    try:
        return resolve_generator(bench, spec, params, options)
    except ConfigError as error:
        return str(error)


def _misfit(picture: Picture, drawer: Generator) -> str | None:
    height, width = drawer.image_size()
    if picture.size != (width, height):
        return f"the generator draws {width} x {height} pixels, the picture has another size"
    if picture.known.seed is None:
        return "its seed is not known"
    if picture.known.seed >= 2**SEED_BITS:
        return "its seed has more than 32 bits"
    try:
        drawer.check_guidance(_guidance(picture, drawer))
    except NegbenchError as error:
        return str(error)
    return None


def _guidance(picture: Picture, drawer: Generator) -> Guidance:
    known = picture.known
    if known.mark is not None:
        return known.mark.reference
    base = drawer.default_guidance()
    scale = dict(known.settings).get("cfg_scale")
    return Guidance(kind="cfg", scale=base.scale if scale is None else float(scale))


def _request(picture: Picture, drawer: Generator) -> ImageRequest:
    known = picture.known
    assert known.seed is not None
    return ImageRequest(
        generator=drawer.ref(),
        treatment=Treatment(prompt=known.prompt, guidance=_guidance(picture, drawer)),
        seed=known.seed,
    )
