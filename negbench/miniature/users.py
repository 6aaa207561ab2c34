"""Simulated users who write prompts and negative prompts: the miniature Negative Prompts DB.

Most users copy a popular list (Zipf), some choose well given what the prompt asks for and what
pictures of it tend to suffer from, some add useless or contradictory words. Every user knows
what they want shown; their prompt says only part of it. Likes follow the true effect of the
negative prompt, with noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from negbench.miniature.captions import (
    IDLE_WORDS,
    MAX_WORDS,
    SYNONYMS,
    caption,
    concepts_in,
    say,
    with_articles,
)
from negbench.miniature.world import (
    COLORLESS,
    DEFECTS,
    PARTS_BY_SUBJECT,
    Scene,
    defect_odds,
    sample_scene,
)

#: Lists that go round; commonest first. Some forbid what some people want (fog, sketches, night).
POPULAR_LISTS: tuple[str, ...] = (
    "blurry, low quality, watermark, text",
    "worst quality, low quality, jpeg artifacts, signature, watermark, username, cropped, "
    "out of frame, blurry",
    "sketch, painting, cartoon, low quality, blurry, dark, foggy",
    "ugly, deformed, disfigured, bad anatomy, extra limbs, mutated hands, blurry, grainy",
    "low quality, oversaturated, underexposed, low contrast, noise",
    "line art, pencil drawing, brush strokes, foggy, mist, dusk, night, dark, snow, ugly",
    "out of frame, duplicate, cut off, crooked, cropped, extra fingers, error",
    "blurry, noise, grainy, faded, low contrast, cropped, cut off, watermark, signature, text, "
    "pixelated, low resolution, jpeg artifacts, tilted, crooked, doubled, duplicate, dark, "
    "underexposed, oversaturated, garish, sketch, painting, stripes, polka dots, fog, night, "
    "snow, cracks, worst quality, ugly",
)
SPLITS: tuple[str, ...] = ("train", "validation", "test")
PAIRS = 6_000
NEAR_DUPLICATE = 0.85
_KINDS = {"copyist": 0.55, "chooser": 0.27, "muddler": 0.18}


@dataclass(frozen=True)
class Pair:
    """A user's prompt and negative prompt, and the truth behind them.

    Attributes:
        id: Twelve hex digits.
        prompt: 1 to 30 words.
        negative: Comma separated tags.
        user: Name of the simulated user.
        likes: How many people liked the picture.
        kind: `copyist`, `chooser` or `muddler`.
        subject: What the picture is of.
        background: Where the user wants it.
        style: The style the user wants.
        wants: Every concept the user wants shown, said or not.
        dislikes: Parts that such pictures tend to show and this user does not want.
        effect: True benefit of the negative prompt (see `true_effect`).
    """

    id: str
    prompt: str
    negative: str
    user: str
    likes: int
    kind: str
    subject: str
    background: str
    style: str
    wants: tuple[str, ...]
    dislikes: tuple[str, ...]
    effect: float


def true_effect(
    negative: str, *, subject: str, background: str, wants: Iterable[str], dislikes: Iterable[str]
) -> float:
    """Benefit of a negative prompt for one person in this world.

    Sum over its tags: +6 x (share of that defect among defects of such a scene) x (its weight in
    `DEFECTS`), + the part's odds for a disliked part, +0.3 for a generic bad-quality word, -2.5
    for anything wanted (quality words included); divided by sqrt(1 + tags / 6): long lists dilute.
    """
    wanted, unwanted = set(wants) | {"clean"}, set(dislikes)
    odds = defect_odds(subject, background)
    total = 0.0
    for concept in concepts_in(negative):
        if concept in wanted:
            total -= 2.5
        elif concept in DEFECTS:
            total += 6.0 * odds[concept] * DEFECTS[concept]
        elif concept in unwanted:
            total += 2.0 * PARTS_BY_SUBJECT[subject].get(concept, 0.0)
        elif concept == "bad":
            total += 0.3
    tags = negative.count(",") + 1 if negative else 0
    return float(total / np.sqrt(1.0 + tags / 6.0))


def _prompt(scene: Scene, named: list[str], extra: str | None, rng: np.random.Generator) -> str:
    shown = replace(scene, parts=tuple(named), defects=())
    text = caption(shown, named, rng=rng, fragments=0.18, strange=0.0)
    if scene.subject not in concepts_in(text):
        text = f"{say(scene.subject, rng)}, {text}" if rng.random() < 0.7 else scene.subject
    if scene.style != "flat" and scene.style not in concepts_in(text) and rng.random() < 0.6:
        text = f"{text}, {say(scene.style, rng)}"
    if extra:
        text = f"{text}, {say(extra, rng)}"
    if rng.random() < 0.22:
        boosters = rng.choice(
            (*SYNONYMS["clean"], "beautiful", "very nice", "lovely", "cute", "funny picture",
             "little", "simple view", "portrait"),
            size=int(rng.integers(2, 12)), replace=False,
        )  # fmt: skip
        text = f"{text}, {', '.join(map(str, boosters))}"
    return with_articles(" ".join(text.split()[:MAX_WORDS]).strip(" ,"))


def _choose_well(
    scene: Scene, wants: set[str], dislikes: list[str], rng: np.random.Generator
) -> str:
    odds = defect_odds(scene.subject, scene.background)
    worth = {d: odds[d] * DEFECTS[d] * 6 for d in DEFECTS if d not in wants}
    worth |= {part: 2.0 * PARTS_BY_SUBJECT[scene.subject][part] for part in dislikes}
    ranked = sorted(worth, key=lambda c: -worth[c] * float(rng.uniform(0.6, 1.4)))
    tags = [say(concept, rng) for concept in ranked[: int(rng.integers(2, 6))]]
    if rng.random() < 0.3:
        tags.append(say("bad", rng))
    return ", ".join(tags)


def _copy(rng: np.random.Generator) -> str:
    ranks = 1.0 / np.arange(1, len(POPULAR_LISTS) + 1)
    tags = POPULAR_LISTS[int(rng.choice(len(POPULAR_LISTS), p=ranks / ranks.sum()))].split(", ")
    if rng.random() < 0.2 and len(tags) > 2:
        tags.pop(int(rng.integers(len(tags))))
    if rng.random() < 0.2:
        tags.append(say(str(rng.choice((*DEFECTS, "bad"))), rng))
    return ", ".join(tags)


def _muddle(wants: set[str], rng: np.random.Generator) -> str:
    concepts = tuple(SYNONYMS)
    tags = [say(str(c), rng) for c in rng.choice(concepts, size=int(rng.integers(1, 5)))]
    tags += [str(w) for w in rng.choice(IDLE_WORDS, size=int(rng.integers(0, 5)), replace=False)]
    if rng.random() < 0.6:
        tags.append(say(str(rng.choice(sorted(wants))), rng))
    order = rng.permutation(len(tags))
    return ", ".join(dict.fromkeys(tags[i] for i in order))


def write_pair(number: int, *, seed: int = 0) -> Pair:
    """Let user and prompt number `number` of the seeded world happen."""
    rng = np.random.default_rng([seed, number, 77])
    scene = sample_scene(rng, clean=True)
    odds = PARTS_BY_SUBJECT[scene.subject]
    wanted_parts = [part for part in scene.parts if rng.random() < 0.7]
    named = [part for part in wanted_parts if rng.random() < 0.75]
    extra = None
    if rng.random() < 0.1:
        extra = str(rng.choice(("dark", "noisy", "washed out", "doubled")))
    wants = {scene.subject, scene.background, scene.style, *wanted_parts}
    if scene.subject not in COLORLESS:
        wants.add(scene.color)
    if extra:
        wants.add(extra)
    prompt = _prompt(scene, named, extra, rng)
    wants |= set(concepts_in(prompt)) - {"clean"}
    dislikes = [part for part in odds if part not in wants and rng.random() < 0.5]
    kind = str(rng.choice(tuple(_KINDS), p=tuple(_KINDS.values())))
    if kind == "chooser":
        negative = _choose_well(scene, wants, dislikes, rng)
    elif kind == "copyist":
        negative = _copy(rng)
    else:
        negative = _muddle(wants, rng)
    effect = true_effect(negative, subject=scene.subject, background=scene.background,
                         wants=wants, dislikes=dislikes)  # fmt: skip
    likes = int(rng.poisson(np.exp(np.clip(1.0 + 0.7 * effect + rng.normal(0, 0.5), -3, 6))))
    digest = hashlib.sha256(f"{seed}|{number}|{prompt}|{negative}".encode()).hexdigest()[:12]
    user = f"{kind}-{int(rng.zipf(1.6)) % 400:03d}"
    return Pair(
        id=digest, prompt=prompt, negative=negative, user=user, likes=likes, kind=kind,
        subject=scene.subject, background=scene.background, style=scene.style,
        wants=tuple(sorted(wants)), dislikes=tuple(sorted(dislikes)), effect=round(effect, 4),
    )  # fmt: skip


def prompt_words(prompt: str) -> frozenset[str]:
    """The set of words by which near-duplicate prompts are found."""
    return frozenset("".join(c if c.isalnum() else " " for c in prompt.lower()).split())


def clusters(prompts: list[str], *, threshold: float = NEAR_DUPLICATE) -> list[int]:
    """Group near-duplicate prompts (single linkage on the Jaccard index of their words).

    Args:
        prompts: Any number of prompts.
        threshold: Two prompts are near-duplicates from this Jaccard index on.

    Returns:
        For each prompt the smallest index of its cluster.
    """
    sets = [prompt_words(p) for p in prompts]
    words = {w: i for i, w in enumerate(sorted(set().union(*sets)))}
    matrix = np.zeros((len(sets), len(words)), np.float32)
    for row, members in enumerate(sets):
        matrix[row, [words[w] for w in members]] = 1
    sizes = matrix.sum(axis=1)
    root = list(range(len(sets)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for row in range(len(sets)):
        both = matrix[row:] @ matrix[row]
        index = both / np.maximum(sizes[row:] + sizes[row] - both, 1e-9)
        for other in np.flatnonzero(index >= threshold)[1:] + row:
            a, b = find(row), find(int(other))
            root[max(a, b)] = min(a, b)
    return [find(i) for i in range(len(sets))]


def split_of(cluster_prompt: str) -> str:
    """Split of a cluster, by the hash of its first prompt: 80 / 10 / 10."""
    key = " ".join(sorted(prompt_words(cluster_prompt)))
    bucket = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def build_db(*, count: int = PAIRS, seed: int = 0) -> dict[str, list[Pair]]:
    """Write the whole DB.

    Args:
        count: Number of pairs before exact duplicates are dropped.
        seed: Seed of the users.

    Returns:
        Pairs by split; no prompt of one split is a near-duplicate of one of another.
    """
    pairs: dict[tuple[str, str], Pair] = {}
    for number in range(count):
        pair = write_pair(number, seed=seed)
        pairs.setdefault((pair.prompt, pair.negative), pair)
    listed = list(pairs.values())
    roots = clusters([pair.prompt for pair in listed])
    result: dict[str, list[Pair]] = {name: [] for name in SPLITS}
    for pair, root in zip(listed, roots, strict=True):
        result[split_of(listed[root].prompt)].append(pair)
    return result


def write_db(folder: Path, *, count: int = PAIRS, seed: int = 0) -> dict[str, int]:
    """Write `train.parquet`, `validation.parquet` and `test.parquet`; return their lengths."""
    import polars as pl

    folder.mkdir(parents=True, exist_ok=True)
    lengths: dict[str, int] = {}
    for name, pairs in build_db(count=count, seed=seed).items():
        rows = [{**vars(p), "wants": list(p.wants), "dislikes": list(p.dislikes)} for p in pairs]
        pl.DataFrame(rows).write_parquet(folder / f"{name}.parquet", compression="zstd")
        lengths[name] = len(rows)
    return lengths
