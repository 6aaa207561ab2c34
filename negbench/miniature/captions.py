"""What people write about a scene: captions, fragments, tag lists, and the word list.

Every caption states only facts of its scene, and nearly always leaves some out. Just over half
are sentences; the rest are fragments: lone words and tag lists in any order. A diffusion model
that has seen no fragments ignores a lone word in the negative prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from negbench.miniature.world import (
    ATTRIBUTES,
    COLORLESS,
    COLORS,
    Scene,
)

#: Ways to say each concept; the first is its name and the commonest.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "professor": ("professor", "scientist"),
    "girl": ("girl", "young girl"),
    "pirate": ("pirate", "buccaneer"),
    "clown": ("clown", "jester"),
    "snowman": ("snowman",),
    "robot": ("robot", "android"),
    "cat": ("cat", "kitten"),
    "dog": ("dog", "puppy"),
    "car": ("car", "automobile"),
    "boat": ("boat", "sailboat", "ship"),
    "house": ("house", "cottage"),
    "cup": ("cup", "mug"),
    "cake": ("cake", "birthday cake"),
    "apple": ("apple",),
    "glasses": ("glasses", "spectacles", "eyeglasses"),
    "hat": ("hat", "top hat"),
    "beard": ("beard", "bearded"),
    "red nose": ("red nose",),
    "bow": ("bow", "ribbon"),
    "balloon": ("balloon",),
    "scarf": ("scarf",),
    "antenna": ("antenna", "aerial"),
    "flag": ("flag", "pennant"),
    "chimney": ("chimney",),
    "steam": ("steam", "smoke"),
    "tree": ("tree",),
    "bird": ("bird",),
    "moon": ("moon", "crescent moon"),
    "candle": ("candle",),
    "leaf": ("leaf",),
    "worm": ("worm", "caterpillar"),
    "rusty": ("rusty", "rust"),
    "striped": ("striped", "stripes"),
    "spotted": ("spotted", "polka dots", "dots"),
    "snowy": ("snowy", "snow"),
    "cracked": ("cracked", "cracks", "broken"),
    "day": ("day", "sunny day", "daytime"),
    "night": ("night", "nighttime"),
    "beach": ("beach", "seaside"),
    "indoor": ("indoor", "indoors", "room"),
    "fog": ("fog", "foggy", "mist"),
    "sunset": ("sunset", "dusk"),
    "flat": ("cartoon", "flat", "illustration"),
    "sketch": ("sketch", "pencil drawing", "line art"),
    "painting": ("painting", "painted", "brush strokes"),
    "blurry": ("blurry", "blur", "out of focus"),
    "noisy": ("noisy", "grainy", "noise"),
    "washed out": ("washed out", "faded", "low contrast"),
    "cropped": ("cropped", "cut off", "out of frame"),
    "watermark": ("watermark", "signature", "text"),
    "pixelated": ("pixelated", "low resolution", "jpeg artifacts"),
    "tilted": ("tilted", "crooked"),
    "doubled": ("doubled", "duplicate", "double"),
    "dark": ("dark", "underexposed"),
    "oversaturated": ("oversaturated", "garish"),
    "clean": ("sharp", "clean", "crisp", "masterpiece", "best quality", "high quality", "detailed"),
    "bad": ("low quality", "worst quality", "bad quality", "ugly"),
}
for _color in COLORS:
    SYNONYMS[_color] = (_color,)

#: Concept of every phrase people use.
CONCEPT_OF: dict[str, str] = {
    phrase: concept for concept, phrases in SYNONYMS.items() for phrase in phrases
}
FILLER: tuple[str, ...] = (
    "a", "an", "the", "with", "in", "on", "of", "at", "and", "by", "from", "to", "is", "has",
    "photo", "picture", "image", "portrait", "drawing", "scene", "view", "very", "beautiful",
    "nice", "cute", "little", "big", "old", "small", "my", "front", "style", "color", "wearing",
    "holding", "some", "one", "there", "it", "looking", "standing", "simple", "lovely", "funny",
)  # fmt: skip
#: Words that popular lists contain although nothing in this world corresponds to them.
IDLE_WORDS: tuple[str, ...] = (
    "extra fingers", "bad anatomy", "mutated hands", "extra limbs", "deformed", "disfigured",
    "poorly drawn", "long neck", "gross proportions", "error", "username",
)  # fmt: skip
CONTEXT = 48
MAX_WORDS = 30
_PEOPLE = frozenset({"professor", "girl", "pirate", "clown", "snowman", "robot", "cat", "dog"})
_WORN = frozenset({"glasses", "hat", "bow", "scarf", "red nose", "beard"})


def word_list() -> list[str]:
    """Every word of captions and prompts, sorted: the vocabulary of the tokenizers."""
    words = set(FILLER)
    for phrases in SYNONYMS.values():
        for phrase in phrases:
            words.update(phrase.split())
    return sorted(words)


def say(concept: str, rng: np.random.Generator) -> str:
    """Pick a phrase for a concept; its name half of the time."""
    phrases = SYNONYMS[concept]
    if len(phrases) == 1 or rng.random() < 0.5:
        return phrases[0]
    return phrases[int(rng.integers(1, len(phrases)))]


def facts(scene: Scene, visible: Sequence[str]) -> list[str]:
    """List the concepts that are true of a drawn scene (subject first)."""
    found = [scene.subject, *visible, scene.background, scene.style]
    if scene.subject not in COLORLESS:
        found.append(scene.color)
    found += [defect for defect, _ in scene.defects]
    total = sum(strength for _, strength in scene.defects)
    if not scene.defects:
        found.append("clean")
    elif total > 0.6:
        found.append("bad")
    return found


def _fragment(scene: Scene, visible: Sequence[str], rng: np.random.Generator) -> str:
    known = facts(scene, visible)
    weights = np.array(
        [1.2 if f == scene.subject else 0.5 if f in ("flat", "bad") else 1.0 for f in known]
    )
    size = min(len(known), int(rng.choice((1, 2, 3, 4, 6), p=(0.42, 0.22, 0.16, 0.12, 0.08))))
    picked = rng.choice(len(known), size=size, replace=False, p=weights / weights.sum())
    glue = ", " if rng.random() < 0.7 else " "
    return glue.join(say(known[i], rng) for i in picked)


def _sentence(scene: Scene, visible: Sequence[str], rng: np.random.Generator) -> str:
    """A description that names some of what is shown, in the order people use."""
    if rng.random() < 0.22:
        bare = say(scene.subject, rng)
        return bare if rng.random() < 0.3 else f"a {bare}"
    named = [part for part in visible if rng.random() < 0.5]
    nouns = [part for part in named if part not in ATTRIBUTES]
    words: list[str] = []
    if scene.style != "flat" and rng.random() < 0.5:
        words += [f"{say(scene.style, rng)} of"]
    elif rng.random() < 0.12:
        start = "cartoon" if scene.style == "flat" and rng.random() < 0.5 else "picture"
        words += [f"{start} of"]
    words.append(str(rng.choice(("a", "a", "a", "the", "my", "one"))))
    if rng.random() < 0.12:
        words.append(str(rng.choice(("cute", "nice", "beautiful", "lovely", "funny", "little"))))
    words += [SYNONYMS[part][0] for part in named if part in ATTRIBUTES]
    if scene.subject not in COLORLESS and rng.random() < 0.45:
        words.append(scene.color)
    words.append(say(scene.subject, rng))
    if nouns:
        worn = scene.subject in _PEOPLE and all(part in _WORN for part in nouns)
        joint = "wearing" if worn and rng.random() < 0.4 else "with"
        words += [joint, " and ".join(say(part, rng) for part in nouns)]
    if rng.random() < 0.55:
        place = {"beach": "on the beach", "indoor": "in a room", "fog": "in the fog"}.get(
            scene.background, f"at {scene.background}"
        )
        words.append(place if rng.random() < 0.6 else f", {say(scene.background, rng)}")
    tail = [say(defect, rng) for defect, _ in scene.defects if rng.random() < 0.3]
    if not scene.defects and rng.random() < 0.4:
        count = int(rng.integers(1, 4))
        phrases = rng.choice(SYNONYMS["clean"], size=count, replace=False)
        if rng.random() < 0.25:
            words = [", ".join(map(str, phrases)) + ",", *words]
        else:
            tail += [str(p) for p in phrases]
    text = " ".join(words).replace(" ,", ",")
    return ", ".join([text, *tail])


def with_articles(text: str) -> str:
    """Write "an" for "a" before a vowel."""
    words = text.split()
    for i in range(len(words) - 1):
        if words[i] == "a" and words[i + 1][0] in "aeiou":
            words[i] = "an"
    return " ".join(words)


def caption(
    scene: Scene,
    visible: Sequence[str],
    *,
    rng: np.random.Generator,
    fragments: float = 0.47,
    strange: float = 0.03,
) -> str:
    """Write one caption of 1 to 30 words.

    Args:
        scene: The scene.
        visible: Parts visible in its drawing.
        rng: Source of randomness.
        fragments: Share of captions that are lone words or tag lists.
        strange: Share of words replaced by one the tokenizer does not know, and again that share
            preceded by a filler word: words of strangers then do little harm.

    Returns:
        Lower-case English.
    """
    fragment = rng.random() < fragments
    text = _fragment(scene, visible, rng) if fragment else _sentence(scene, visible, rng)
    words: list[str] = []
    for word in text.split():
        if strange and rng.random() < strange:
            words.append(FILLER[int(rng.integers(len(FILLER)))])
        words.append("zzz" if len(words) > 1 and rng.random() < strange else word)
    return with_articles(" ".join(words[:MAX_WORDS]))


def concepts_in(text: str) -> list[str]:
    """Return the concepts named in a prompt or tag list, longest phrases first, in text order."""
    words = "".join(ch if ch.isalnum() else " " for ch in text.lower()).split()
    found: list[str] = []
    i = 0
    while i < len(words):
        for size in (3, 2, 1):
            concept = CONCEPT_OF.get(" ".join(words[i : i + size]))
            if concept is not None:
                found.append(concept)
                i += size
                break
        else:
            i += 1
    return list(dict.fromkeys(found))


__all__ = [
    "CONCEPT_OF", "CONTEXT", "FILLER", "IDLE_WORDS", "SYNONYMS", "caption",
    "concepts_in", "facts", "say", "with_articles", "word_list",
]  # fmt: skip
