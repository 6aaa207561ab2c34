"""The miniature world: what can be drawn, how often, and seeded scenes.

The world is a table of odds. A scene holds one subject, its colour, a background, a style, the
parts and attributes it shows and the defects it suffers from. How often a part appears depends
on the subject (a professor nearly always wears glasses, a girl rarely), so a prompt implies
things it does not name; which defects are likely depends on subject and background, so the best
negative prompt depends on the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Odds of every part and attribute by subject; the rest have odds 0.
PARTS_BY_SUBJECT: dict[str, dict[str, float]] = {
    "professor": {"glasses": 0.85, "beard": 0.50, "hat": 0.25, "bow": 0.30, "candle": 0.30},
    "girl": {"bow": 0.60, "balloon": 0.50, "hat": 0.40, "glasses": 0.30, "scarf": 0.30,
             "striped": 0.35, "spotted": 0.35},
    "pirate": {"hat": 0.65, "beard": 0.60, "striped": 0.50, "bird": 0.45, "scarf": 0.30,
               "red nose": 0.25},
    "clown": {"red nose": 0.80, "balloon": 0.50, "hat": 0.45, "bow": 0.40, "glasses": 0.25,
              "spotted": 0.35},
    "snowman": {"hat": 0.55, "scarf": 0.55, "red nose": 0.40, "bird": 0.35, "tree": 0.35,
                "glasses": 0.30, "beard": 0.25},
    "robot": {"antenna": 0.55, "rusty": 0.50, "steam": 0.35, "cracked": 0.35, "chimney": 0.30,
              "moon": 0.30, "glasses": 0.25},
    "cat": {"striped": 0.50, "bow": 0.40, "moon": 0.35, "glasses": 0.30, "hat": 0.30,
            "scarf": 0.30, "red nose": 0.20},
    "dog": {"spotted": 0.50, "scarf": 0.40, "tree": 0.40, "hat": 0.35, "balloon": 0.30,
            "red nose": 0.30, "beard": 0.20},
    "car": {"rusty": 0.50, "snowy": 0.40, "tree": 0.40, "antenna": 0.40, "steam": 0.30,
            "moon": 0.25},
    "boat": {"flag": 0.60, "bird": 0.45, "striped": 0.40, "moon": 0.40, "chimney": 0.35,
             "rusty": 0.35},
    "house": {"chimney": 0.55, "tree": 0.50, "snowy": 0.40, "steam": 0.40, "flag": 0.30,
              "cracked": 0.30, "antenna": 0.30},
    "cup": {"steam": 0.60, "cracked": 0.40, "striped": 0.40, "leaf": 0.35, "candle": 0.35,
            "spotted": 0.30, "worm": 0.20},
    "cake": {"candle": 0.65, "leaf": 0.40, "flag": 0.35, "balloon": 0.35, "striped": 0.35,
             "worm": 0.25},
    "apple": {"leaf": 0.60, "worm": 0.50, "spotted": 0.35, "bird": 0.35, "snowy": 0.35,
              "candle": 0.30},
}  # fmt: skip

SUBJECTS: tuple[str, ...] = tuple(PARTS_BY_SUBJECT)
NOUN_PARTS: tuple[str, ...] = (
    "glasses", "hat", "beard", "red nose", "bow", "balloon", "scarf", "antenna", "flag",
    "chimney", "steam", "tree", "bird", "moon", "candle", "leaf", "worm",
)  # fmt: skip
ATTRIBUTES: tuple[str, ...] = ("rusty", "striped", "spotted", "snowy", "cracked")
PARTS: tuple[str, ...] = NOUN_PARTS + ATTRIBUTES

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (196, 58, 56),
    "orange": (226, 138, 58),
    "yellow": (226, 200, 84),
    "green": (84, 148, 82),
    "blue": (70, 112, 180),
    "purple": (134, 84, 160),
    "white": (232, 230, 224),
    "black": (62, 60, 68),
}
#: Subjects whose colour is fixed, so captions never name one.
COLORLESS: frozenset[str] = frozenset({"snowman"})
FAVORITE_COLORS: dict[str, tuple[str, ...]] = {
    "apple": ("red", "green", "yellow"),
    "car": ("red", "blue"),
    "cat": ("orange", "black", "white"),
    "dog": ("white", "orange"),
    "professor": ("black", "blue"),
    "house": ("white", "yellow"),
}

BACKGROUNDS: tuple[str, ...] = ("day", "night", "beach", "indoor", "fog", "sunset")
FAVORITE_BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "professor": ("indoor",),
    "girl": ("day", "beach"),
    "pirate": ("beach", "sunset"),
    "clown": ("day", "indoor"),
    "snowman": ("day", "fog"),
    "robot": ("night", "indoor"),
    "cat": ("indoor", "night"),
    "dog": ("day", "beach"),
    "car": ("night", "day"),
    "boat": ("beach", "fog", "sunset"),
    "house": ("day", "sunset"),
    "cup": ("indoor",),
    "cake": ("indoor",),
    "apple": ("day", "indoor"),
}
STYLES: dict[str, float] = {"flat": 0.70, "sketch": 0.15, "painting": 0.15}

#: Every defect and how much a full-strength case of it spoils a picture (see `aesthetic_truth`).
DEFECTS: dict[str, float] = {
    "blurry": 0.70,
    "noisy": 0.60,
    "washed out": 0.60,
    "cropped": 0.50,
    "watermark": 0.60,
    "pixelated": 0.70,
    "tilted": 0.40,
    "doubled": 0.65,
    "dark": 0.60,
    "oversaturated": 0.55,
}
#: How much likelier a defect is with a subject or a background (1 where nothing is said).
DEFECT_TILT: dict[str, dict[str, float]] = {
    "night": {"noisy": 4.0, "dark": 3.0},
    "beach": {"oversaturated": 3.0, "washed out": 3.0},
    "indoor": {"dark": 2.0, "blurry": 2.0},
    "fog": {"washed out": 3.0, "noisy": 2.0},
    "sunset": {"oversaturated": 4.0},
    "day": {"watermark": 2.0},
    "car": {"blurry": 4.0},
    "cat": {"blurry": 3.0, "dark": 2.0},
    "dog": {"cropped": 4.0},
    "house": {"tilted": 4.0},
    "boat": {"tilted": 4.0},
    "cup": {"watermark": 4.0},
    "cake": {"oversaturated": 3.0, "pixelated": 2.0},
    "professor": {"watermark": 3.0},
    "girl": {"cropped": 3.0, "doubled": 2.0},
    "robot": {"pixelated": 4.0},
    "apple": {"noisy": 3.0},
    "clown": {"oversaturated": 3.0, "doubled": 3.0},
    "pirate": {"washed out": 3.0},
    "snowman": {"doubled": 3.0, "washed out": 2.0},
}
#: Odds of 0, 1, 2 and 3 defects in one picture.
DEFECT_COUNTS: tuple[float, ...] = (0.40, 0.38, 0.16, 0.06)
MIN_STRENGTH = 0.3


@dataclass(frozen=True)
class Scene:
    """One picture, fully determined.

    Attributes:
        subject: One of `SUBJECTS`.
        color: One of `COLORS` (ignored by `COLORLESS` subjects).
        background: One of `BACKGROUNDS`.
        style: One of `STYLES`.
        parts: Parts and attributes meant to be shown, in the order of `PARTS`.
        defects: Pairs (defect, strength in (0, 1]), in the order of `DEFECTS`.
        seed: Seed of everything else (positions, sizes, skin, noise).
    """

    subject: str
    color: str
    background: str
    style: str
    parts: tuple[str, ...] = ()
    defects: tuple[tuple[str, float], ...] = ()
    seed: int = 0

    @property
    def strength(self) -> dict[str, float]:
        """Strength of each defect that is present."""
        return dict(self.defects)


def _choose(rng: np.random.Generator, options: tuple[str, ...], favorites: tuple[str, ...]) -> str:
    weights = np.array([3.0 if option in favorites else 1.0 for option in options])
    return str(rng.choice(options, p=weights / weights.sum()))


def defect_odds(subject: str, background: str) -> dict[str, float]:
    """Share of each defect among the defects of such a scene (sums to 1)."""
    raw = {
        defect: DEFECT_TILT.get(subject, {}).get(defect, 1.0)
        * DEFECT_TILT.get(background, {}).get(defect, 1.0)
        for defect in DEFECTS
    }
    total = sum(raw.values())
    return {defect: weight / total for defect, weight in raw.items()}


def sample_parts(rng: np.random.Generator, *, subject: str) -> tuple[str, ...]:
    """Draw which parts a subject shows; `striped` and `spotted` exclude each other."""
    odds = PARTS_BY_SUBJECT[subject]
    shown = {
        part
        for part in PARTS
        if rng.random() < odds.get(part, 0.0) and part not in ("striped", "spotted")
    }
    pattern = rng.random()
    striped = odds.get("striped", 0.0)
    if pattern < striped:
        shown.add("striped")
    elif pattern < striped + odds.get("spotted", 0.0):
        shown.add("spotted")
    return tuple(part for part in PARTS if part in shown)


def sample_scene(
    rng: np.random.Generator, *, subject: str | None = None, clean: bool = False
) -> Scene:
    """Draw a scene from the odds of the world.

    Args:
        rng: Source of randomness; equal states give equal scenes.
        subject: Fix the subject instead of drawing it uniformly.
        clean: Leave out defects.

    Returns:
        The scene.
    """
    subject = subject or str(rng.choice(SUBJECTS))
    color = _choose(rng, tuple(COLORS), FAVORITE_COLORS.get(subject, ()))
    background = _choose(rng, BACKGROUNDS, FAVORITE_BACKGROUNDS.get(subject, ()))
    style = str(rng.choice(tuple(STYLES), p=tuple(STYLES.values())))
    parts = sample_parts(rng, subject=subject)
    count = 0 if clean else int(rng.choice(len(DEFECT_COUNTS), p=DEFECT_COUNTS))
    odds = defect_odds(subject, background)
    chosen = rng.choice(tuple(DEFECTS), size=count, replace=False, p=tuple(odds.values()))
    strength = {str(d): round(float(rng.uniform(MIN_STRENGTH, 1.0)), 3) for d in chosen}
    defects = tuple((defect, strength[defect]) for defect in DEFECTS if defect in strength)
    return Scene(subject, color, background, style, parts, defects, int(rng.integers(2**31)))


def scene(index: int, *, seed: int = 0) -> Scene:
    """Return scene number `index` of the endless seeded list `seed`."""
    return sample_scene(np.random.default_rng([seed, index]))


def aesthetic_truth(strengths: dict[str, float]) -> float:
    """True quality of a picture with these defects, on LAION's scale of 1 to 10.

    ``1 + 8 * prod_d (1 - w_d * s_d)``: `w_d` from `DEFECTS`, `s_d` the strength. A picture
    without defects has 9; taste beyond defects does not exist here.

    Args:
        strengths: Strength in [0, 1] of each defect present.

    Returns:
        A number in (1, 9].
    """
    kept = 1.0
    for defect, strength in strengths.items():
        kept *= 1.0 - DEFECTS[defect] * strength
    return 1.0 + 8.0 * kept


def removal_pairs() -> list[tuple[str, str, float]]:
    """List every (subject, part, odds) of the world: the cases of the removal protocol."""
    return [
        (subject, part, odds)
        for subject, table in PARTS_BY_SUBJECT.items()
        for part, odds in table.items()
    ]
