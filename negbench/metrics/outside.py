"""Damage to the twin beside the concept: what changed that had no reason to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from negbench.errors import ConfigError
from negbench.metrics.base import Item, Pixels
from negbench.metrics.damage import (
    NO_TWIN,
    OTHER_SIZE,
    SSIM_SIDE,
    structural_similarity,
    too_small_for_ssim,
)
from negbench.metrics.networks import check_pixels
from negbench.metrics.presence import NO_CONCEPT, TwinJudgedMetric
from negbench.store import pixel_digest
from negbench.types import Score


class SsimOutside(TwinJudgedMetric):
    """SSIM with the twin outside the concept's region in the twin, in [-1, 1]; 1 is untouched.

    The region is the judge's boxes or mask for the case's concept in the twin, wider by half of
    SSIM's window (5 pixels) on each side, so that no window outside it reads a pixel inside. The
    mean of `ssim`'s map over all other pixels. Unscored where the judge sees no concept in the
    twin, does not say where, or where the region fills the picture. Needs a judge that gives
    regions: ``detector``.
    """

    bounds: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)

    def check(self) -> None:
        """Refuse a judge that cannot be asked, or that never says where it sees a concept."""
        super().check()
        if not self.judge.gives_region:
            raise ConfigError(
                f"metric ssim_outside: judge {self.judge.name} does not say where it sees a "
                "concept; choose one that does, for example judge=detector"
            )

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Compare each image with its twin, outside the region in the twin."""
        from negbench.judges import Question
        from negbench.judges.ask import ask

        asked = {
            at: Question(pixel_digest(item.twin), item.twin, item.case.concept)
            for at, item in enumerate(items)
            if item.twin is not None and item.case.concept
        }
        judge = self.judge
        said = ask(judge, list(asked.values()), cache=judge.cache, device=judge.device)
        verdicts = dict(zip(asked, said, strict=True))
        scores = []
        for at, item in enumerate(items):
            if item.twin is None:
                scores.append(Score.missing(NO_TWIN))
            elif at not in verdicts:
                scores.append(Score.missing(NO_CONCEPT))
            elif verdicts[at].present is None:
                scores.append(Score.missing(verdicts[at].unscored or "no verdict on the twin"))
            elif not verdicts[at].present:
                scores.append(Score.missing("the judge does not see the concept in the twin"))
            else:
                height, width = item.twin.shape[:2]
                region = verdicts[at].region(height, width)
                scores.append(outside(item.pixels, item.twin, region))
        return scores


def ssim_map(image: Pixels, twin: Pixels) -> npt.NDArray[np.float32]:
    """SSIM pixel by pixel, mean over the three channels, float32 (h, w); its mean is `Ssim`."""
    _, full = structural_similarity(image, twin, return_full_image=True)
    return np.asarray(full[0].mean(dim=0).numpy(), dtype=np.float32)


def outside(image: Pixels, twin: Pixels, region: npt.NDArray[np.bool_] | None) -> Score:
    """Mean SSIM with the twin over pixels whose window has none of the region.

    Args:
        image: uint8 (h, w, 3).
        twin: uint8 (h, w, 3).
        region: bool (h, w), or None where the judge does not say where.
    """
    from scipy.ndimage import binary_dilation

    if region is None:
        return Score.missing("the judge does not say where it sees the concept")
    if check_pixels(image).shape != check_pixels(twin).shape:
        return Score.missing(OTHER_SIZE)
    small = too_small_for_ssim(image)
    if small is not None:
        return small
    wide = np.ones((SSIM_SIDE, SSIM_SIDE), dtype=np.bool_)
    rest = ~binary_dilation(region, structure=wide)
    if not rest.any():
        return Score.missing("the concept's region fills the twin")
    return Score.of(float(ssim_map(image, twin)[rest].mean()))
