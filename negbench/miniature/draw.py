"""The renderer: a scene in, 64x64 pixels out; the same scene always gives the same pixels.

Shapes are drawn with Pillow on 128x128 pixels (coordinates below run from 0 to 64) and halved.
Defects that move the picture (cropped, tilted) can push a part out of the frame, so drawing also
says which parts are still visible: captions and labels go by that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from negbench.miniature.effects import apply_late_defects, crop_and_tilt, paint, sketch, snow
from negbench.miniature.parts import (
    lay_pattern,
    put_behind,
    put_bird,
    put_on_face,
    put_on_top,
)
from negbench.miniature.shapes import FIGURES, SIZE, SKINS, Canvas, dots
from negbench.miniature.world import COLORS, PARTS, Scene


@dataclass(frozen=True)
class Drawing:
    """A rendered scene.

    Attributes:
        image: RGB, 64x64.
        visible: Parts of the scene that lie inside the frame, in the order of `PARTS`.
    """

    image: Image.Image
    visible: tuple[str, ...]


def draw(scene: Scene) -> Drawing:
    """Render a scene.

    Args:
        scene: What to draw.

    Returns:
        The picture and the parts visible in it.
    """
    rng = np.random.default_rng([scene.seed, 64])
    c = Canvas(rng, scene)
    color = tuple(int(np.clip(v + rng.uniform(-10, 10), 0, 255)) for v in COLORS[scene.color])
    skin = SKINS[int(rng.integers(len(SKINS)))]
    shown = scene.parts
    for part in shown:
        put_behind(c, part)
    anchors = FIGURES[scene.subject](c, color, skin)  # type: ignore[arg-type]
    for part in ("rusty", "striped", "spotted", "cracked"):
        if part in shown:
            lay_pattern(c, part, color)  # type: ignore[arg-type]
    if scene.subject in ("cat", "robot") and {"striped", "rusty", "cracked"} & set(shown):
        dots(c, anchors.eyes[0], anchors.eyes[1], anchors.eyes[2], 1.8)
    if "snowy" in shown:
        c.image = snow(c.image, c.body, rng)
        c.pen = ImageDraw.Draw(c.image)
    if "bird" in shown:
        put_bird(c)
    for part in ("beard", "glasses", "red nose", "scarf", "bow", "hat"):
        if part in shown:
            put_on_face(c, part, anchors, scene.subject)
    for part in shown:
        put_on_top(c, part, anchors, scene.subject)
    image = c.image
    if scene.background == "fog":
        image = Image.blend(image, Image.new("RGB", image.size, (208, 210, 212)), 0.30)
    if scene.style == "sketch":
        image = sketch(image)
    elif scene.style == "painting":
        image = paint(image, rng)
    image, inside = crop_and_tilt(image, scene.strength, rng)
    image = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    image = apply_late_defects(image, scene.strength, rng)
    visible = tuple(
        part for part in PARTS if part in shown and (part not in c.boxes or inside(c.boxes[part]))
    )
    return Drawing(image, visible)


def contact_sheet(images: list[Image.Image], *, columns: int, zoom: int = 2) -> Image.Image:
    """Lay 64x64 pictures out in rows, enlarged `zoom` times without smoothing."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * SIZE, rows * SIZE), (255, 255, 255))
    for i, image in enumerate(images):
        sheet.paste(image, ((i % columns) * SIZE, (i // columns) * SIZE))
    return sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST)


__all__ = ["Drawing", "contact_sheet", "draw"]
