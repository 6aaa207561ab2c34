"""Pictures with a negative prompt in a window, beside their twins: drawn, judged, compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from negbench.drawing import provenance
from negbench.errors import NegbenchError, PluginError, RecordError, one_line
from negbench.progress import Progress
from negbench.store import ImageStore
from negbench.timing.plan import Resolved, Unit
from negbench.types import ImageRequest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHUNK = 256
"""Pictures that are judged and compared together."""


@dataclass(frozen=True)
class Shot:
    """A unit's picture with a negative in model calls [start, stop).

    Attributes:
        unit: case and noise.
        negative: the negative prompt.
        start: first call with it.
        stop: first call without it again.
    """

    unit: Unit
    negative: str
    start: int
    stop: int


@dataclass(frozen=True)
class Outcome:
    """What became of a shot.

    Attributes:
        shot: which.
        present: whether the judge sees the unit's concept; None where it gives no verdict.
        twin_present: the same of the twin.
        damage: 1 - SSIM to the twin; None where the picture is too small for SSIM.
        squared: mean squared difference to the twin, pixels in [0, 1].
    """

    shot: Shot
    present: bool | None
    twin_present: bool | None
    damage: float | None
    squared: float

    @property
    def prompt(self) -> str:
        """The cluster."""
        return self.shot.unit.case.prompt


class Pictures:
    """Draws what no store has and reads what it has.

    Attributes:
        drawn: pictures drawn by this object.
        alone: predictions they would have needed one by one.
        paid: predictions that were made for them; equal beginnings are drawn once.
    """

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.store = ImageStore(resolved.cache)
        self.drawn = 0
        self.alone = 0
        self.paid = 0

    def draw(self, requests: Iterable[ImageRequest], *, progress: Progress, label: str) -> None:
        """Draw those that the store does not have, all in one call so that they can share.

        Raises:
            NegbenchError: the generator failed or the disk is full; what was drawn is kept.
        """
        wanted = {request.key(): request for request in requests}
        self.store.fetch(wanted, progress=progress)
        missing = {k: request for k, request in wanted.items() if self.store.get(k) is None}
        if not missing:
            return
        generator = self.resolved.generator
        about = {**provenance(), "generator": generator.describe()}
        with progress(label, len(missing)) as bar:
            try:
                for drawn in generator.draw(list(missing.values())):
                    self.store.put(drawn, missing[drawn.key], provenance=about)
                    self.drawn += 1
                    self.alone += drawn.evaluations
                    self.paid += drawn.evaluations - drawn.shared
                    bar.update()
            except (NegbenchError, KeyboardInterrupt):
                raise
            except Exception as error:
                raise PluginError(
                    f"generator {generator.ref().name} failed after {self.drawn} images: "
                    f"{type(error).__name__}: {one_line(str(error), limit=300)} "
                    "(what was drawn is kept; the same command goes on)"
                ) from error

    def pixels(self, request: ImageRequest) -> tuple[str, npt.NDArray[np.uint8]]:
        """Digest and pixels of a drawn picture.

        Raises:
            RecordError: it cannot be read back.
        """
        key = request.key()
        stored = self.store.get(key)
        pixels = None if stored is None else self.store.load(stored)
        if stored is None or pixels is None:
            self.store.discard(key)
            raise RecordError(
                f"image {self.store.png_path(key)} cannot be read back; give the same command again"
            )
        return stored.image, pixels


def take(
    pictures: Pictures, shots: Sequence[Shot], *, progress: Progress, label: str
) -> list[Outcome]:
    """Draw, judge and compare shots, in order; equal pictures are drawn and judged once."""
    resolved = pictures.resolved
    wanted = [request_of(resolved, shot) for shot in shots]
    twins = {shot.unit: resolved.request(shot.unit) for shot in shots}
    pictures.draw([*twins.values(), *wanted], progress=progress, label=label)
    outcomes: list[Outcome] = []
    with progress(f"{label}: judging", len(shots)) as bar:
        for start in range(0, len(shots), CHUNK):
            block = list(zip(shots, wanted, strict=True))[start : start + CHUNK]
            outcomes += _judged(pictures, block, twins)
            bar.update(len(block))
    return outcomes


def request_of(resolved: Resolved, shot: Shot) -> ImageRequest:
    """The request of a shot."""
    return resolved.request(shot.unit, negative=shot.negative, window=(shot.start, shot.stop))


def _judged(
    pictures: Pictures,
    block: Sequence[tuple[Shot, ImageRequest]],
    twins: dict[Unit, ImageRequest],
) -> list[Outcome]:
    from negbench.judges import Question
    from negbench.judges.ask import ask

    resolved = pictures.resolved
    questions: dict[tuple[str, str], Question] = {}
    pairs = []
    loaded = {unit: pictures.pixels(twins[unit]) for unit in {shot.unit for shot, _ in block}}
    for shot, request in block:
        own, before = pictures.pixels(request), loaded[shot.unit]
        for image, pixels in (own, before):
            question = Question(image=image, pixels=pixels, concept=shot.unit.concept)
            questions.setdefault((image, shot.unit.concept), question)
        pairs.append((own, before))
    verdicts = ask(
        resolved.judge,
        list(questions.values()),
        cache=resolved.cache,
        device=resolved.options.device,
    )
    said = {place: verdict.present for place, verdict in zip(questions, verdicts, strict=True)}
    damages = similarity([own[1] for own, _ in pairs], [before[1] for _, before in pairs])
    outcomes = []
    for (shot, _), (own, before), ssim in zip(block, pairs, damages, strict=True):
        concept = shot.unit.concept
        outcomes.append(
            Outcome(
                shot=shot,
                present=said[own[0], concept],
                twin_present=said[before[0], concept],
                damage=None if ssim is None else 1.0 - ssim,
                squared=squared_difference(own[1], before[1]),
            )
        )
    return outcomes


def squared_difference(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    """Mean squared difference of two pictures, pixels in [0, 1]."""
    import numpy as np

    return float(np.square((first.astype(np.float64) - second.astype(np.float64)) / 255).mean())


def similarity(
    images: Sequence[npt.NDArray[np.uint8]], twins: Sequence[npt.NDArray[np.uint8]]
) -> list[float | None]:
    """SSIM of each picture to its twin, as the metric ``ssim`` has it; None if too small.

    Args:
        images: uint8 (height, width, 3), all of one size.
        twins: the same.
    """
    import numpy as np
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    from negbench.metrics.damage import SSIM_SIDE, SSIM_SIGMA

    if not images or min(images[0].shape[:2]) <= SSIM_SIDE // 2:
        return [None] * len(images)

    def planes(block: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        stacked = np.stack(block).transpose(0, 3, 1, 2).astype(np.float64) / 255
        return torch.from_numpy(np.ascontiguousarray(stacked)).float()

    size = max(1, (1 << 22) // images[0].size)
    values: list[float | None] = []
    for start in range(0, len(images), size):
        found = structural_similarity_index_measure(
            planes(images[start : start + size]),
            planes(twins[start : start + size]),
            gaussian_kernel=True,
            sigma=SSIM_SIGMA,
            data_range=1.0,
            k1=0.01,
            k2=0.03,
            reduction="none",
        )
        assert isinstance(found, torch.Tensor)
        values += [float(value) for value in found.flatten()]
    return values
