"""Which picture is whose twin: the same prompt, noise, model and settings, no negative prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from negbench.score.pictures import Known
from negbench.types import canonical_json, sha256_hex

LARGEST_REPLICATE = 2**53
"""Noises are counted by their seed, kept within what every JSON reader holds exactly."""


@dataclass(frozen=True)
class Picture:
    """A picture that could be decoded.

    Attributes:
        known: what is known of it.
        image: sha256 of its pixels.
        size: width and height in pixels.
    """

    known: Known
    image: str
    size: tuple[int, int]

    @property
    def treated(self) -> bool:
        """Whether it was drawn with a negative prompt."""
        return bool(self.known.negative.strip())

    def settings(self) -> list[object]:
        """What has to be equal in a twin, the noise aside."""
        known = self.known
        return [known.prompt.strip(), sorted(known.settings), *self.size]

    def case_id(self) -> str:
        """Id of the case: the one that it came with, or one of prompt and settings."""
        return self.known.case or f"p-{sha256_hex(canonical_json(self.settings()))[:16]}"


@dataclass
class Pairs:
    """Pictures by what can be said of them.

    Attributes:
        paired: a picture with a negative prompt, and its twin. A picture that is its own twin
            stands with itself.
        lonely: pictures with a negative prompt that have no twin.
        plain: pictures without a negative prompt that are nobody's twin.
        reasons: why lonely pictures have none, and how often.
    """

    paired: list[tuple[Picture, Picture]] = field(default_factory=list)
    lonely: list[Picture] = field(default_factory=list)
    plain: list[Picture] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)


def pair(pictures: Sequence[Picture]) -> Pairs:
    """Find twins: the one that a table or a mark names, else the one whose settings are equal."""
    by_id: dict[str, Picture] = {}
    by_noise: dict[bytes, Picture] = {}
    for picture in pictures:
        by_id.setdefault(picture.known.id, picture)
        if not picture.treated and picture.known.seed is not None:
            by_noise.setdefault(_noise_key(picture), picture)
    found = Pairs()
    used: set[str] = set()
    for picture in pictures:
        named = picture.known.twin
        if named is None and not picture.treated:
            continue
        twin = by_id.get(named) if named is not None else None
        if twin is None and picture.known.seed is not None:
            twin = by_noise.get(_noise_key(picture))
        if twin is not None:
            found.paired.append((picture, twin))
            used.update((picture.known.id, twin.known.id))
        elif picture.treated:
            found.lonely.append(picture)
            used.add(picture.known.id)
            reason = _why(picture, named)
            found.reasons[reason] = found.reasons.get(reason, 0) + 1
    found.plain = [picture for picture in pictures if picture.known.id not in used]
    return found


def _noise_key(picture: Picture) -> bytes:
    return canonical_json([picture.settings(), picture.known.seed])


def _why(picture: Picture, named: str | None) -> str:
    if named is not None:
        return "the twin that it names is not among the pictures"
    if picture.known.seed is None:
        return "its seed is not known"
    return "no picture without a negative prompt has its prompt, seed, model and settings"


def numbered(pictures: Sequence[Picture]) -> list[tuple[str, int]]:
    """Case and noise of each picture, every pair of them once.

    Pictures of one case and seed that differ in their negative prompt are told apart by ``#2``,
    ``#3`` behind the case, in the order given.
    """
    counts: dict[tuple[str, int], int] = {}
    unseeded: dict[str, int] = {}
    ids = []
    for picture in pictures:
        case, replicate = picture.case_id(), picture.known.replicate
        if replicate is None:
            seed = picture.known.seed
            if seed is None:
                seed = unseeded[case] = unseeded.get(case, -1) + 1
            replicate = seed % LARGEST_REPLICATE
        count = counts[case, replicate] = counts.get((case, replicate), 0) + 1
        ids.append((case if count == 1 else f"{case[:190]}#{count}", replicate))
    return ids
