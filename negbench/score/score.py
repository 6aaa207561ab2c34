"""Score pictures that exist already with the metrics, statistics and record of `evaluate`.

Paired pictures make a record like any other. Pictures without a twin make records of their own, in
which the picture stands in its twin's place and nothing is compared.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negbench.errors import ConfigError, DataError
from negbench.evaluate import evaluate
from negbench.files import write_atomic
from negbench.generators.base import RunOptions
from negbench.params import check_counts
from negbench.plan import Job, Resolved
from negbench.progress import Progress, silent
from negbench.protocols.cases import dataset_digest
from negbench.record import Plan, Record, save_record
from negbench.requests import Wanted
from negbench.score.choice import Chosen, choose_metrics, nothing_left
from negbench.score.given import GIVEN, Drawer, GivenPictures, request_of
from negbench.score.pairing import Pairs, Picture, numbered, pair
from negbench.score.pictures import Unscored, load_pixels, read_pictures
from negbench.score.twins import DrawnTwins, twins_to_draw
from negbench.store import default_cache, pixel_digest
from negbench.types import Case, ImageRequest, Ref, canonical_json, sha256_hex

BENCHMARK = "pictures"
SHOWN = 1000
"""Most unscored files that JSON output lists; the file beside the record has all."""
PAIRING = (
    "a picture and its twin have equal prompt, seed, model and settings as far as their metadata "
    "tell; they belong together only if the same software drew both"
)
REDRAWN = (
    "the twins were drawn by negbench, the pictures by other software, whose noise is another for "
    "the same seed: compare means over prompts, not picture with picture"
)


@dataclass
class Outcome:
    """What scoring gave.

    Attributes:
        records: one for the pairs, one each for what has no twin, as there are any.
        unscored: files and rows that gave no score, with their reasons.
        left_out: metric -> why it was not computed.
        reasons: why pictures with a negative prompt have no twin, and how often.
    """

    records: list[Record]
    unscored: list[Unscored]
    left_out: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Records, and a bounded list of what was not scored."""
        from negbench.tables import records_json

        dumped = records_json(self.records)
        return {
            "records": dumped.get("records", [dumped]),
            "unscored": {
                "count": len(self.unscored),
                "by_reason": dict(Counter(item.reason for item in self.unscored).most_common(50)),
                "files": [vars(item) for item in self.unscored[:SHOWN]],
            },
            "metrics_left_out": self.left_out,
            "without_twin": self.reasons,
        }


@dataclass(frozen=True)
class _Part:
    """Pictures of one record; a twin is a picture, or a request that has to be drawn."""

    method: str
    suffix: str
    pairs: list[tuple[Picture, Picture | ImageRequest]]
    compared: bool
    same_noise: bool
    notes: list[str]


def score_pictures(
    place: str | Path,
    *,
    metrics_of: str | None = None,
    metrics: Sequence[str] | None = None,
    mapping: Mapping[str, str] | None = None,
    draw_twins: bool = False,
    generator: str | None = None,
    generator_params: Mapping[str, Any] | None = None,
    label: str | None = None,
    limit: int | None = None,
    out: Path = Path("runs"),
    cache: Path | None = None,
    options: RunOptions | None = None,
    progress: Progress = silent,
    command: str = "",
) -> Outcome:
    """Score the pictures of a folder, or those that a table names.

    Args:
        place: a folder, one picture, or a table (CSV, TSV, JSON, JSONL, Parquet) with a column of
            paths relative to it.
        metrics_of: benchmark whose metrics to take; None for a choice that fits the pictures.
        metrics: names, of that benchmark or others.
        mapping: field -> column of the table.
        draw_twins: draw the twins that are missing with `generator`.
        generator: hub repo, folder, checkpoint or name; for `draw_twins`.
        generator_params: what its metadata do not say or say wrong: steps, scheduler, dtype, ...
        label: what the records are called; None for the folder's name.
        limit: the first so many pictures only.
        out: folder of runs.
        cache: folder of images and scores; None for the default.
        options: device and batch size.
        progress: called with a label and a total for each stage.
        command: for provenance.

    Raises:
        DataError: no picture can be scored.
        MissingError: the folder, or the weights of a metric asked for, are not there.
        ConfigError: options that exclude one another.
    """
    if draw_twins and generator is None:
        raise ConfigError("--draw-twins needs --generator: a hub repo, a folder or a checkpoint")
    if generator is not None and not draw_twins:
        raise ConfigError("--generator draws nothing without --draw-twins; give both")
    place = Path(place).expanduser()
    pictures, unscored = _gather(place, mapping or {}, limit=limit, progress=progress)
    if not pictures:
        first = f"; first: {unscored[0].id}: {unscored[0].reason}" if unscored else ""
        raise DataError(
            f"{place}: none of {len(unscored)} files can be scored{first}; pictures without "
            "metadata can be given as a table with the columns path and prompt"
        )
    pairs = pair(pictures)
    chosen = choose_metrics(pictures, metrics_of=metrics_of, names=metrics)
    made = DrawnTwins()
    if draw_twins and generator is not None:
        made = twins_to_draw(
            pairs.lonely,
            bench=chosen.bench,
            generator=generator,
            params=generator_params or {},
            options=options or RunOptions(),
        )
        chosen.notes += made.notes
        pairs.reasons = dict(made.refused)
    parts = _parts(pairs, made)
    name = label or place.resolve().name
    records = []
    kept = cache or default_cache()
    for part in parts:
        resolved = _resolve(
            part,
            chosen,
            made.drawers,
            label=name,
            out=out,
            cache=kept,
            options=options or RunOptions(),
        )
        if resolved is None:
            continue
        [record] = evaluate(resolved, progress=_reading(progress, made), command=command)
        if not part.compared:
            _without_twins(record)
        if record.folder is not None:
            _list_unscored(record.folder, unscored)
        records.append(record)
    if not records:
        raise nothing_left(chosen, paired=any(part.compared for part in parts))
    return Outcome(records, unscored, left_out=chosen.left_out, reasons=pairs.reasons)


def _gather(
    place: Path, mapping: Mapping[str, str], *, limit: int | None, progress: Progress
) -> tuple[list[Picture], list[Unscored]]:
    """Decode everything once: what is broken is told before anything is scored."""
    check_counts(limit=limit)
    known, unscored, seen = [], [], set()
    for item in read_pictures(place, mapping=mapping):
        if isinstance(item, Unscored):
            unscored.append(item)
        elif item.id in seen:
            unscored.append(Unscored(item.id, "the path stands twice"))
        else:
            seen.add(item.id)
            known.append(item)
            if limit is not None and len(known) >= limit:
                break
    pictures = []
    with progress("reading", len(known)) as bar:
        for item in known:
            try:
                pixels = load_pixels(item.path)
            except DataError as error:
                unscored.append(Unscored(item.id, str(error)))
            else:
                height, width = pixels.shape[:2]
                pictures.append(Picture(item, pixel_digest(pixels), (width, height)))
            bar.update()
    return pictures, unscored


def _parts(pairs: Pairs, made: DrawnTwins) -> list[_Part]:
    drawn = {picture.known.id for picture, _ in (*made.exact, *made.similar)}
    lonely = [picture for picture in pairs.lonely if picture.known.id not in drawn]
    plain = "pictures without a negative prompt that are nobody's twin: nothing to compare with"
    parts = [
        _Part("given", "", [*pairs.paired, *made.exact], True, True, [PAIRING]),
        _Part("given-redrawn-twins", " (redrawn twins)", [*made.similar], True, False, [REDRAWN]),
        _Part("given-unpaired", " (no twin)", _alone(lonely), False, False, _lonely(pairs)),
        _Part("given-plain", " (no negative)", _alone(pairs.plain), False, False, [plain]),
    ]
    return [part for part in parts if part.pairs]


def _alone(pictures: Sequence[Picture]) -> list[tuple[Picture, Picture | ImageRequest]]:
    return [(picture, picture) for picture in pictures]


def _lonely(pairs: Pairs) -> list[str]:
    why = "; ".join(f"{count}: {reason}" for reason, count in pairs.reasons.items())
    return [f"pictures without a twin, so nothing is compared ({why})"]


def _resolve(
    part: _Part,
    chosen: Chosen,
    drawers: Sequence[Drawer],
    *,
    label: str,
    out: Path,
    cache: Path,
    options: RunOptions,
) -> Resolved | None:
    """What `evaluate` needs; None if no metric is left for these pictures."""
    counted = all(picture.known.evaluations is not None for picture, _ in part.pairs)
    names = [
        name
        for name, metric in chosen.metrics.items()
        if (part.same_noise or not metric.needs_twin) and (counted or name != "evaluations")
    ]
    if not names:
        return None
    wanted, files = _wanted(part)
    cases = list({item.case.id: item.case for item in wanted}.values())
    counts = Counter(item.case.id for item in wanted)
    source = GivenPictures(files, drawers=drawers)
    scales = {w.treatment.guidance.scale for w in wanted if w.treatment.guidance is not None}
    guidance = GIVEN.model_copy(update={"scale": scales.pop()}) if len(scales) == 1 else GIVEN
    plan = Plan(
        benchmark=Ref(
            name=BENCHMARK, params={"protocol": chosen.bench.protocol, "cases": len(cases)}
        ),
        dataset=dataset_digest(cases),
        n_cases=len(cases),
        replicates=max(counts.values()),
        method=Ref(name=part.method),
        # the pictures themselves: others, or other twins, are another plan
        treatments=sha256_hex(
            canonical_json([[w.case.id, w.replicate, w.treated_key, w.twin_key] for w in wanted])
        ),
        guidance=guidance,
        treatment_guidance=guidance,
        generator=source.ref(),
    )
    left = [name for name in chosen.metrics if name not in names]
    notes = ["the pictures were given, not drawn by this run", *part.notes, *chosen.notes]
    if left:
        notes.append(f"not computed for these pictures: {', '.join(left)}")
    notes += [f"{name} left out: {reason}" for name, reason in chosen.left_out.items()]
    return Resolved(
        benchmark=chosen.bench.model_copy(update={"name": BENCHMARK, "removal": None}),
        cases=cases,
        generator=source,
        metrics={name: chosen.metrics[name] for name in names},
        metric_refs={name: chosen.refs[name] for name in names},
        jobs=[Job(label=label + part.suffix, plan=plan, wanted=wanted, notes=notes)],
        out=out,
        cache=cache,
        shard=None,
        options=options,
    )


def _wanted(part: _Part) -> tuple[list[Wanted], dict[str, Picture]]:
    """The samples, and the picture behind each key."""
    wanted, files = [], {}
    ids = numbered([picture for picture, _ in part.pairs])
    for (picture, other), (case_id, replicate) in zip(part.pairs, ids, strict=True):
        known = picture.known
        treated = request_of(picture)
        twin = request_of(other) if isinstance(other, Picture) else other
        files[treated.key()] = picture
        if isinstance(other, Picture):
            files[twin.key()] = other
        case = Case(
            id=case_id,
            prompt=known.prompt,
            negative=known.negative or None,
            concept=known.concept,
            tags=known.tags,
        )
        wanted.append(
            Wanted(
                case=case,
                replicate=replicate,
                seed=known.seed or 0,
                treatment=treated.treatment,
                treated=treated,
                twin=twin,
                treated_key=treated.key(),
                twin_key=twin.key(),
            )
        )
    return wanted, files


def _without_twins(record: Record) -> None:
    """Take out of a record what was said of twins that are the pictures themselves."""
    if record.twin_estimates or record.paired:
        record.twin_estimates, record.paired = [], []
        record.notes = [note for note in record.notes if not note.startswith("every image is")]
        if record.folder is not None:
            save_record(record.folder, record)


def _list_unscored(folder: Path, unscored: Sequence[Unscored]) -> None:
    if not unscored:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "reason"])
    writer.writerows([item.id, item.reason] for item in unscored)
    write_atomic(folder / "unscored.csv", text.getvalue().encode("utf-8", "replace"))


def _reading(progress: Progress, made: DrawnTwins) -> Progress:
    """The stage that draws only copies pictures where no twin has to be drawn."""

    def shown(label: str, total: int) -> Any:
        return progress("keeping" if label == "drawing" and not made.drawers else label, total)

    return shown
