"""What measures: metrics by name."""

from __future__ import annotations

from negbench.metrics.base import ImageMetric, Item, Metric, Network, SetMetric
from negbench.registry import Registry

metrics: Registry[Metric] = Registry(
    "metric",
    group="negbench.metrics",
    base="negbench.metrics.base:Metric",
    builtins={
        "inception_score": (
            "negbench.metrics.inception:InceptionScore",
            "diversity and certainty of a classifier's answers (1606.03498)",
        ),
        "clip_alignment": (
            "negbench.metrics.clip:ClipAlignment",
            "cosine of image and positive prompt",
        ),
        "clip_to_negative": (
            "negbench.metrics.clip:ClipToNegative",
            "cosine of image and negative prompt, lower is better",
        ),
        "aesthetic": ("negbench.metrics.aesthetic:Aesthetic", "a head over CLIP embeddings"),
        "ssim": ("negbench.metrics.damage:Ssim", "structural similarity to the twin"),
        "psnr": ("negbench.metrics.damage:Psnr", "peak signal-to-noise ratio to the twin, dB"),
        "lpips": ("negbench.metrics.damage:Lpips", "perceptual distance to the twin (1801.03924)"),
        "no_op": ("negbench.metrics.damage:NoOp", "share of images equal to their twin"),
        "presence": (
            "negbench.metrics.presence:Presence",
            "probability that the case's concept is visible, as a judge says",
        ),
        "ssim_outside": (
            "negbench.metrics.outside:SsimOutside",
            "structural similarity to the twin outside the concept's region",
        ),
        "closer_to_twin": (
            "negbench.metrics.closer:CloserToTwin",
            "a judge asked in both orders: treated picture or negative at every step",
        ),
        "evaluations": ("negbench.metrics.cost:Evaluations", "denoiser predictions an image"),
    },
)

__all__ = ["ImageMetric", "Item", "Metric", "Network", "SetMetric", "metrics"]
