"""What there is to judge in runs: a concept, a case, a noise, and the pictures of all arms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from negbench.errors import ConfigError, MissingError
from negbench.metrics.base import Pixels
from negbench.record import Record, find_runs, load_record

if TYPE_CHECKING:
    from negbench.store import ImageStore

TWIN = "twin"


@dataclass(frozen=True)
class Picture:
    """One picture of an arm: its request's key and its pixels' digest."""

    key: str
    image: str


@dataclass(frozen=True)
class Unit:
    """One (case, noise, concept) of a run.

    Attributes:
        run: the run's plan digest, its first 12 digits.
        label: what the run is called, its method.
        pictures: by arm: ``treated``, ``twin`` and whatever else the protocol draws.
    """

    run: str
    label: str
    case: str
    replicate: int
    seed: int
    prompt: str
    concept: str
    tags: tuple[str, ...]
    pictures: dict[str, Picture]

    @property
    def category(self) -> str:
        """What its tag ``category:...`` says, or ``all``."""
        found = [tag[9:] for tag in self.tags if tag.startswith("category:")]
        return found[0] if found else "all"


def load_runs(paths: Iterable[Path]) -> list[Record]:
    """The runs in these folders, or below them.

    Raises:
        RecordError: no run is there, or one is damaged.
    """
    return [load_record(folder) for folder in find_runs(paths)]


def units_of(record: Record, *, concept: str | None = None) -> list[Unit]:
    """The units of a run, in a fixed order.

    Args:
        record: a run.
        concept: look for this one in every picture, in place of the cases' own.

    Raises:
        ConfigError: a case names no concept, and none was given.
    """
    units = []
    for sample in record.samples():
        wanted = concept or sample.concept
        if not wanted:
            raise ConfigError(
                f"{record.folder}: case {sample.case} names no concept to look for; say which with "
                "--concept, for example --concept glasses"
            )
        pictures = {arm: Picture(image.key, image.image) for arm, image in sample.images().items()}
        units.append(
            Unit(
                run=record.plan_digest[:12],
                label=record.label,
                case=sample.case,
                replicate=sample.replicate,
                seed=sample.seed,
                prompt=sample.prompt,
                concept=wanted,
                tags=sample.tags,
                pictures=pictures,
            )
        )
    return units


def load_pixels(store: ImageStore, picture: Picture) -> Pixels:
    """A picture's pixels.

    Raises:
        MissingError: it is not in this cache, or was altered there.
    """
    stored = store.get(picture.key)
    pixels = None if stored is None else store.load(stored)
    if stored is None or pixels is None or stored.image != picture.image:
        raise MissingError(
            f"picture {picture.key[:12]} of the run is not in {store.root}; give the run's cache "
            "with --cache, or give the evaluate command again to draw it"
        )
    return pixels


def arms_of(units: Sequence[Unit]) -> list[str]:
    """The arms that all units have, the twin first."""
    common = set.intersection(*(set(unit.pictures) for unit in units)) if units else set()
    order = ("twin", "treated", "all_steps", "empty", "placebo")
    return [a for a in order if a in common] + sorted(common.difference(order))


def places_of(units: Iterable[Unit]) -> dict[tuple[str, str, str], str]:
    """(case, seed, arm) -> image digest; empty where several runs have different pictures there."""
    places: dict[tuple[str, str, str], str] = {}
    for unit in units:
        for arm, picture in unit.pictures.items():
            place = (unit.case, str(unit.seed), arm)
            same = places.setdefault(place, picture.image) == picture.image
            if not same:
                places[place] = ""
    return places
