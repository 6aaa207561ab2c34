"""Judges held against people's labels, removal rates corrected for them, and rankings by judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from negbench.errors import DataError
from negbench.judges.agreement import Agreement, agreement
from negbench.judges.ask import Inquiry
from negbench.judges.base import Judge, Question, Verdict
from negbench.judges.corrected import Corrected, corrected_ratio
from negbench.judges.label_file import Labels, Pair
from negbench.judges.ranking import Ranking, rankings
from negbench.judges.units import TWIN, Unit, arms_of, load_pixels
from negbench.progress import Progress, silent
from negbench.store import ImageStore
from negbench.types import Ref

if TYPE_CHECKING:
    from negbench.stats.summary import Array

WANTED = 200
"""Labelled units that a calibration should have."""

CHUNK = 128
TREATED = "treated"
DIFFERENCES = ("placebo", "all_steps")
"""Arms whose rsr is taken from the treatment's."""


class RunRates(BaseModel):
    """Removal rates of one run under one judge.

    Attributes:
        run: the plan digest's first 12 digits.
        label: the method.
        rates: ``base_rate``, and by arm ``rsr``, ``absent_rate``, ``reverse_activation``, written
            ``rsr/treated``; ``rsr/treated-placebo`` is a difference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    label: str
    n_units: int
    n_labelled: int
    rates: dict[str, Corrected]


class JudgeReport(BaseModel):
    """One judge against the labels.

    Attributes:
        agreement: over all labelled pictures.
        by_category: the same by the cases' category.
        cost: what asking has cost in this process, where the judge counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    judge: Ref
    agreement: Agreement
    by_category: dict[str, Agreement]
    runs: list[RunRates]
    cost: dict[str, float]


class Calibration(BaseModel):
    """All of `negbench calibrate-judge`.

    Attributes:
        labels: the file.
        n_pictures: labelled pictures (image and concept) of the runs.
        n_units: units with labels on twin and treated picture.
        judges: in the order asked for.
        ranking: of the runs by each judge, where there are two or more runs.
        notes: what a reader should know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: str
    n_pictures: int
    n_units: int
    judges: list[JudgeReport]
    ranking: Ranking | None
    notes: list[str]


Verdicts = Mapping[Pair, Verdict]


def calibrate(
    units: Sequence[Unit],
    labels: Labels,
    judges: Mapping[str, Judge],
    *,
    cache: Path,
    device: str = "auto",
    progress: Progress = silent,
) -> Calibration:
    """Hold judges against people's labels of the pictures of runs.

    Args:
        units: of all runs.
        labels: of some of their pictures, a random part.
        judges: by the name they go by in the report.
        cache: where the runs' pictures lie, and verdicts are kept.
        device: where to compute.
        progress: called with a label and a total for each judge, gives a bar.

    Raises:
        DataError: no picture of the runs is labelled.
        MissingError: a picture of the runs is not in the cache.
    """
    pictures = _pictures(units)
    labelled = [pair for pair in pictures if labels.present(*pair) is not None]
    if not labelled:
        raise DataError(
            f"{labels.source} has no label of a picture of these runs; label them with "
            "`negbench label RUN`"
        )
    n_units = sum(
        all(labels.present(unit.pictures[arm].image, unit.concept) is not None for arm in pair)
        for unit in units
        if set(pair := (TWIN, TREATED)) <= set(unit.pictures)
    )
    said: dict[str, Verdicts] = {}
    for name, judge in judges.items():
        said[name] = _ask_all(judge, name, pictures, cache, device, progress)
    reports = []
    for name, judge in judges.items():
        verdicts = said[name]
        by_category: dict[str, list[Pair]] = {}
        for pair in labelled:
            by_category.setdefault(pictures[pair].category, []).append(pair)
        parts = sorted(by_category) if len(by_category) > 1 else []
        reports.append(
            JudgeReport(
                label=name,
                judge=judge.ref(),
                agreement=_agreement(labelled, verdicts, labels, pictures),
                by_category={
                    part: _agreement(by_category[part], verdicts, labels, pictures)
                    for part in parts
                },
                runs=[run_rates(part, verdicts, labels) for part in _by_run(units)],
                cost={key: float(v) for key, v in judge.cost().items()},
            )
        )
    return Calibration(
        labels=labels.source,
        n_pictures=len(labelled),
        n_units=n_units,
        judges=reports,
        ranking=rankings(_by_run(units), {**_people(labels, pictures), **said}),
        notes=_notes(labels, n_units, len(units)),
    )


def _people(labels: Labels, pictures: Mapping[Pair, Unit]) -> dict[str, Verdicts]:
    """People as one more judge, if they labelled every picture."""
    said = {pair: labels.present(*pair) for pair in pictures}
    if any(value is None for value in said.values()):
        return {}
    return {"people": {pair: Verdict.of(float(bool(value))) for pair, value in said.items()}}


def _notes(labels: Labels, n_units: int, count: int) -> list[str]:
    notes = []
    if n_units < WANTED:
        notes.append(
            f"{n_units} units have labels on twin and treated picture; {WANTED} or more are wanted "
            "for rates that can be trusted (`negbench label` goes on where it stopped)"
        )
    if n_units < count:
        notes.append(
            "corrected rates take the labelled units as a random part of all, which they are if "
            "`negbench label` chose them"
        )
    if labels.unsure:
        notes.append(f"{labels.unsure} pictures on which every rater was unsure are left out")
    if labels.unmatched:
        notes.append(f"{labels.unmatched} rows of {labels.source} belong to none of these runs")
    return notes


def _pictures(units: Sequence[Unit]) -> dict[Pair, Unit]:
    """Every distinct (image, concept), with the first unit that has it."""
    found: dict[Pair, Unit] = {}
    for unit in units:
        for picture in unit.pictures.values():
            found.setdefault((picture.image, unit.concept), unit)
    return found


def _by_run(units: Sequence[Unit]) -> list[list[Unit]]:
    runs: dict[str, list[Unit]] = {}
    for unit in units:
        runs.setdefault(unit.run, []).append(unit)
    return list(runs.values())


def _ask_all(
    judge: Judge,
    name: str,
    pictures: Mapping[Pair, Unit],
    cache: Path,
    device: str,
    progress: Progress,
) -> Verdicts:
    store = ImageStore(cache)
    keys = (p.key for unit in pictures.values() for p in unit.pictures.values())
    store.fetch(keys, progress=progress)
    inquiry = Inquiry(judge, cache=cache, device=device)
    pairs = list(pictures)
    found: dict[Pair, Verdict] = {}
    with progress(f"asking {name}", len(pairs)) as bar:
        for start in range(0, len(pairs), CHUNK):
            chunk = pairs[start : start + CHUNK]
            questions = []
            for image, concept in chunk:
                unit = pictures[image, concept]
                picture = next(p for p in unit.pictures.values() if p.image == image)
                questions.append(Question(image, load_pixels(store, picture), concept))
            verdicts = inquiry.ask(questions)
            found.update(zip(chunk, verdicts, strict=True))
            bar.update(len(chunk))
    return found


def _agreement(
    pairs: Sequence[Pair], verdicts: Verdicts, labels: Labels, pictures: Mapping[Pair, Unit]
) -> Agreement:
    return agreement(
        [verdicts[pair].probability for pair in pairs],
        [bool(labels.present(*pair)) for pair in pairs],
        [pictures[pair].prompt for pair in pairs],
    )


def run_rates(units: Sequence[Unit], verdicts: Verdicts, labels: Labels) -> RunRates:
    """Corrected removal rates of one run; see `negbench.judges.corrected`.

    An arm whose every picture is the twin (a rule's empty negative, often) has no rates, nor has
    the difference of two arms with the same pictures.

    Args:
        units: of one run.
        verdicts: a judge's, on every picture.
        labels: people's, on some.
    """
    arms = arms_of(units)
    prompts = [unit.prompt for unit in units]
    judge = {arm: _seen(units, arm, verdicts) for arm in arms}
    people = {arm: _labelled(units, arm, labels) for arm in arms}
    rates: dict[str, Corrected] = {}

    def rate(name: str, above: tuple[Array, Array], below: tuple[Array, Array]) -> None:
        signed = "-" in name
        rates[name] = corrected_ratio(
            (above[0], below[0]),
            (above[1], below[1]),
            prompts,
            bounds=(-1.0, 1.0) if signed else (0.0, 1.0),
        )

    twin = judge[TWIN], people[TWIN]
    lacking = 1 - twin[0], 1 - twin[1]
    ones = np.ones(len(units)), np.ones(len(units))
    removed = {
        arm: (twin[0] * (1 - judge[arm]), twin[1] * (1 - people[arm]))
        for arm in arms
        if not _same(units, arm, TWIN)
    }
    rate("base_rate", twin, ones)
    for arm, joint in removed.items():
        rate(f"rsr/{arm}", joint, twin)
        absent = 1 - judge[arm], 1 - people[arm]
        rate(f"absent_rate/{arm}", absent, (ones[0] + 0 * absent[0], ones[1] + 0 * absent[1]))
        woken = lacking[0] * judge[arm], lacking[1] * people[arm]
        rate(f"reverse_activation/{arm}", woken, lacking)
    for arm in DIFFERENCES:
        if arm in removed and TREATED in removed and not _same(units, arm, TREATED):
            difference = tuple(
                one - other for one, other in zip(removed[TREATED], removed[arm], strict=True)
            )
            rate(f"rsr/{TREATED}-{arm}", (difference[0], difference[1]), twin)
    both = np.isfinite(people[TWIN]) & np.isfinite(people.get(TREATED, people[TWIN]))
    return RunRates(
        run=units[0].run,
        label=units[0].label,
        n_units=len(units),
        n_labelled=int(both.sum()),
        rates=rates,
    )


def _same(units: Sequence[Unit], arm: str, other: str) -> bool:
    """Whether two arms have the same pictures throughout, so that nothing needs to be judged."""
    return all(unit.pictures[arm].image == unit.pictures[other].image for unit in units)


def _seen(units: Sequence[Unit], arm: str, verdicts: Verdicts) -> Array:
    """1 where a judge sees the concept, 0 where not, NaN where it has no verdict; (units,)."""
    said = [verdicts[unit.pictures[arm].image, unit.concept].present for unit in units]
    return np.array([np.nan if value is None else float(value) for value in said])


def _labelled(units: Sequence[Unit], arm: str, labels: Labels) -> Array:
    """The same by people; NaN where nobody labelled."""
    said = [labels.present(unit.pictures[arm].image, unit.concept) for unit in units]
    return np.array([np.nan if value is None else float(value) for value in said])
