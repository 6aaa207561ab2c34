"""The renderer: a scene in, 64x64 pixels out; the same scene always gives the same pixels.

Shapes are drawn with Pillow on 128x128 pixels (coordinates below run from 0 to 64) and halved.
Defects that move the picture (cropped, tilted) can push a part out of the frame, so drawing also
says which parts are still visible: captions and labels go by that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from negbench.miniature.effects import apply_late_defects, crop_and_tilt, paint, sketch, snow
from negbench.miniature.world import COLORS, PARTS, Scene

SIZE = 64
_UP = 2
_INK = (48, 44, 50)
Color = tuple[int, int, int]
Box = tuple[float, float, float, float]
Point = tuple[float, float]

SKINS: tuple[Color, ...] = ((240, 208, 176), (214, 166, 124), (142, 96, 66))
_GROUND: dict[str, tuple[Color, Color]] = {
    "day": ((170, 206, 232), (128, 172, 108)),
    "night": ((38, 42, 84), (40, 60, 62)),
    "beach": ((150, 208, 222), (228, 206, 150)),
    "indoor": ((214, 190, 166), (150, 108, 78)),
    "fog": ((206, 208, 210), (184, 188, 188)),
    "sunset": ((240, 158, 112), (134, 98, 104)),
}


@dataclass(frozen=True)
class Drawing:
    """A rendered scene.

    Attributes:
        image: RGB, 64x64.
        visible: Parts of the scene that lie inside the frame, in the order of `PARTS`.
    """

    image: Image.Image
    visible: tuple[str, ...]


class _Canvas:
    """A 128x128 drawing with a body mask, a size and a place for the subject."""

    def __init__(self, rng: np.random.Generator, scene: Scene) -> None:
        self.rng = rng
        sky, ground = _GROUND[scene.background]
        self.image = Image.new("RGB", (SIZE * _UP, SIZE * _UP), sky)
        self.pen = ImageDraw.Draw(self.image)
        self.body = Image.new("L", self.image.size, 0)
        self._body_pen = ImageDraw.Draw(self.body)
        self.k = float(rng.uniform(0.9, 1.04))
        self.dx = float(rng.uniform(-3.5, 3.5))
        self.dy = float(rng.uniform(-1.5, 1.5))
        self.boxes: dict[str, Box] = {}
        horizon = 46 + float(rng.uniform(-3, 3))
        self.pen.rectangle((0, horizon * _UP, 128, 128), fill=ground)
        if scene.background == "fog":
            for y in range(6, 64, 13):
                shade = 222 if (y // 13) % 2 else 194
                self.pen.rectangle((0, y * _UP, 128, (y + 5) * _UP), fill=(shade,) * 3)
        if scene.background == "indoor":
            self.pen.rectangle((4 * _UP, 5 * _UP, 15 * _UP, 18 * _UP), fill=(176, 206, 222),
                               outline=(120, 84, 60), width=3)  # fmt: skip
        if scene.background == "night":
            for _ in range(7):
                x, y = rng.uniform(2, 126), rng.uniform(2, 60)
                self.pen.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(236, 232, 200))
        if scene.background == "sunset":
            self.pen.ellipse((84, 60, 118, 94), fill=(250, 214, 120))
            self.pen.rectangle((0, horizon * _UP, 128, 128), fill=ground)

    def at(self, x: float, y: float) -> Point:
        return (
            (32 + (x - 32) * self.k + self.dx) * _UP,
            (56 + (y - 56) * self.k + self.dy) * _UP,
        )

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Color,
             *, body: bool = False, line: Color | None = _INK, width: int = 2) -> None:  # fmt: skip
        box = (*self.at(x - rx, y - ry), *self.at(x + rx, y + ry))
        self.pen.ellipse(box, fill=fill, outline=line, width=width if line else 0)
        if body:
            self._body_pen.ellipse(box, fill=255)

    def poly(self, points: list[Point], fill: Color,
             *, body: bool = False, line: Color | None = _INK) -> None:  # fmt: skip
        placed = [self.at(*p) for p in points]
        self.pen.polygon(placed, fill=fill, outline=line, width=2 if line else 0)
        if body:
            self._body_pen.polygon(placed, fill=255)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Color,
             *, body: bool = False, line: Color | None = _INK) -> None:  # fmt: skip
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, body=body, line=line)

    def path(self, points: list[Point], color: Color, width: float) -> None:
        self.pen.line([self.at(*p) for p in points], fill=color,
                      width=max(1, round(width * _UP)), joint="curve")  # fmt: skip

    def mark(self, part: str, x0: float, y0: float, x1: float, y1: float) -> None:
        (a, b), (c, d) = self.at(x0, y0), self.at(x1, y1)
        self.boxes[part] = (a, b, c, d)


@dataclass(frozen=True)
class _Anchors:
    """Where parts sit on a subject: (x, y) of face features and of the top."""

    head: tuple[float, float, float] = (32, 20, 10)  # x, top y, half width: hat
    eyes: tuple[float, float, float] = (32, 27, 4.4)  # x, y, half distance
    nose: Point = (32, 31)
    chin: tuple[float, float, float] = (32, 36, 9)  # x, y, half width
    neck: tuple[float, float, float] = (32, 42, 9)
    bow: Point = (32, 18)
    top: Point = (32, 20)


def _dots(c: _Canvas, x: float, y: float, gap: float, r: float = 1.5) -> None:
    for side in (-1, 1):
        c.oval(x + side * gap, y, r, r, _INK, line=None)


def _professor(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.poly([(14, 64), (18, 47), (26, 43), (38, 43), (46, 47), (50, 64)], color, body=True)
    c.poly([(27, 43), (37, 43), (32, 56)], (240, 240, 236))
    c.poly([(31, 46), (33, 46), (34, 55), (32, 58), (30, 55)], (150, 50, 60), line=None)
    for side in (-1, 1):
        c.oval(32 + side * 10.5, 27, 4, 5.5, (176, 176, 180))
    c.oval(32, 28, 9.8, 14.5, skin)
    _dots(c, 32, 27, 4.2)
    c.path([(28, 37), (36, 37)], (130, 60, 60), 1.2)
    return _Anchors((32, 16, 9), (32, 27, 4.6), (32, 32), (32, 38, 9), (32, 45, 8), (32, 46))


def _girl(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    hair = (120, 74, 44)
    c.oval(32, 24, 12.5, 13, hair)
    c.rect(20, 25, 44, 38, hair, line=None)
    for side in (-1, 1):
        c.path([(32 + side * 4, 56), (32 + side * 4, 63)], skin, 2.6)
        c.path([(32 + side * 5, 38), (32 + side * 14, 46)], skin, 2.8)
    c.poly([(27, 34), (37, 34), (47, 58), (17, 58)], color, body=True)
    c.oval(32, 25, 9.5, 10, skin)
    c.poly([(23, 22), (28, 16), (36, 16), (41, 22), (36, 19), (28, 19)], hair, line=None)
    _dots(c, 32, 25, 4)
    c.path([(29, 31), (32, 32.4), (35, 31)], (180, 60, 70), 1.2)
    return _Anchors((32, 14, 10), (32, 25, 4.5), (32, 28.5), (32, 33, 8), (32, 36, 7), (39, 14))


def _pirate(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.poly([(8, 64), (12, 47), (24, 43), (40, 43), (52, 47), (56, 64)], color, body=True)
    c.poly([(21, 19), (43, 19), (43, 38), (38, 43), (26, 43), (21, 38)], skin)
    c.poly([(20.5, 20), (32, 14), (43.5, 20), (43.5, 23), (20.5, 23)], (150, 44, 52))
    c.path([(21, 22), (43, 33)], _INK, 1.2)
    c.oval(36.5, 28.5, 4, 3.8, _INK, line=None)
    c.oval(27.5, 28.5, 1.6, 1.6, _INK, line=None)
    c.oval(44, 35, 1.8, 1.8, (236, 196, 60))
    c.path([(28, 38), (36, 38)], (130, 60, 60), 1.3)
    return _Anchors((32, 18, 11.5), (32, 28, 5), (32, 33), (32, 38, 11), (32, 45, 11), (32, 15))


def _clown(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.poly([(16, 64), (20, 50), (44, 50), (48, 64)], color, body=True)
    for x in range(14, 51, 6):
        c.oval(x, 50, 4.5, 3.8, (244, 226, 120) if x % 12 == 2 else color, body=x % 12 != 2)
    for side in (-1, 1):
        c.oval(32 + side * 15, 24, 7.5, 8, (226, 118, 40))
    c.oval(32, 31, 14, 15, (246, 244, 240))
    for side in (-1, 1):
        c.oval(32 + side * 5.5, 26, 3, 4, (104, 164, 220), line=None)
    _dots(c, 32, 26.5, 5.5, 1.7)
    c.oval(32, 39.5, 7.5, 3.6, (206, 50, 60))
    c.rect(26, 38.6, 38, 40, (246, 244, 240), line=None)
    return _Anchors((32, 17, 11), (32, 26.5, 5.6), (32, 32.5), (32, 43, 11), (32, 50, 10), (32, 51))


def _snowman(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    white, edge = (240, 244, 248), (110, 124, 150)
    for side in (-1, 1):
        c.path([(32 + side * 10, 42), (32 + side * 21, 34)], (104, 72, 48), 2)
    c.oval(32, 50, 15, 13.5, white, body=True, line=edge)
    c.oval(32, 28, 11, 10.5, white, body=True, line=edge)
    for y in (44, 50, 56):
        c.oval(32, y, 1.7, 1.7, _INK, line=None)
    _dots(c, 32, 26, 4.2, 1.7)
    c.path([(28, 34), (32, 35.4), (36, 34)], _INK, 1.2)
    return _Anchors((32, 19, 9.5), (32, 26, 4.8), (32, 30), (32, 36, 9), (32, 38.5, 9.5), (32, 19))


def _robot(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    grey = (150, 156, 166)
    for side in (-1, 1):
        c.rect(32 + side * 7 - 3, 55, 32 + side * 7 + 3, 63, grey)
        c.rect(32 + side * 17 - 2.5, 37, 32 + side * 17 + 2.5, 53, grey)
    c.rect(18, 36, 46, 56, color, body=True)
    c.rect(27, 33, 37, 36, grey)
    c.rect(20, 17, 44, 33, color, body=True)
    for side in (-1, 1):
        c.rect(32 + side * 5.6 - 2.6, 21.5, 32 + side * 5.6 + 2.6, 26.5, (250, 226, 110))
    c.rect(25, 29, 39, 31, (236, 236, 236))
    return _Anchors((32, 17, 11), (32, 24, 5.6), (32, 28), (32, 33, 9), (32, 34, 8),
                    (32, 16), (27, 17))  # fmt: skip


def _cat(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.path([(42, 58), (51, 55), (53, 46), (49, 41)], color, 4)
    c.oval(32, 51, 11.5, 12.5, color, body=True)
    for side in (-1, 1):
        ear = [(32 + side * 11, 27), (32 + side * 10.5, 12), (32 + side * 2, 20)]
        c.poly(ear, color, body=True)
    c.oval(32, 28, 12, 10.5, color, body=True)
    for side in (-1, 1):
        c.oval(32 + side * 4.8, 27, 2.6, 2.8, (190, 220, 110), line=_INK, width=1)
        c.oval(32 + side * 4.8, 27, 1, 2.4, _INK, line=None)
        for dy in (0, 2.4):
            c.path([(32 + side * 6, 31.5 + dy), (32 + side * 15, 30.5 + 1.6 * dy)], _INK, 0.7)
    c.poly([(30.5, 30.5), (33.5, 30.5), (32, 32.5)], (220, 130, 140))
    return _Anchors((32, 19, 9), (32, 27, 5), (32, 31.5), (32, 35, 8), (32, 39.5, 9), (40, 17))


def _dog(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.path([(13, 38), (7, 30)], color, 3.5)
    for x in (16, 22, 35, 41):
        c.rect(x - 2.2, 46, x + 2.2, 61, color)
    c.poly([(11, 37), (16, 34), (40, 34), (46, 38), (45, 49), (13, 49)], color, body=True)
    c.poly([(44, 25), (57, 28), (57, 34), (46, 36)], color, body=True)
    c.oval(43, 28, 9, 9, color, body=True)
    c.oval(37, 31, 3.6, 7.5, (92, 64, 48))
    c.oval(56.5, 29.5, 2.2, 2, _INK, line=None)
    c.oval(46, 26, 1.6, 1.6, _INK, line=None)
    return _Anchors((43, 20, 8.5), (46, 26, 4.4), (57, 30), (49, 37, 6.5), (42, 38.5, 7.5), (43, 19))


def _car(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.poly([(18, 38), (23, 26), (42, 26), (49, 38)], color, body=True)
    c.poly([(22, 37), (25, 29), (31.5, 29), (31.5, 37)], (178, 214, 232))
    c.poly([(34, 37), (34, 29), (40.5, 29), (45, 37)], (178, 214, 232))
    c.poly([(8, 52), (8, 41), (14, 37), (52, 37), (57, 42), (57, 52)], color, body=True)
    for x in (18, 47):
        c.oval(x, 52, 6, 6, (50, 50, 54))
        c.oval(x, 52, 2.6, 2.6, (190, 190, 196), line=None)
    c.oval(55, 44, 2, 2, (250, 236, 150))
    return _Anchors(top=(27, 26))


def _boat(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.pen.rectangle((0, 106, 128, 128), fill=(70, 120, 170))
    for x in range(-4, 128, 20):
        c.pen.arc((x, 108, x + 16, 116), 180, 360, fill=(180, 210, 230), width=2)
    c.path([(30, 46), (30, 18)], (110, 76, 50), 1.8)
    c.poly([(32, 19), (32, 42), (48, 42)], (244, 240, 228))
    c.poly([(9, 44), (55, 44), (47, 56), (17, 56)], color, body=True)
    return _Anchors(top=(30, 18))


def _house(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.rect(17, 36, 47, 58, color, body=True)
    c.poly([(12, 37), (32, 19), (52, 37)], (136, 74, 60), body=True)
    c.rect(28.5, 46, 35.5, 58, (110, 76, 50))
    for x in (20, 38):
        c.rect(x, 41, x + 6, 47, (250, 232, 160))
    return _Anchors(top=(32, 19))


def _cup(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.oval(45, 42, 6.5, 7, color)
    c.oval(45, 42, 3, 3.6, (200, 196, 190))
    c.poly([(18, 31), (44, 31), (41, 56), (21, 56)], color, body=True)
    c.oval(31, 31, 13, 3.6, (96, 62, 44))
    return _Anchors(top=(31, 31))


def _cake(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.oval(32, 57, 23, 3.6, (226, 228, 232))
    c.rect(13, 43, 51, 57, color, body=True)
    c.rect(20, 31, 44, 43, color, body=True)
    for x in range(16, 50, 7):
        c.oval(x, 44, 3.7, 2.7, (250, 244, 236), line=None)
    for x in range(23, 44, 6):
        c.oval(x, 32, 3.4, 2.5, (250, 244, 236), line=None)
    return _Anchors(top=(32, 30))


def _apple(c: _Canvas, color: Color, skin: Color) -> _Anchors:
    c.oval(27, 43, 11.5, 14.5, color, body=True)
    c.oval(37, 43, 11.5, 14.5, color, body=True)
    c.oval(32, 44, 11.5, 13, color, body=True, line=None)
    c.path([(32, 32), (33.5, 22)], (98, 66, 42), 2.2)
    c.oval(25, 37, 2.6, 3.8, tuple(min(255, v + 50) for v in color), line=None)  # type: ignore[arg-type]
    return _Anchors(top=(33, 24))


_SUBJECTS: dict[str, Callable[[_Canvas, Color, Color], _Anchors]] = {
    "professor": _professor, "girl": _girl, "pirate": _pirate, "clown": _clown,
    "snowman": _snowman, "robot": _robot, "cat": _cat, "dog": _dog, "car": _car, "boat": _boat,
    "house": _house, "cup": _cup, "cake": _cake, "apple": _apple,
}  # fmt: skip


def _pattern(c: _Canvas, part: str, color: Color) -> None:
    """Lay stripes, spots, rust or cracks over the body."""
    light = sum(color) > 480
    ink = Image.new("RGB", c.image.size, color)
    mask = Image.new("L", c.image.size, 0)
    pen = ImageDraw.Draw(mask)
    rng = c.rng
    if part == "striped":
        ink.paste((70, 70, 90) if light else (246, 240, 224), (0, 0, 128, 128))
        start = int(rng.integers(0, 14))
        for y in range(start - 14, 128, 15):
            pen.rectangle((0, y, 128, y + 6), fill=255)
    elif part == "spotted":
        ink.paste((70, 70, 90) if light else (246, 240, 224), (0, 0, 128, 128))
        shift = rng.uniform(0, 16, 2)
        for row, y in enumerate(np.arange(-16, 130, 14)):
            for x in np.arange(-16, 140, 17):
                cx, cy = x + shift[0] + 8 * (row % 2), y + shift[1]
                pen.ellipse((cx - 4.5, cy - 4.5, cx + 4.5, cy + 4.5), fill=255)
    elif part == "rusty":
        ink.paste((134, 66, 26), (0, 0, 128, 128))
        area = np.argwhere(np.asarray(c.body) > 0)
        for y, x in area[rng.integers(0, len(area), 9)]:
            r = rng.uniform(5, 10)
            pen.ellipse((x - r, y - r * 0.8, x + r, y + r * 0.8), fill=255)
            dx, dy = rng.uniform(-7, 7, 2)
            pen.ellipse((x + dx - r * 0.6, y + dy - r * 0.6, x + dx + r * 0.6, y + dy + r * 0.6),
                        fill=255)  # fmt: skip
    else:
        ink.paste((226, 222, 214) if sum(color) < 240 else (30, 26, 30), (0, 0, 128, 128))
        box = c.body.getbbox() or (0, 0, 128, 128)
        for _ in range(2):
            x = rng.uniform(box[0] + 14, box[2] - 14)
            points = []
            for y in np.linspace(box[1], box[3], 7):
                points.append((x, float(y)))
                x += rng.uniform(-13, 13)
            pen.line(points, fill=255, width=4)
    inside = Image.fromarray(np.minimum(np.asarray(mask), np.asarray(c.body)))
    c.image.paste(ink, (0, 0), inside)


def _behind(c: _Canvas, part: str) -> None:
    """Parts that stand beside or behind the subject."""
    wiggle = float(c.rng.uniform(-2, 2))
    if part == "tree":
        x, y = 56 + wiggle / 2, 34.0
        c.rect(x - 2, y, x + 2, 60, (112, 78, 50))
        c.oval(x, y - 6, 8, 11, (58, 128, 66))
        c.mark(part, x - 8, y - 16, x + 8, y + 14)
    elif part == "moon":
        x, y = 10 + wiggle, 10 + wiggle / 2
        c.oval(x, y, 6.5, 6.5, (250, 226, 120), width=1)
        c.oval(x + 3.4, y - 1.2, 4.6, 4.8, (90, 100, 140), line=None)
        c.mark(part, x - 6.5, y - 6.5, x + 6.5, y + 6.5)
    elif part == "balloon":
        x, y = 9 + wiggle / 2, 15 + wiggle
        c.path([(x, y + 8), (x + 1.5, y + 18), (x, y + 28)], _INK, 0.9)
        c.oval(x, y, 6.2, 8, (214, 74, 150))
        c.mark(part, x - 6, y - 8, x + 6, y + 14)


def _bird(c: _Canvas) -> None:
    x, y = 52 + float(c.rng.uniform(-3, 2)), 12 + float(c.rng.uniform(-3, 3))
    c.poly([(x - 1, y), (x - 6, y - 7), (x + 3, y - 1)], (46, 96, 150))
    c.oval(x, y + 1, 6, 3.6, (66, 130, 190))
    c.oval(x - 5, y - 1.4, 3, 2.8, (66, 130, 190))
    c.poly([(x - 7.6, y - 2.4), (x - 11.5, y - 0.8), (x - 7.6, y + 0.6)], (240, 180, 50), line=None)
    c.mark("bird", x - 10, y - 7, x + 6, y + 5)


def _face(c: _Canvas, part: str, a: _Anchors, subject: str) -> None:
    """Parts worn on head and neck."""
    if part == "glasses":
        x, y, gap = a.eyes
        r = min(4.3, gap * 0.92)
        for side in (-1, 1):
            c.oval(x + side * gap, y, r, r, (206, 236, 250), line=(20, 20, 24), width=3)
            c.oval(x + side * gap, y, 1.1, 1.1, (20, 20, 24), line=None)
        c.path([(x - gap + r, y), (x + gap - r, y)], (20, 20, 24), 1.5)
        c.mark(part, x - gap - r, y - r, x + gap + r, y + r)
    elif part == "hat":
        x, y, w = a.head
        c.rect(x - w * 0.72, y - 9.5, x + w * 0.72, y + 2, (112, 58, 46))
        c.rect(x - w * 0.72, y - 2.6, x + w * 0.72, y + 0.6, (236, 200, 90), line=None)
        c.rect(x - w * 1.3, y + 0.2, x + w * 1.3, y + 3.2, (112, 58, 46))
        c.mark(part, x - w * 1.3, y - 9, x + w * 1.3, y + 3)
    elif part == "beard":
        x, y, w = a.chin
        points = [(x + w * math.cos(t), y - 3 + 12 * math.sin(t)) for t in np.linspace(0, math.pi, 13)]
        c.poly([*points, (x - w * 0.55, y - 1), (x + w * 0.55, y - 1)], (206, 116, 40))
        c.path([(x - 2.4, y + 1.6), (x + 2.4, y + 1.6)], (120, 50, 50), 1.5)
        c.mark(part, x - w, y - 3, x + w, y + 9)
    elif part == "red nose":
        x, y = a.nose
        c.oval(x, y, 3.5, 3.5, (226, 34, 40))
        c.oval(x - 1, y - 1.1, 0.9, 0.9, (255, 200, 200), line=None)
        c.mark(part, x - 3.5, y - 3.5, x + 3.5, y + 3.5)
    elif part == "bow":
        x, y = a.neck[:2] if subject in ("professor", "clown", "dog") else a.bow
        for side in (-1, 1):
            c.poly([(x, y), (x + side * 8, y - 5), (x + side * 8, y + 5)], (240, 96, 170))
        c.oval(x, y, 2.4, 2.4, (200, 50, 120))
        c.mark(part, x - 8, y - 5, x + 8, y + 5)
    elif part == "scarf":
        x, y, w = a.neck
        c.rect(x + 1, y, x + 6.5, y + 13, (24, 150, 140))
        c.oval(x, y, w + 1.5, 3.6, (24, 150, 140))
        c.mark(part, x - w, y - 3, x + w, y + 10)


def _on_top(c: _Canvas, part: str, a: _Anchors, subject: str) -> None:
    """Parts that stand on the subject."""
    x, y = a.top
    if part == "antenna":
        x, y = {"robot": (32, 17), "car": (38, 26), "house": (25, 25)}[subject]
        c.path([(x, y), (x + 1, y - 7)], (60, 60, 66), 1.8)
        c.oval(x + 1, y - 8.5, 3.2, 3.2, (170, 220, 40))
        c.mark(part, x - 2, y - 12, x + 4, y)
    elif part == "flag":
        x, y = {"boat": (30, 19), "house": (32, 20), "cake": (41, 31)}[subject]
        c.path([(x, y + 1), (x, y - 13)], (70, 60, 60), 1.4)
        c.rect(x, y - 13, x + 11, y - 9.5, (220, 50, 60), line=None)
        c.rect(x, y - 9.5, x + 11, y - 6, (250, 250, 250), line=None)
        c.mark(part, x, y - 13, x + 11, y - 5)
    elif part == "chimney":
        x, y = {"robot": (39, 17), "boat": (17, 44), "house": (43, 31)}[subject]
        c.rect(x - 3.6, y - 11, x + 3.6, y + (1 if subject != "house" else 3), (150, 62, 48))
        c.rect(x - 4.6, y - 12.5, x + 4.6, y - 9.5, (108, 44, 38))
        c.mark(part, x - 4, y - 12, x + 4, y)
    elif part == "steam":
        places = {"robot": (13, 26), "car": (7, 34), "house": (13, 24), "cup": (31, 24)}
        x, y = places[subject]
        for dx, dy, r in ((0, 0, 3.2), (2.6, -5.4, 4), (-1.6, -12, 4.8)):
            c.oval(x + dx, y + dy, r, r, (236, 238, 242), line=(150, 152, 160), width=1)
        c.mark(part, x - 6, y - 16, x + 6, y + 3)
    elif part == "candle":
        beside = {"professor": (9, 58), "cup": (9, 57), "apple": (10, 57), "cake": (32, 31)}
        x, y = beside[subject]
        c.rect(x - 2.8, y - 11, x + 2.8, y, (250, 236, 190))
        c.oval(x, y - 15, 3.2, 4.4, (250, 150, 40), width=1)
        c.mark(part, x - 3, y - 18, x + 3, y)
    elif part == "leaf":
        x, y = {"apple": (34, 25), "cup": (24, 29), "cake": (26, 30)}[subject]
        side = 1 if subject == "apple" else -1
        c.poly([(x, y), (x + side * 5, y - 6), (x + side * 13, y - 7), (x + side * 9, y - 0.5)],
               (74, 156, 60))  # fmt: skip
        c.mark(part, min(x, x + side * 13), y - 7, max(x, x + side * 13), y)
    elif part == "worm":
        x, y = {"apple": (42, 46), "cup": (38, 49), "cake": (46, 51)}[subject]
        c.path([(x, y), (x + 5, y - 4), (x + 9, y + 1), (x + 14, y - 3)], _INK, 5.4)
        c.path([(x, y), (x + 5, y - 4), (x + 9, y + 1), (x + 14, y - 3)], (180, 214, 90), 4)
        c.oval(x + 14, y - 4, 3, 3, (180, 214, 90))
        c.oval(x + 15, y - 4.6, 0.9, 0.9, _INK, line=None)
        c.mark(part, x, y - 7, x + 17, y + 3)


def draw(scene: Scene) -> Drawing:
    """Render a scene.

    Args:
        scene: What to draw.

    Returns:
        The picture and the parts visible in it.
    """
    rng = np.random.default_rng([scene.seed, 64])
    c = _Canvas(rng, scene)
    color = tuple(int(np.clip(v + rng.uniform(-10, 10), 0, 255)) for v in COLORS[scene.color])
    skin = SKINS[int(rng.integers(len(SKINS)))]
    shown = scene.parts
    for part in shown:
        _behind(c, part)
    anchors = _SUBJECTS[scene.subject](c, color, skin)  # type: ignore[arg-type]
    for part in ("rusty", "striped", "spotted", "cracked"):
        if part in shown:
            _pattern(c, part, color)  # type: ignore[arg-type]
    if scene.subject in ("cat", "robot") and {"striped", "rusty", "cracked"} & set(shown):
        _dots(c, anchors.eyes[0], anchors.eyes[1], anchors.eyes[2], 1.8)
    if "snowy" in shown:
        c.image = snow(c.image, c.body, rng)
        c.pen = ImageDraw.Draw(c.image)
    if "bird" in shown:
        _bird(c)
    for part in ("beard", "glasses", "red nose", "scarf", "bow", "hat"):
        if part in shown:
            _face(c, part, anchors, scene.subject)
    for part in shown:
        _on_top(c, part, anchors, scene.subject)
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
