"""Styles and defects: what happens to a drawing after its shapes are laid down."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

Box = tuple[float, float, float, float]


def snow(image: Image.Image, body: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cap the body's top edges and the ground with snow and let flakes fall (128x128)."""
    mask: np.ndarray[Any, Any] = np.asarray(body) > 0
    pixels = np.asarray(image).copy()
    top = mask.argmax(axis=0)
    rows = np.arange(mask.shape[0])[:, None]
    depth = 11 + (3 * np.sin(np.arange(mask.shape[1]) / 4.0)).astype(int)
    covered = np.asarray(mask.any(axis=0))
    cap = covered[None, :] & (rows >= top - 3) & (rows < top + depth)
    pixels[cap] = (250, 251, 255)
    pixels[112:] = (246, 248, 252)
    result = Image.fromarray(pixels)
    pen = ImageDraw.Draw(result)
    for x, y in rng.uniform(0, 112, (18, 2)):
        pen.ellipse((x, y, x + 4, y + 4), fill=(252, 252, 255))
    return result


def sketch(image: Image.Image) -> Image.Image:
    """Pencil on paper: dark lines where the drawing has edges, hardly any colour."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    soft = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(1.8)), dtype=np.float32)
    edges = np.clip(np.abs(grey - soft) * 3.6, 0, 205)
    shade = (grey - 200.0) * 0.16
    paper = np.clip(244.0 + np.minimum(shade, 0.0) - edges, 20, 255)
    tint = np.asarray(image, dtype=np.float32) - grey[..., None]
    return Image.fromarray(np.clip(paper[..., None] + 0.12 * tint, 0, 255).astype(np.uint8))


def paint(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brush strokes: short dabs of the picture's own colours in one leading direction."""
    base = np.asarray(image)
    result = image.filter(ImageFilter.GaussianBlur(1.0))
    pen = ImageDraw.Draw(result)
    lead = rng.uniform(0, math.pi)
    count = 800
    spots = rng.integers(0, image.width, (count, 2))
    angles = lead + rng.normal(0, 0.35, count)
    jitter = rng.normal(0, 17, (count, 1)) + rng.normal(0, 5, (count, 3))
    colors = np.clip(base[spots[:, 1], spots[:, 0]] + jitter, 0, 255).astype(int)
    dx, dy = 3.5 * np.cos(angles), 3.5 * np.sin(angles)
    for (x, y), cx, cy, color in zip(spots, dx, dy, colors, strict=True):
        pen.line((x - cx, y - cy, x + cx, y + cy), fill=tuple(map(int, color)), width=3)
    return Image.blend(image, result, 0.8)


def crop_and_tilt(
    image: Image.Image, strength: dict[str, float], rng: np.random.Generator
) -> tuple[Image.Image, Callable[[Box], bool]]:
    """Apply the defects that move the picture.

    Args:
        image: 128x128.
        strength: Strength of each defect present.
        rng: Source of direction.

    Returns:
        The picture, and a test whether a box (in old pixels) is still mostly in the frame.
    """
    size = image.width
    zoom, angle, cx, cy = 1.0, 0.0, size / 2, size / 2
    if s := strength.get("cropped"):
        zoom = 1.25 + 0.25 * s
        reach = size * (0.16 + 0.16 * s)
        turn = rng.uniform(0, 2 * math.pi)
        cx, cy = cx + reach * math.cos(turn), cy + reach * 0.8 * math.sin(turn)
    if s := strength.get("tilted"):
        angle = math.radians((9 + 17 * s) * rng.choice((-1.0, 1.0)))
    if zoom == 1.0 and angle == 0.0:
        return image, lambda box: True
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    half = size / 2
    matrix = (cos, sin, cx - cos * half - sin * half, -sin, cos, cy + sin * half - cos * half)
    fill = (236, 236, 240)
    if zoom > 1.0:
        wide = Image.fromarray(np.pad(np.asarray(image), ((size, size),) * 2 + ((0, 0),), "edge"))
        a, b, c, d, e, f = matrix
        matrix = (a, b, c + size, d, e, f + size)
        moved = wide.transform((size, size), Image.Transform.AFFINE, matrix,
                               Image.Resampling.BILINEAR, fillcolor=fill)  # fmt: skip
    else:
        moved = image.transform((size, size), Image.Transform.AFFINE, matrix,
                                Image.Resampling.BILINEAR, fillcolor=fill)  # fmt: skip

    def inside(box: Box) -> bool:
        xs = np.linspace(box[0], box[2], 5)[None, :] - cx
        ys = np.linspace(box[1], box[3], 5)[:, None] - cy
        u = (math.cos(angle) * xs - math.sin(angle) * ys) * zoom + half
        v = (math.sin(angle) * xs + math.cos(angle) * ys) * zoom + half
        return float(((u > 0) & (u < size) & (v > 0) & (v < size)).mean()) >= 0.6

    return moved, inside


def _saturate(image: Image.Image, s: float) -> Image.Image:
    image = ImageEnhance.Color(image).enhance(2.2 + 1.4 * s)
    return ImageEnhance.Contrast(image).enhance(1.3 + 0.4 * s)


def _watermark(image: Image.Image, s: float, rng: np.random.Generator) -> Image.Image:
    layer = Image.new("L", (96, 30), 0)
    ImageDraw.Draw(layer).text((2, -2), "SAMPLE", fill=255, font=ImageFont.load_default(22))
    box = layer.getbbox() or (0, 0, 96, 30)
    layer = layer.crop(box).resize((60, 15), Image.Resampling.BILINEAR)
    layer = layer.rotate(float(rng.uniform(8, 22)), expand=True, resample=Image.Resampling.BILINEAR)
    alpha = layer.point(lambda v: int(v * (0.6 + 0.4 * s)))
    place = (int(rng.integers(-1, 4)), int(rng.integers(12, 32)))
    shadow = Image.new("RGB", alpha.size, (40, 40, 40))
    image = image.copy()
    image.paste(shadow, (place[0] + 1, place[1] + 1), alpha.point(lambda v: int(v * 0.6)))
    image.paste(Image.new("RGB", alpha.size, (255, 255, 255)), place, alpha)
    return image


def _speckle(image: Image.Image, s: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image).copy()
    for _ in range(int(40 + 80 * s)):
        x, y = rng.integers(0, 63, 2)
        pixels[y : y + 2, x : x + 2] = 245 if rng.random() < 0.5 else 15
    return Image.fromarray(pixels)


def apply_late_defects(
    image: Image.Image, strength: dict[str, float], rng: np.random.Generator
) -> Image.Image:
    """Apply the defects that work on final pixels (64x64), in a fixed order."""
    if s := strength.get("doubled"):
        shift = round(8 + 5 * s) * int(rng.choice((-1, 1)))
        ghost = Image.fromarray(np.roll(np.asarray(image), (shift // 3, shift), axis=(0, 1)))
        image = Image.blend(image, ghost, 0.36 + 0.12 * s)
    if s := strength.get("oversaturated"):
        image = _saturate(image, s)
    if s := strength.get("washed out"):
        image = Image.blend(image, Image.new("RGB", image.size, (222, 220, 214)), 0.45 + 0.25 * s)
    if s := strength.get("dark"):
        image = ImageEnhance.Brightness(image).enhance(0.50 - 0.20 * s)
    if s := strength.get("blurry"):
        image = image.filter(ImageFilter.GaussianBlur(1.1 + 1.2 * s))
    if s := strength.get("pixelated"):
        cells = round(20 - 8 * s)
        small = image.resize((cells, cells), Image.Resampling.BOX)
        image = small.resize(image.size, Image.Resampling.NEAREST)
    if s := strength.get("noisy"):
        image = _speckle(image, s, rng)
    if s := strength.get("watermark"):
        image = _watermark(image, s, rng)
    return image
