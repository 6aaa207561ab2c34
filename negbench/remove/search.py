"""The search for the smallest window in which a negative prompt removes a concept.

Ban et al. (arXiv 2406.02965) start at model call 6 and make the window longer until their judge no
longer sees the object. Here the start moves too: windows are tried from short to long, and at one
length from late to early starts, because late and short windows leave more of the picture as it
was. At the first length at which the judge sees the concept no more, the window that changes the
picture least is taken and made shorter, call by call from either end, as long as the concept stays
away. All pictures share their noise and their beginnings with the twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from negbench.errors import ConfigError, DataError, one_line
from negbench.progress import Progress, silent
from negbench.timing.plan import calls_of, window_rule
from negbench.timing.shots import similarity
from negbench.types import Guidance, ImageRequest, Negative, Treatment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from negbench.generators.base import Generator
    from negbench.judges import Judge

    Pixels = npt.NDArray[np.uint8]

LENGTHS = (1 / 12, 1 / 6, 1 / 4, 1 / 3, 5 / 12, 1 / 2, 2 / 3, 5 / 6, 1)
"""Lengths of windows that are tried, as parts of the schedule."""

LATEST = 1 / 2
"""The latest start that is tried, as a part of the schedule: later the picture stands."""

STARTS = 12
"""Starts lie this part of the schedule apart, at least one model call."""

BUDGET = 60
"""Pictures that may be drawn, the twin included."""

MAX_SEED = 2**32 - 1

Status = Literal["removed", "not removed", "not there", "no verdict"]
Window = tuple[int, int]


@dataclass(frozen=True)
class Try:
    """One picture of the search.

    Attributes:
        window: model calls [start, stop) with the negative; (0, 0) is the twin.
        probability: of the concept, as the judge says; None where it gives no verdict.
        damage: 1 - SSIM to the twin, None for pictures too small for SSIM.
        key: of the picture's request.
    """

    window: Window
    probability: float | None
    present: bool | None
    damage: float | None
    key: str

    def as_json(self) -> dict[str, Any]:
        """For ``remove.json``."""
        return {
            "start": self.window[0],
            "stop": self.window[1],
            "probability": self.probability,
            "present": self.present,
            "damage": self.damage,
            "key": self.key,
        }


@dataclass
class Removal:
    """What became of the search.

    Attributes:
        status: ``removed``; ``not removed`` (the judge sees the concept after every window);
            ``not there`` (it does not see it in the twin); ``no verdict`` (it cannot tell, and
            `reason` says why).
        calls: model calls of the schedule.
        tried: every picture, in the order of the search; the first is the twin.
        best: the smallest window found, or without success the try with the lowest probability.
        every_call: the negative in every call, for comparison, where it was drawn.
        pixels: pictures by key.
        note: a second thought about the result, for example that the budget was used up.
    """

    status: Status
    prompt: str
    concept: str
    seed: int
    calls: int
    tried: list[Try] = field(default_factory=list)
    best: Try | None = None
    every_call: Try | None = None
    reason: str | None = None
    note: str | None = None
    pixels: dict[str, Pixels] = field(default_factory=dict)

    @property
    def twin(self) -> Try:
        """The picture without a negative."""
        return self.tried[0]


class _Search:
    """Draws windows, asks the judge, and remembers."""

    def __init__(
        self,
        generator: Generator,
        judge: Judge,
        found: Removal,
        *,
        guidance: Guidance,
        cache: Path,
        device: str,
        budget: int,
        progress: Progress,
    ) -> None:
        from negbench.store import ImageStore

        self.generator = generator
        self.judge = judge
        self.found = found
        self.guidance = guidance
        self.cache = cache
        self.device = device
        self.left = budget
        self.progress = progress
        self.store = ImageStore(cache)
        self.by_window: dict[Window, Try] = {}

    def request(self, window: Window) -> ImageRequest:
        negatives: tuple[Negative, ...] = ()
        guidance = self.guidance
        if window[0] < window[1]:
            negatives = (Negative(text=self.found.concept),)
            if window != (0, self.found.calls):
                guidance = window_rule(guidance.scale, *window)
        treatment = Treatment(prompt=self.found.prompt, negatives=negatives, guidance=guidance)
        return ImageRequest(
            generator=self.generator.ref(), treatment=treatment, seed=self.found.seed
        )

    def look(self, windows: Sequence[Window]) -> list[Try]:
        """Tries of the windows that the budget allows; the others are left out."""
        new = [window for window in windows if window not in self.by_window][: self.left]
        self.left -= len(new)
        if new:
            pixels = self._draw(new)
            for one in self._judged(new, pixels):
                self.by_window[one.window] = one
                self.found.tried.append(one)
        return [self.by_window[window] for window in windows if window in self.by_window]

    def _draw(self, windows: Sequence[Window]) -> list[Pixels]:
        from negbench.drawing import provenance

        requests = {window: self.request(window) for window in windows}
        missing: dict[str, ImageRequest] = {}
        ready: dict[str, Pixels] = {}
        for request in requests.values():
            key = request.key()
            stored = self.store.get(key)
            pixels = None if stored is None else self.store.load(stored)
            if pixels is None:
                missing[key] = request
            else:
                ready[key] = pixels
        if missing:
            about = {**provenance(), "generator": self.generator.describe()}
            with self.progress("drawing", len(missing)) as bar:
                for drawn in self.generator.draw(list(missing.values())):
                    self.store.put(drawn, missing[drawn.key], provenance=about)
                    ready[drawn.key] = drawn.pixels
                    bar.update()
        self.found.pixels.update(ready)
        return [ready[requests[window].key()] for window in windows]

    def _judged(self, windows: Sequence[Window], pixels: Sequence[Pixels]) -> Iterator[Try]:
        from negbench.judges import Question
        from negbench.judges.ask import ask
        from negbench.store import pixel_digest

        questions = [
            Question(image=pixel_digest(one), pixels=one, concept=self.found.concept)
            for one in pixels
        ]
        verdicts = ask(self.judge, questions, cache=self.cache, device=self.device)
        twin = self.found.pixels[self.request((0, 0)).key()]
        damages = similarity(pixels, [twin] * len(pixels))
        for window, verdict, ssim in zip(windows, verdicts, damages, strict=True):
            if verdict.unscored is not None:
                self.found.reason = one_line(verdict.unscored, limit=300)
            yield Try(
                window=window,
                probability=verdict.probability,
                present=verdict.present,
                damage=None if ssim is None else 1.0 - ssim,
                key=self.request(window).key(),
            )


def windows_of_length(length: int, *, calls: int) -> list[Window]:
    """Windows of one length, from late to early starts."""
    step = max(1, round(calls / STARTS))
    latest = min(round(LATEST * calls), calls - length)
    starts = [*range(latest, 0, -step), 0] if latest > 0 else [0]
    return [(start, start + length) for start in dict.fromkeys(starts)]


def lengths(calls: int) -> list[int]:
    """Lengths of windows that are tried, in model calls, ascending."""
    return sorted({max(1, round(part * calls)) for part in LENGTHS})


def remove(
    prompt: str,
    *,
    concept: str,
    generator: Generator,
    judge: Judge,
    seed: int = 0,
    scale: float | None = None,
    budget: int = BUDGET,
    cache: Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Removal:
    """Find the smallest window in which the negative `concept` removes it from the picture.

    Args:
        prompt: what is drawn.
        concept: what should go; a word or phrase that the judge knows.
        generator: a diffusion pipeline of negbench.
        judge: who says whether the concept is visible.
        seed: of the noise, 32 bits.
        scale: guidance scale; None for the generator's own.
        budget: pictures that may be drawn.
        cache: negbench's cache; None for the default one.
        device: where the judge computes.
        progress: gives a bar for a label and a total.

    Raises:
        ConfigError: blank prompt or concept, a scale without guidance, a budget below 2.
        NegbenchError: the generator or the judge cannot be used.
    """
    from negbench.store import default_cache

    calls = calls_of(generator)
    guidance = generator.default_guidance()
    if scale is not None:
        guidance = guidance.model_copy(update={"scale": float(scale)})
    _check(prompt, concept, seed=seed, budget=budget, scale=guidance.scale)
    generator.check_guidance(window_rule(guidance.scale, 0, 1))
    found = Removal("not removed", prompt, concept.strip(), seed, calls)
    search = _Search(
        generator,
        judge,
        found,
        guidance=guidance,
        cache=cache or default_cache(),
        device=device,
        budget=budget,
        progress=progress,
    )
    twin = search.look([(0, 0)])[0]
    if twin.present is None:
        found.status = "no verdict"
        return found
    if not twin.present:
        found.status = "not there"
        return found
    best = _shortest(search)
    if best is not None:
        best = _shrunk(search, best)
        found.status, found.best = "removed", best
        whole = search.look([(0, calls)])
        found.every_call = whole[0] if whole else None
        return found
    found.every_call = search.by_window.get((0, calls))
    told = [one for one in found.tried[1:] if one.probability is not None]
    found.best = min(told, key=lambda one: (one.probability, one.damage or 0.0), default=None)
    if search.left <= 0:
        found.note = f"the budget of {budget} pictures is used up; --budget allows more"
    return found


def _check(prompt: str, concept: str, *, seed: int, budget: int, scale: float) -> None:
    from negbench.types import MAX_TEXT

    for name, text in (("prompt", prompt), ("concept", concept)):
        if not text.strip():
            raise ConfigError(f"the {name} is blank; write what the picture should "
                              f"{'show' if name == 'prompt' else 'not show'}")  # fmt: skip
        if len(text) > MAX_TEXT:
            raise DataError(f"the {name} is longer than {MAX_TEXT} characters; shorten it")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"the {name} is not valid Unicode; write it in UTF-8") from error
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"--seed {seed} is not between 0 and {MAX_SEED}")
    if budget < 2:
        raise ConfigError(f"--budget {budget} leaves no picture beside the twin; give at least 2")
    if scale in (0, 1):
        raise ConfigError(f"at scale {scale:g} a negative prompt has no effect; raise it")


def _order(one: Try) -> tuple[float, int]:
    """Less change first, then the later start."""
    return (one.damage if one.damage is not None else 0.0, -one.window[0])


def _shortest(search: _Search) -> Try | None:
    """The least harmful window of the smallest length at which the concept is gone."""
    calls = search.found.calls
    for length in lengths(calls):
        tries = search.look(windows_of_length(length, calls=calls))
        gone = [one for one in tries if one.present is False]
        if gone:
            return min(gone, key=_order)
        if search.left <= 0:
            return None
    return None


def _shrunk(search: _Search, best: Try) -> Try:
    """The window made shorter from either end as long as the concept stays away."""
    while best.window[1] - best.window[0] > 1 and search.left > 1:
        start, stop = best.window
        tries = search.look([(start + 1, stop), (start, stop - 1)])
        gone = [one for one in tries if one.present is False]
        if not gone:
            return best
        best = min(gone, key=_order)
    return best
