"""Shapes: the canvas with its background, and how each subject is drawn on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from negbench.miniature.world import Scene

SIZE = 64
UP = 2
INK = (48, 44, 50)
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


class Canvas:
    """A 128x128 drawing with a body mask, a size and a place for the subject."""

    def __init__(self, rng: np.random.Generator, scene: Scene) -> None:
        self.rng = rng
        sky, ground = _GROUND[scene.background]
        self.image = Image.new("RGB", (SIZE * UP, SIZE * UP), sky)
        self.pen = ImageDraw.Draw(self.image)
        self.body = Image.new("L", self.image.size, 0)
        self._body_pen = ImageDraw.Draw(self.body)
        self.k = float(rng.uniform(0.9, 1.04))
        self.dx = float(rng.uniform(-3.5, 3.5))
        self.dy = float(rng.uniform(-1.5, 1.5))
        self.boxes: dict[str, Box] = {}
        horizon = 46 + float(rng.uniform(-3, 3))
        self.pen.rectangle((0, horizon * UP, 128, 128), fill=ground)
        if scene.background == "fog":
            for y in range(6, 64, 13):
                shade = 222 if (y // 13) % 2 else 194
                self.pen.rectangle((0, y * UP, 128, (y + 5) * UP), fill=(shade,) * 3)
        if scene.background == "indoor":
            self.pen.rectangle((4 * UP, 5 * UP, 15 * UP, 18 * UP), fill=(176, 206, 222),
                               outline=(120, 84, 60), width=3)  # fmt: skip
        if scene.background == "night":
            for _ in range(7):
                a, b = rng.uniform(2, 126), rng.uniform(2, 60)
                self.pen.ellipse((a - 1.5, b - 1.5, a + 1.5, b + 1.5), fill=(236, 232, 200))
        if scene.background == "sunset":
            self.pen.ellipse((84, 60, 118, 94), fill=(250, 214, 120))
            self.pen.rectangle((0, horizon * UP, 128, 128), fill=ground)

    def at(self, x: float, y: float) -> Point:
        """Place a point (0 to 64) on the canvas (pixels)."""
        return (
            (32 + (x - 32) * self.k + self.dx) * UP,
            (56 + (y - 56) * self.k + self.dy) * UP,
        )

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Color,
             *, body: bool = False, line: Color | None = INK, width: int = 2) -> None:  # fmt: skip
        """Draw an ellipse; `body` adds it to the body mask."""
        box = (*self.at(x - rx, y - ry), *self.at(x + rx, y + ry))
        self.pen.ellipse(box, fill=fill, outline=line, width=width if line else 0)
        if body:
            self._body_pen.ellipse(box, fill=255)

    def poly(self, points: Sequence[Point], fill: Color,
             *, body: bool = False, line: Color | None = INK) -> None:  # fmt: skip
        """Draw a polygon; `body` adds it to the body mask."""
        placed = [self.at(*p) for p in points]
        self.pen.polygon(placed, fill=fill, outline=line, width=2 if line else 0)
        if body:
            self._body_pen.polygon(placed, fill=255)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Color,
             *, body: bool = False, line: Color | None = INK) -> None:  # fmt: skip
        """Draw a rectangle; `body` adds it to the body mask."""
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, body=body, line=line)

    def path(self, points: Sequence[Point], color: Color, width: float) -> None:
        """Draw a line through points."""
        self.pen.line([self.at(*p) for p in points], fill=color,
                      width=max(1, round(width * UP)), joint="curve")  # fmt: skip

    def mark(self, part: str, x0: float, y0: float, x1: float, y1: float) -> None:
        """Note where a part is, to know later whether it is in the frame."""
        (a, b), (c, d) = self.at(x0, y0), self.at(x1, y1)
        self.boxes[part] = (a, b, c, d)


@dataclass(frozen=True)
class Anchors:
    """Where parts sit on a subject: (x, y) of face features and of the top."""

    head: tuple[float, float, float] = (32, 20, 10)  # x, top y, half width: hat
    eyes: tuple[float, float, float] = (32, 27, 4.4)  # x, y, half distance
    nose: Point = (32, 31)
    chin: tuple[float, float, float] = (32, 36, 9)  # x, y, half width
    neck: tuple[float, float, float] = (32, 42, 9)
    bow: Point = (32, 18)
    top: Point = (32, 20)


def dots(c: Canvas, x: float, y: float, gap: float, r: float = 1.5) -> None:
    """Draw a pair of eyes."""
    for side in (-1, 1):
        c.oval(x + side * gap, y, r, r, INK, line=None)


def _professor(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.poly([(14, 64), (18, 47), (26, 43), (38, 43), (46, 47), (50, 64)], color, body=True)
    c.poly([(27, 43), (37, 43), (32, 56)], (240, 240, 236))
    c.poly([(31, 46), (33, 46), (34, 55), (32, 58), (30, 55)], (150, 50, 60), line=None)
    for side in (-1, 1):
        c.oval(32 + side * 10.5, 27, 4, 5.5, (176, 176, 180))
    c.oval(32, 28, 9.8, 14.5, skin)
    dots(c, 32, 27, 4.2)
    c.path([(28, 37), (36, 37)], (130, 60, 60), 1.2)
    return Anchors((32, 16, 9), (32, 27, 4.6), (32, 32), (32, 38, 9), (32, 45, 8), (32, 46))


def _girl(c: Canvas, color: Color, skin: Color) -> Anchors:
    hair = (120, 74, 44)
    c.oval(32, 24, 12.5, 13, hair)
    c.rect(20, 25, 44, 38, hair, line=None)
    for side in (-1, 1):
        c.path([(32 + side * 4, 56), (32 + side * 4, 63)], skin, 2.6)
        c.path([(32 + side * 5, 38), (32 + side * 14, 46)], skin, 2.8)
    c.poly([(27, 34), (37, 34), (47, 58), (17, 58)], color, body=True)
    c.oval(32, 25, 9.5, 10, skin)
    c.poly([(23, 22), (28, 16), (36, 16), (41, 22), (36, 19), (28, 19)], hair, line=None)
    dots(c, 32, 25, 4)
    c.path([(29, 31), (32, 32.4), (35, 31)], (180, 60, 70), 1.2)
    return Anchors((32, 14, 10), (32, 25, 4.5), (32, 28.5), (32, 33, 8), (32, 36, 7), (39, 14))


def _pirate(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.poly([(8, 64), (12, 47), (24, 43), (40, 43), (52, 47), (56, 64)], color, body=True)
    c.poly([(21, 19), (43, 19), (43, 38), (38, 43), (26, 43), (21, 38)], skin)
    c.poly([(20.5, 20), (32, 14), (43.5, 20), (43.5, 23), (20.5, 23)], (150, 44, 52))
    c.path([(21, 22), (43, 33)], INK, 1.2)
    c.oval(36.5, 28.5, 4, 3.8, INK, line=None)
    c.oval(27.5, 28.5, 1.6, 1.6, INK, line=None)
    c.oval(44, 35, 1.8, 1.8, (236, 196, 60))
    c.path([(28, 38), (36, 38)], (130, 60, 60), 1.3)
    return Anchors((32, 18, 11.5), (32, 28, 5), (32, 33), (32, 38, 11), (32, 45, 11), (32, 15))


def _clown(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.poly([(16, 64), (20, 50), (44, 50), (48, 64)], color, body=True)
    for x in range(14, 51, 6):
        c.oval(x, 50, 4.5, 3.8, (244, 226, 120) if x % 12 == 2 else color, body=x % 12 != 2)
    for side in (-1, 1):
        c.oval(32 + side * 15, 24, 7.5, 8, (226, 118, 40))
    c.oval(32, 31, 14, 15, (246, 244, 240))
    for side in (-1, 1):
        c.oval(32 + side * 5.5, 26, 3, 4, (104, 164, 220), line=None)
    dots(c, 32, 26.5, 5.5, 1.7)
    c.oval(32, 39.5, 7.5, 3.6, (206, 50, 60))
    c.rect(26, 38.6, 38, 40, (246, 244, 240), line=None)
    return Anchors((32, 17, 11), (32, 26.5, 5.6), (32, 32.5), (32, 43, 11), (32, 50, 10), (32, 51))


def _snowman(c: Canvas, color: Color, skin: Color) -> Anchors:
    white, edge = (240, 244, 248), (110, 124, 150)
    for side in (-1, 1):
        c.path([(32 + side * 10, 42), (32 + side * 21, 34)], (104, 72, 48), 2)
    c.oval(32, 50, 15, 13.5, white, body=True, line=edge)
    c.oval(32, 28, 11, 10.5, white, body=True, line=edge)
    for y in (44, 50, 56):
        c.oval(32, y, 1.7, 1.7, INK, line=None)
    dots(c, 32, 26, 4.2, 1.7)
    c.path([(28, 34), (32, 35.4), (36, 34)], INK, 1.2)
    return Anchors((32, 19, 9.5), (32, 26, 4.8), (32, 30), (32, 36, 9), (32, 38.5, 9.5), (32, 19))


def _robot(c: Canvas, color: Color, skin: Color) -> Anchors:
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
    return Anchors((32, 17, 11), (32, 24, 5.6), (32, 28), (32, 33, 9), (32, 34, 8),
                    (32, 16), (27, 17))  # fmt: skip


def _cat(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.path([(42, 58), (51, 55), (53, 46), (49, 41)], color, 4)
    c.oval(32, 51, 11.5, 12.5, color, body=True)
    for side in (-1, 1):
        ear = [(32 + side * 11, 27), (32 + side * 10.5, 12), (32 + side * 2, 20)]
        c.poly(ear, color, body=True)
    c.oval(32, 28, 12, 10.5, color, body=True)
    for side in (-1, 1):
        c.oval(32 + side * 4.8, 27, 2.6, 2.8, (190, 220, 110), line=INK, width=1)
        c.oval(32 + side * 4.8, 27, 1, 2.4, INK, line=None)
        for dy in (0, 2.4):
            c.path([(32 + side * 6, 31.5 + dy), (32 + side * 15, 30.5 + 1.6 * dy)], INK, 0.7)
    c.poly([(30.5, 30.5), (33.5, 30.5), (32, 32.5)], (220, 130, 140))
    return Anchors((32, 19, 9), (32, 27, 5), (32, 31.5), (32, 35, 8), (32, 39.5, 9), (40, 17))


def _dog(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.path([(13, 38), (7, 30)], color, 3.5)
    for x in (16, 22, 35, 41):
        c.rect(x - 2.2, 46, x + 2.2, 61, color)
    c.poly([(11, 37), (16, 34), (40, 34), (46, 38), (45, 49), (13, 49)], color, body=True)
    c.poly([(44, 25), (57, 28), (57, 34), (46, 36)], color, body=True)
    c.oval(43, 28, 9, 9, color, body=True)
    c.oval(37, 31, 3.6, 7.5, (92, 64, 48))
    c.oval(56.5, 29.5, 2.2, 2, INK, line=None)
    c.oval(46, 26, 1.6, 1.6, INK, line=None)
    return Anchors((43, 20, 8.5), (46, 26, 4.4), (57, 30), (49, 37, 6.5), (42, 38.5, 7.5), (43, 19))


def _car(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.poly([(18, 38), (23, 26), (42, 26), (49, 38)], color, body=True)
    c.poly([(22, 37), (25, 29), (31.5, 29), (31.5, 37)], (178, 214, 232))
    c.poly([(34, 37), (34, 29), (40.5, 29), (45, 37)], (178, 214, 232))
    c.poly([(8, 52), (8, 41), (14, 37), (52, 37), (57, 42), (57, 52)], color, body=True)
    for x in (18, 47):
        c.oval(x, 52, 6, 6, (50, 50, 54))
        c.oval(x, 52, 2.6, 2.6, (190, 190, 196), line=None)
    c.oval(55, 44, 2, 2, (250, 236, 150))
    return Anchors(top=(27, 26))


def _boat(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.pen.rectangle((0, 106, 128, 128), fill=(70, 120, 170))
    for x in range(-4, 128, 20):
        c.pen.arc((x, 108, x + 16, 116), 180, 360, fill=(180, 210, 230), width=2)
    c.path([(30, 46), (30, 18)], (110, 76, 50), 1.8)
    c.poly([(32, 19), (32, 42), (48, 42)], (244, 240, 228))
    c.poly([(9, 44), (55, 44), (47, 56), (17, 56)], color, body=True)
    return Anchors(top=(30, 18))


def _house(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.rect(17, 36, 47, 58, color, body=True)
    c.poly([(12, 37), (32, 19), (52, 37)], (136, 74, 60), body=True)
    c.rect(28.5, 46, 35.5, 58, (110, 76, 50))
    for x in (20, 38):
        c.rect(x, 41, x + 6, 47, (250, 232, 160))
    return Anchors(top=(32, 19))


def _cup(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.oval(45, 42, 6.5, 7, color)
    c.oval(45, 42, 3, 3.6, (200, 196, 190))
    c.poly([(18, 31), (44, 31), (41, 56), (21, 56)], color, body=True)
    c.oval(31, 31, 13, 3.6, (96, 62, 44))
    return Anchors(top=(31, 31))


def _cake(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.oval(32, 57, 23, 3.6, (226, 228, 232))
    c.rect(13, 43, 51, 57, color, body=True)
    c.rect(20, 31, 44, 43, color, body=True)
    for x in range(16, 50, 7):
        c.oval(x, 44, 3.7, 2.7, (250, 244, 236), line=None)
    for x in range(23, 44, 6):
        c.oval(x, 32, 3.4, 2.5, (250, 244, 236), line=None)
    return Anchors(top=(32, 30))


def _apple(c: Canvas, color: Color, skin: Color) -> Anchors:
    c.oval(27, 43, 11.5, 14.5, color, body=True)
    c.oval(37, 43, 11.5, 14.5, color, body=True)
    c.oval(32, 44, 11.5, 13, color, body=True, line=None)
    c.path([(32, 32), (33.5, 22)], (98, 66, 42), 2.2)
    light = (min(255, color[0] + 50), min(255, color[1] + 50), min(255, color[2] + 50))
    c.oval(25, 37, 2.6, 3.8, light, line=None)
    return Anchors(top=(33, 24))


FIGURES: dict[str, Callable[[Canvas, Color, Color], Anchors]] = {
    "professor": _professor, "girl": _girl, "pirate": _pirate, "clown": _clown,
    "snowman": _snowman, "robot": _robot, "cat": _cat, "dog": _dog, "car": _car, "boat": _boat,
    "house": _house, "cup": _cup, "cake": _cake, "apple": _apple,
}  # fmt: skip
