"""The page of one or more runs: a single HTML file, offline, that runs only its own script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from negbench import __version__
from negbench.compare.same import run_labels
from negbench.errors import ConfigError
from negbench.files import write_atomic
from negbench.progress import Progress, silent
from negbench.record import Record, Sample
from negbench.report.extras import find_extras
from negbench.report.gallery import LIMIT, Gallery, gather_gallery, missing_hint
from negbench.report.numbers import Numbers, lay_out
from negbench.report.pictures import SIDE
from negbench.report.text import content_security_policy, script_json, visible
from negbench.types import canonical_json

MARKS = {"better": "▲", "worse": "▼", "cannot tell": "○"}


@dataclass(frozen=True)
class Group:
    """Runs on the same cases with the same generator: what one may hold side by side."""

    title: str
    numbers: Numbers


@dataclass(frozen=True)
class Report:
    """A page, and what went into it.

    Attributes:
        html: the page.
        n_runs: runs.
        n_shown: samples in the gallery.
        n_all: samples of the runs.
        n_pictures: pictures embedded.
        notes: what the reader of the command should know.
    """

    html: str
    n_runs: int
    n_shown: int
    n_all: int
    n_pictures: int
    notes: list[str]


def make_report(
    records: Sequence[Record],
    *,
    cache: Path,
    folders: Sequence[Path] = (),
    title: str | None = None,
    limit: int | None = LIMIT,
    side: int | None = SIDE,
    progress: Progress = silent,
) -> Report:
    """The page of some runs.

    Args:
        records: runs with their folders; those on other cases or generators stand in their own
            part of the page.
        cache: folder of images.
        folders: of sweeps and timing, whose plots and tables are shown too; with these, there need
            not be a run.
        title: heading; None for the benchmarks' names.
        limit: samples in the gallery at most; None for all.
        side: longest side of embedded pictures in pixels; None for full size.
        progress: called with a label and a total, gives a bar.

    Raises:
        ConfigError: no run, or a run without samples.
    """
    if not records and not folders:
        raise ConfigError("no run to report on; give folders that evaluate wrote")
    labels = run_labels(records)
    samples = [record.samples() for record in records]
    for label, record, found in zip(labels, records, samples, strict=True):
        if not found:
            raise ConfigError(
                f"run {label} in {record.folder} has no samples yet; give its evaluate command "
                "again to go on"
            )
    gallery = gather_gallery(
        records, labels, samples, cache=cache, limit=limit, side=side, progress=progress
    )
    hint = missing_hint(gallery, cache)
    html = _render(records, labels, samples, gallery, folders=folders, title=title, hint=hint)
    return Report(
        html=html,
        n_runs=len(records),
        n_shown=gallery.n_shown,
        n_all=gallery.n_all,
        n_pictures=len(gallery.pictures.encoded),
        notes=[hint] if hint else [],
    )


def write_report(report: Report, path: Path) -> None:
    """Write the page at once or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    write_atomic(path, report.html.encode("utf-8"))


def _asset(name: str) -> str:
    return (files("negbench.report") / "assets" / name).read_text(encoding="utf-8")


def _render(
    records: Sequence[Record],
    labels: Sequence[str],
    samples: Sequence[Sequence[Sample]],
    gallery: Gallery,
    *,
    folders: Sequence[Path],
    title: str | None,
    hint: str | None,
) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    groups = _groups(records, labels, samples)
    style, script = _asset("report.css"), _asset("report.js")
    plots, tables = [], []
    named = [(label, r.folder) for label, r in zip(labels, records, strict=True) if r.folder]
    for label, folder in [*named, *((_folder_label(folder), folder) for folder in folders)]:
        more_plots, more_tables = find_extras(folder, label=label)
        plots += more_plots
        tables += more_tables
    has = {
        "has_runs": bool(records),
        "has_removal": any(group.numbers.removal for group in groups),
        "has_paired": any(group.numbers.paired for group in groups),
        "has_between": any(group.numbers.between for group in groups),
        "has_breakdown": any(group.numbers.breakdown for group in groups),
    }
    sections = [
        ("glance", "At a glance", has["has_runs"]),
        ("removal", "Removal", has["has_removal"]),
        ("differences", "Differences", has["has_paired"]),
        ("between", "Between methods", has["has_between"]),
        ("values", "Values", has["has_runs"]),
        ("parts", "By part", has["has_breakdown"]),
        ("plots", "Plots", bool(plots or tables)),
        ("record", "Record", has["has_runs"]),
        ("gallery", "Gallery", has["has_runs"]),
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(_asset("report.html"))
    return template.render(
        title=visible(title, limit=200) if title else _title(records, folders),
        version=__version__,
        lede=_lede(records),
        facts=_facts(records),
        # style, script and JSON hold no text of others that could end their element
        policy=content_security_policy(style=style, script=script),
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        data=Markup(script_json(gallery.data)),  # noqa: S704
        chunks=[Markup(script_json(list(c))) for c in gallery.pictures.chunks()],  # noqa: S704
        sections=[(id_, name) for id_, name, there in sections if there],
        groups=groups,
        marks=MARKS,
        gallery_about=_about_gallery(gallery),
        plots=plots,
        tables=tables,
        notes=_notes(records, labels, [hint, *(g.numbers.between_note for g in groups)]),
        runs=[_about_run(record, label) for record, label in zip(records, labels, strict=True)],
        **has,
    )


def _folder_label(folder: Path) -> str:
    return "/".join(folder.parts[-2:])


def _title(records: Sequence[Record], folders: Sequence[Path]) -> str:
    names = dict.fromkeys(
        f"{record.plan.benchmark.name}@{record.plan.benchmark.version}" for record in records
    ) or dict.fromkeys(_folder_label(folder) for folder in folders)
    return visible(" and ".join(names), limit=200)


def _lede(records: Sequence[Record]) -> str:
    if not records:
        return "Plots and tables of a sweep, or of when negative prompts act."
    methods = "one method" if len(records) == 1 else f"{len(records)} methods"
    return (
        f"What {methods} did to pictures: each drawn beside its twin, the same prompt and the same "
        "noise without a negative prompt."
    )


def _facts(records: Sequence[Record]) -> list[tuple[str, str]]:
    if not records:
        return []
    plan = records[0].plan
    params = plan.generator.params
    same = {r.plan.generator.digest() for r in records} == {plan.generator.digest()}
    facts = [
        ("prompts", " / ".join(dict.fromkeys(f"{r.plan.n_cases:,}" for r in records))),
        ("noises each", " / ".join(dict.fromkeys(str(r.plan.replicates) for r in records))),
        ("samples", f"{sum(r.n_samples for r in records):,}"),
        ("generator", plan.generator.name if same else "several"),
    ]
    if same:
        for name in ("steps", "scheduler", "dtype"):
            if isinstance(params.get(name), (str, int)):
                facts.append((name, str(params[name])))
    facts.append(("guidance scale", f"{plan.guidance.scale:g}"))
    return [(name, visible(value, limit=80)) for name, value in facts]


def _groups(
    records: Sequence[Record], labels: Sequence[str], samples: Sequence[Sequence[Sample]]
) -> list[Group]:
    """Runs by what makes their numbers comparable, in the order given."""
    keys = [
        canonical_json(
            [
                record.plan.benchmark.name,
                record.plan.benchmark.version,
                record.plan.dataset,
                record.plan.generator.digest(),
                record.plan.guidance.digest(),
            ]
        )
        for record in records
    ]
    groups = []
    for key in dict.fromkeys(keys):
        chosen = [number for number, other in enumerate(keys) if other == key]
        own = [records[number] for number in chosen]
        plan = own[0].plan
        title = (
            f"{plan.benchmark.name}@{plan.benchmark.version}, {plan.n_cases:,} prompts, "
            f"{plan.generator.name} {plan.generator.digest()[:8]}, scale {plan.guidance.scale:g}"
        )
        numbers = lay_out(own, [labels[n] for n in chosen], [samples[n] for n in chosen])
        groups.append(Group(title=visible(title, limit=200), numbers=numbers))
    return groups


def _about_gallery(gallery: Gallery) -> str:
    text = f"{gallery.n_shown:,} samples, each twin on the left and the treated picture beside it."
    if gallery.n_shown < gallery.n_all:
        text = (
            f"{gallery.n_shown:,} of {gallery.n_all:,} samples: the extremes of each metric and a "
            "random part of the rest, each twin on the left and the treated picture beside it. "
            "negbench report --limit-gallery 0 shows all."
        )
    if gallery.n_sensitive:
        text += f" {gallery.n_sensitive:,} are covered, for their prompts may be sensitive."
    return text


def _notes(
    records: Sequence[Record], labels: Sequence[str], first: Sequence[str | None]
) -> list[str]:
    notes = [note for note in first if note]
    for label, record in zip(labels, records, strict=True):
        if record.status != "complete":
            notes.append(
                f"{label} is {record.status}: {record.n_samples} of {record.n_expected} samples"
            )
        notes += [f"{label}: {note}" for note in record.notes]
    return [visible(note, limit=400) for note in dict.fromkeys(notes)]


def _about_run(record: Record, label: str) -> dict[str, str]:
    sessions = record.provenance.get("sessions", [])
    shown: dict[str, Any] = {
        "commands": [s.get("command") for s in sessions if isinstance(s, dict)][-5:],
        "plan": record.plan.model_dump(mode="json"),
        "provenance": {k: v for k, v in record.provenance.items() if k != "sessions"},
        "metrics": {name: ref.model_dump(mode="json") for name, ref in record.metrics.items()},
    }
    text = json.dumps(shown, indent=2, ensure_ascii=False)
    return {
        "label": visible(label, limit=60),
        "digest": record.plan_digest[:12],
        "plan": visible(text, limit=20_000),
    }
