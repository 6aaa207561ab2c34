"""What a negative prompt did to the rest of the picture: distance of an image to its twin.

SSIM, PSNR and LPIPS through torchmetrics, image by image, with every parameter stated. An image
without a twin (a twin itself) has no score but a reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from negbench.metrics import weights
from negbench.metrics.base import ImageMetric, Item, Pixels
from negbench.metrics.networks import check_pixels
from negbench.types import Score
from negbench.weight_files import file_digest

if TYPE_CHECKING:
    import torch

NO_TWIN = "no twin to compare with"
OTHER_SIZE = "its twin has another size"
SAME = "equal to its twin"
SSIM_SIGMA = 1.5
SSIM_SIDE = 11
"""Width of the Gaussian window: int(3.5 * sigma + 0.5) * 2 + 1."""
LPIPS_SIDE = {"alex": 31, "vgg": 16}
"""Smallest side whose deepest feature map has at least one cell."""


def _unit_tensor(pixels: Pixels) -> torch.Tensor:
    """uint8 (h, w, 3) to float64 (1, 3, h, w) in [0, 1]."""
    import torch

    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
    return torch.from_numpy(planes.astype(np.float64) / 255)


def structural_similarity(image: Pixels, twin: Pixels, *, return_full_image: bool = False) -> Any:
    """SSIM of two uint8 (h, w, 3) with the settings of `Ssim`, and its map if asked for."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(
        _unit_tensor(image).float(),
        _unit_tensor(twin).float(),
        gaussian_kernel=True,
        sigma=SSIM_SIGMA,
        data_range=1.0,
        k1=0.01,
        k2=0.03,
        return_full_image=return_full_image,
    )


def too_small_for_ssim(image: Pixels) -> Score | None:
    """The reason why a picture smaller than half of SSIM's window has no score."""
    if min(image.shape[:2]) > SSIM_SIDE // 2:
        return None
    return Score.missing(f"smaller than {SSIM_SIDE // 2 + 1} pixels, too small for SSIM")


class _TwinMetric(ImageMetric):
    """Scores an image against its twin, one pair at a time: pairs cannot touch each other."""

    needs_twin: ClassVar[bool] = True

    def score(self, items: Sequence[Item]) -> list[Score]:
        """Compare each image with its twin."""
        scores = []
        for item in items:
            image = check_pixels(item.pixels)
            if item.twin is None:
                scores.append(Score.missing(NO_TWIN))
                continue
            twin = check_pixels(item.twin)
            if image.shape != twin.shape:
                scores.append(Score.missing(OTHER_SIZE))
                continue
            scores.append(self._compare(image, twin))
        return scores

    def _compare(self, image: Pixels, twin: Pixels) -> Score:
        raise NotImplementedError


class Ssim(_TwinMetric):
    """Structural similarity to the twin (Wang et al. 2004), in [-1, 1]; 1 is the same picture.

    Gaussian window of sigma 1.5 (11 pixels), k1 0.01, k2 0.03, data range 1 of pixels in [0, 1],
    borders reflected, mean over pixels and the three channels, in single precision.
    """

    bounds: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)

    def _compare(self, image: Pixels, twin: Pixels) -> Score:
        small = too_small_for_ssim(image)
        return small or Score.of(float(structural_similarity(image, twin)))


class Psnr(_TwinMetric):
    """Peak signal-to-noise ratio to the twin in dB: 10 log10(1 / mean squared error), data range 1.

    Infinite for an image that equals its twin, which is a reason here and not a number (`no_op`
    counts such images).
    """

    unit: ClassVar[str] = "dB"

    def _compare(self, image: Pixels, twin: Pixels) -> Score:
        from torchmetrics.functional.image import peak_signal_noise_ratio

        if np.array_equal(image, twin):
            return Score.missing(SAME)
        value = peak_signal_noise_ratio(_unit_tensor(image), _unit_tensor(twin), data_range=1.0)
        return Score.of(float(value))


class Lpips(_TwinMetric):
    """Perceptual distance to the twin (LPIPS 0.1, Zhang et al. 1801.03924); 0 is the same picture.

    Linear heads as torchmetrics ships them over torchvision's ImageNet trunk, pixels scaled to
    [-1, 1], no resizing.
    """

    higher_is_better: ClassVar[bool | None] = False
    bounds: ClassVar[tuple[float, float] | None] = (0.0, math.inf)

    class Config(BaseModel):
        """Which trunk."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        net: Literal["alex", "vgg"] = Field(
            default="alex", description="alex (the authors' choice for comparing) or vgg"
        )

    def _net(self) -> Literal["alex", "vgg"]:
        assert isinstance(self.config, Lpips.Config)
        return self.config.net

    def check(self) -> None:
        """Refuse while planning if the trunk is not at hand."""
        weights.find(f"lpips-{self._net()}")

    def weight_digests(self) -> Sequence[str]:
        """Sha256 of trunk and linear heads."""
        import torchmetrics

        package = Path(torchmetrics.__file__).parent
        heads = package / "functional" / "image" / "lpips_models" / f"{self._net()}.pth"
        return (weights.FILES[f"lpips-{self._net()}"].sha256, file_digest(heads))

    @cached_property
    def module(self) -> Any:
        """LPIPS of torchmetrics with the pinned trunk, on the CPU."""
        from torchmetrics.functional.image.lpips import _LPIPS

        net = self._net()
        module = _LPIPS(pretrained=True, net=net, pnet_rand=True)
        state = {
            key.removeprefix("features."): value
            for key, value in weights.load_pickle(f"lpips-{net}").items()
            if key.startswith("features.")
        }
        # torchmetrics cuts the trunk into slices and keeps the layers' numbers.
        layers = {
            number: layer
            for index in range(1, module.net.N_slices + 1)
            for number, layer in getattr(module.net, f"slice{index}").named_children()
        }
        for number, layer in layers.items():
            parts = {k.removeprefix(f"{number}."): v for k, v in state.items()
                     if k.startswith(f"{number}.")}  # fmt: skip
            layer.load_state_dict(parts)
        return module.eval().requires_grad_(False)

    def _compare(self, image: Pixels, twin: Pixels) -> Score:
        import torch

        side = LPIPS_SIDE[self._net()]
        if min(image.shape[:2]) < side:
            return Score.missing(f"smaller than {side} pixels, too small for LPIPS")
        with torch.inference_mode():
            value = self.module(
                _unit_tensor(image).float(), _unit_tensor(twin).float(), normalize=True
            )
        return Score.of(float(value))


class NoOp(_TwinMetric):
    """1 if the image equals its twin pixel by pixel, else 0; the mean is the share of such images.

    Equal pictures mean that the negative prompt did nothing: an empty one, guidance off, a pipeline
    that ignores it.
    """

    unit: ClassVar[str] = "share"
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    higher_is_better: ClassVar[bool | None] = None

    def _compare(self, image: Pixels, twin: Pixels) -> Score:
        return Score.of(float(np.array_equal(image, twin)))
