"""Parts and attributes: glasses, hats, rust and the like, laid on, beside or behind a subject."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from negbench.miniature.shapes import INK, Anchors, Canvas, Color


def lay_pattern(c: Canvas, part: str, color: Color) -> None:
    """Lay stripes, spots, rust or cracks over the body."""
    light = sum(color) > 480
    ink = Image.new("RGB", c.image.size, color)
    mask = Image.new("L", c.image.size, 0)
    pen = ImageDraw.Draw(mask)
    rng = c.rng
    if part == "striped":
        ink.paste((70, 70, 90) if light else (246, 240, 224), (0, 0, 128, 128))
        start = int(rng.integers(0, 14))
        for top in range(start - 14, 128, 15):
            pen.rectangle((0, top, 128, top + 6), fill=255)
    elif part == "spotted":
        ink.paste((70, 70, 90) if light else (246, 240, 224), (0, 0, 128, 128))
        shift = rng.uniform(0, 16, 2)
        for row in range(11):
            for column in range(10):
                cx = 17 * column - 16 + float(shift[0]) + 8 * (row % 2)
                cy = 14 * row - 16 + float(shift[1])
                pen.ellipse((cx - 4.5, cy - 4.5, cx + 4.5, cy + 4.5), fill=255)
    elif part == "rusty":
        ink.paste((134, 66, 26), (0, 0, 128, 128))
        area = np.argwhere(np.asarray(c.body) > 0)
        for spot in area[rng.integers(0, len(area), 9)]:
            y, x = float(spot[0]), float(spot[1])
            r = rng.uniform(5, 10)
            pen.ellipse((x - r, y - r * 0.8, x + r, y + r * 0.8), fill=255)
            dx, dy = rng.uniform(-7, 7, 2)
            pen.ellipse((x + dx - r * 0.6, y + dy - r * 0.6, x + dx + r * 0.6, y + dy + r * 0.6),
                        fill=255)  # fmt: skip
    else:
        ink.paste((226, 222, 214) if sum(color) < 240 else (30, 26, 30), (0, 0, 128, 128))
        box = c.body.getbbox() or (0, 0, 128, 128)
        for _ in range(2):
            across = float(rng.uniform(box[0] + 14, box[2] - 14))
            points: list[tuple[float, float]] = []
            for down in np.linspace(box[1], box[3], 7):
                points.append((across, float(down)))
                across += float(rng.uniform(-13, 13))
            pen.line(points, fill=255, width=4)
    inside = Image.fromarray(np.minimum(np.asarray(mask), np.asarray(c.body)))
    c.image.paste(ink, (0, 0), inside)


def put_behind(c: Canvas, part: str) -> None:
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
        c.path([(x, y + 8), (x + 1.5, y + 18), (x, y + 28)], INK, 0.9)
        c.oval(x, y, 6.2, 8, (214, 74, 150))
        c.mark(part, x - 6, y - 8, x + 6, y + 14)


def put_bird(c: Canvas) -> None:
    """A bird in the upper right corner."""
    x, y = 52 + float(c.rng.uniform(-3, 2)), 12 + float(c.rng.uniform(-3, 3))
    c.poly([(x - 1, y), (x - 6, y - 7), (x + 3, y - 1)], (46, 96, 150))
    c.oval(x, y + 1, 6, 3.6, (66, 130, 190))
    c.oval(x - 5, y - 1.4, 3, 2.8, (66, 130, 190))
    c.poly([(x - 7.6, y - 2.4), (x - 11.5, y - 0.8), (x - 7.6, y + 0.6)], (240, 180, 50), line=None)
    c.mark("bird", x - 10, y - 7, x + 6, y + 5)


def put_on_face(c: Canvas, part: str, a: Anchors, subject: str) -> None:
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
        points = [
            (x + w * math.cos(t), y - 3 + 12 * math.sin(t)) for t in np.linspace(0, math.pi, 13)
        ]
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


def put_on_top(c: Canvas, part: str, a: Anchors, subject: str) -> None:
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
        c.path([(x, y), (x + 5, y - 4), (x + 9, y + 1), (x + 14, y - 3)], INK, 5.4)
        c.path([(x, y), (x + 5, y - 4), (x + 9, y + 1), (x + 14, y - 3)], (180, 214, 90), 4)
        c.oval(x + 14, y - 4, 3, 3, (180, 214, 90))
        c.oval(x + 15, y - 4.6, 0.9, 0.9, INK, line=None)
        c.mark(part, x, y - 7, x + 17, y + 3)
