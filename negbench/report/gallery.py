"""The gallery of a report: which samples it shows, and what the page needs to know of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negbench.progress import Progress, silent
from negbench.record import ImageResult, Record, Sample
from negbench.report.pictures import CHUNK, SIDE, Pictures, gather_pictures
from negbench.report.text import visible
from negbench.report.words import ARM_WORDS
from negbench.types import Estimate, canonical_json, sha256_hex

LIMIT = 2000
"""Samples in a gallery unless told otherwise."""
EXTREMES = 40
"""Samples from each end of each metric that a shortened gallery keeps."""
NSFW_TAGS = ("nsfw", "rating:explicit", "rating:questionable")


@dataclass(frozen=True)
class Entry:
    """A sample of one of the report's runs."""

    run: int
    sample: Sample


@dataclass
class Gallery:
    """What the page needs.

    Attributes:
        data: everything but the pictures, for JSON.
        pictures: the pictures.
        n_shown: samples shown.
        n_all: samples there are.
        n_sensitive: samples shown that are blurred until asked for.
        n_withheld: samples whose pictures are left out.
    """

    data: dict[str, Any]
    pictures: Pictures
    n_shown: int
    n_all: int
    n_sensitive: int
    n_withheld: int
    columns: list[Estimate] = field(default_factory=list)


def gather_gallery(
    records: Sequence[Record],
    labels: Sequence[str],
    samples: Sequence[Sequence[Sample]],
    *,
    cache: Path,
    limit: int | None = LIMIT,
    side: int | None = SIDE,
    progress: Progress = silent,
) -> Gallery:
    """Choose samples, embed their pictures, and lay out what the page sorts and filters by.

    Args:
        records: the runs.
        labels: a name for each run.
        samples: the samples of each run.
        cache: folder of images.
        limit: samples shown at most: the extremes of each metric and a random part of the rest;
            None for all.
        side: longest side of embedded pictures; None for full size.
        progress: called with a label and a total, gives a bar.
    """
    every = [Entry(run, sample) for run, found in enumerate(samples) for sample in found]
    columns = image_columns(records, every)
    entries = choose(every, columns, limit=limit)
    sensitive, withheld = flagged(entry.sample for entry in entries)
    wanted = [
        image
        for entry, hidden in zip(entries, withheld, strict=True)
        if not hidden
        for image in entry.sample.images().values()
    ]
    pictures = gather_pictures(wanted, cache=cache, side=side, progress=progress)
    table = _Texts()
    items = [
        _item(entry, columns, pictures, table, sensitive=blur, withheld=hide)
        for entry, blur, hide in zip(entries, sensitive, withheld, strict=True)
    ]
    data = {
        "methods": [visible(label, limit=60) for label in labels],
        "metrics": [_column(column) for column in columns],
        "arms": dict(ARM_WORDS),
        "texts": table.texts,
        "items": items,
        "chunk": CHUNK,
        "tiny": 0 < pictures.size <= 128,
    }
    return Gallery(
        data=data,
        pictures=pictures,
        n_shown=len(entries),
        n_all=len(every),
        n_sensitive=sum(sensitive),
        n_withheld=sum(withheld),
        columns=columns,
    )


def image_columns(records: Sequence[Record], entries: Sequence[Entry]) -> list[Estimate]:
    """The metrics that score single pictures, in the order of the runs."""
    scored = {name for entry in entries for name in entry.sample.treated.scores}
    found: dict[str, Estimate] = {}
    for record in records:
        for estimate in record.estimates:
            if estimate.metric in scored:
                found.setdefault(estimate.metric, estimate)
    return list(found.values())


def _column(estimate: Estimate) -> dict[str, Any]:
    better = {True: 1, False: -1, None: 0}[estimate.higher_is_better]
    return {
        "name": visible(estimate.metric, limit=60),
        "unit": ""
        if estimate.unit in ("1", "score", "share")
        else visible(estimate.unit, limit=20),
        "better": better,
    }


def choose(
    entries: Sequence[Entry], columns: Sequence[Estimate], *, limit: int | None
) -> list[Entry]:
    """At most `limit` entries: the extremes of each metric's gain and value, then a random part.

    The random part is drawn by a hash of case and noise, so that it is the same every time and
    holds the same cases of every run.
    """
    if limit is None or len(entries) <= limit:
        return list(entries)
    kept: dict[int, None] = {}
    ends: list[list[int]] = []
    for column in columns:
        for reading in (_gain, _value):
            values = [(reading(entry.sample, column.metric), i) for i, entry in enumerate(entries)]
            ranked = [i for value, i in sorted((v, i) for v, i in values if v is not None)]
            ends += [ranked[:EXTREMES], ranked[::-1][:EXTREMES]]
    for place in range(EXTREMES):
        for end in ends:
            if place < len(end) and len(kept) < limit // 2:
                kept[end[place]] = None
    order = sorted(range(len(entries)), key=lambda i: _random_key(entries[i].sample))
    for i in order:
        if len(kept) >= limit:
            break
        kept[i] = None
    return [entries[i] for i in sorted(kept)]


def _random_key(sample: Sample) -> str:
    return sha256_hex(canonical_json(["negbench-gallery", sample.case, sample.replicate]))


def _value(sample: Sample, metric: str) -> float | None:
    return _score(sample.treated, metric)


def _gain(sample: Sample, metric: str) -> float | None:
    one, two = _score(sample.treated, metric), _score(sample.twin, metric)
    return None if one is None or two is None else one - two


def _score(image: ImageResult, metric: str) -> float | None:
    score = image.scores.get(metric)
    return None if score is None else score.value


def flagged(samples: Iterable[Sample]) -> tuple[list[bool], list[bool]]:
    """Which samples to blur, and of which to leave the pictures out.

    Blurred: prompt, concept or tags are not safe for work (`negbench.database.nsfw`). Left out:
    such words together with terms for minors.
    """
    import polars as pl

    from negbench.database.nsfw import MINORS, SEXUAL

    found = list(samples)
    texts = pl.Series([f"{s.prompt}\n{s.concept or ''}" for s in found], dtype=pl.String)
    lower = texts.str.to_lowercase()
    sexual = lower.str.contains(SEXUAL)
    minors = (sexual & lower.str.contains(MINORS)).to_list()
    tagged = [any(tag.lower().endswith(NSFW_TAGS) for tag in s.tags) for s in found]
    return [a or b for a, b in zip(sexual.to_list(), tagged, strict=True)], minors


class _Texts:
    """Texts by number, each once, made harmless."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(visible(text))
        return self._numbers[text]


def _item(
    entry: Entry,
    columns: Sequence[Estimate],
    pictures: Pictures,
    table: _Texts,
    *,
    sensitive: bool,
    withheld: bool,
) -> dict[str, Any]:
    sample = entry.sample
    guidance = sample.treatment.guidance
    rule = "" if guidance is None else f"{guidance.kind}, scale {guidance.scale:g}"
    if guidance is not None and guidance.params:
        rule += ", " + ", ".join(f"{k} {v}" for k, v in guidance.params.items())
    item: dict[str, Any] = {
        "m": entry.run,
        "c": table.number(sample.case),
        "r": sample.replicate,
        "s": sample.seed,
        "p": table.number(sample.prompt),
        "n": [[table.number(n.text), n.weight] for n in sample.treatment.negatives],
        "g": table.number(rule),
        "t": [table.number(tag) for tag in sample.tags],
        "a": _image(sample.treated, columns, pictures, table),
        "w": _image(sample.twin, columns, pictures, table),
    }
    if sample.treatment.prompt != sample.prompt:
        item["q"] = table.number(sample.treatment.prompt)
    if sample.concept is not None:
        item["k"] = table.number(sample.concept)
    if sample.arms:
        item["x"] = {
            arm: _image(image, columns, pictures, table) for arm, image in sample.arms.items()
        }
    if sample.placebo is not None:
        item["o"] = table.number(sample.placebo)
    if sensitive:
        item["f"] = 1
    if withheld:
        item["h"] = 1
    return item


def _image(
    image: ImageResult, columns: Sequence[Estimate], pictures: Pictures, table: _Texts
) -> dict[str, Any]:
    """Number of the picture (-1 if not at hand), scores, and reasons where there is none."""
    scores: list[float | None] = []
    reasons: dict[str, int] = {}
    for place, column in enumerate(columns):
        score = image.scores.get(column.metric)
        scores.append(None if score is None or score.value is None else _rounded(score.value))
        if score is not None and score.unscored is not None:
            reasons[str(place)] = table.number(score.unscored)
    found: dict[str, Any] = {"i": pictures.index.get(image.image, -1), "v": scores}
    if reasons:
        found["u"] = reasons
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def missing_hint(gallery: Gallery, cache: Path) -> str | None:
    """One line if pictures are not at hand, else None."""
    if not gallery.pictures.n_missing:
        return None
    return (
        f"{gallery.pictures.n_missing} pictures are not in {cache}; say where they are with "
        "--cache, or draw them again with the run's evaluate command"
    )


def tag_kinds(samples: Iterable[Sample]) -> Mapping[str, list[str]]:
    """Tags by their kind, the part before the colon; those without one under ``tag``."""
    kinds: dict[str, dict[str, int]] = {}
    for sample in samples:
        for tag in sample.tags:
            kind, colon, _ = tag.partition(":")
            counts = kinds.setdefault(kind if colon else "tag", {})
            counts[tag] = counts.get(tag, 0) + 1
    return {
        kind: sorted(counts, key=lambda tag: (-counts[tag], tag)) for kind, counts in kinds.items()
    }
