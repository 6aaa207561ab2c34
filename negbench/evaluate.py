"""The one loop: plan -> requests -> images -> scores -> record.

Every step can be killed and continued: an image is in the store as soon as it is drawn, features
and scores as soon as they are made, and a sample's line is written when all its scores are there.
"""

from __future__ import annotations

import time

from negbench.drawing import Drawing, provenance
from negbench.errors import RecordError
from negbench.files import LineWriter, make_folder
from negbench.metrics.base import SetMetric
from negbench.plan import Job, Resolved
from negbench.progress import Progress, silent
from negbench.record import Record, Sample, load_record, read_samples, run_folder, save_record
from negbench.remote import sending
from negbench.requests import Wanted
from negbench.scoring import Scoring
from negbench.store import FeatureStore
from negbench.summary import summarise

MAX_SESSIONS = 100


def evaluate(resolved: Resolved, *, progress: Progress = silent, command: str = "") -> list[Record]:
    """Draw what is missing, score what is missing, write a record a method.

    Args:
        resolved: what `make_plan` checked.
        progress: called with a label and a total for each stage, gives a bar.
        command: how the run was started, for provenance.

    Returns:
        One record a job, in the order of the methods; status ``partial`` while other shards are
        still missing.

    Raises:
        NegbenchError: a plug-in failed, a disk is full, a record is damaged. Nothing is lost.
    """
    make_folder(resolved.out)
    make_folder(resolved.cache)
    with sending(resolved.cache, progress=progress):
        return _evaluate(resolved, progress=progress, command=command)


def _evaluate(resolved: Resolved, *, progress: Progress, command: str) -> list[Record]:
    started = time.time()
    open_jobs = [_OpenJob(resolved, job) for job in resolved.jobs]
    finished = [job.finished_record() for job in open_jobs]
    if all(record is not None for record in finished):
        return [record for record in finished if record is not None]
    drawing = Drawing(resolved)
    drawing.draw(
        (key for job in open_jobs for wanted in job.todo for key in wanted.requests()),
        progress=progress,
    )
    scoring = Scoring(resolved, drawing)
    with progress("scoring", sum(len(job.todo) for job in open_jobs)) as bar:
        for job in open_jobs:
            for samples in scoring.score(job.todo, job.row_stores()):
                for sample in samples:
                    job.writer.append(sample.model_dump(mode="json"))
                bar.update(len(samples))
    session = {
        "command": command,
        "started": _utc(started),
        "finished": _utc(time.time()),
        "seconds": round(time.time() - started, 3),
        "images_drawn": drawing.n_drawn,
        "evaluations_drawn": drawing.n_evaluations,
        "evaluations_saved": drawing.n_shared,
    }
    facts = {**provenance(), "generator": resolved.generator.describe()}
    return [job.close(facts, session) for job in open_jobs]


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _sessions(record: Record | None) -> list[object]:
    return list(record.provenance.get("sessions", [])) if record is not None else []


def _keep_columns(before: Record, record: Record) -> None:
    """Carry over the columns of metrics that `record` does not have, and what follows from them."""
    others = {name: ref for name, ref in before.metrics.items() if name not in record.metrics}
    if not others:
        return
    record.metrics = {**record.metrics, **others}
    for name in ("estimates", "twin_estimates", "paired"):
        now = getattr(record, name)
        known = {item.metric for item in now}
        now += [item for item in getattr(before, name) if item.metric not in known]
    record.breakdown = record.breakdown or before.breakdown


class _OpenJob:
    """A job with its folder: which samples are scored already, which are still to do."""

    def __init__(self, resolved: Resolved, job: Job) -> None:
        self.resolved = resolved
        self.job = job
        self.folder = run_folder(resolved.out, job.plan)
        self.wanted_digests = {name: ref.digest() for name, ref in resolved.metric_refs.items()}
        self.known_record()  # a damaged header is told before anything is drawn
        self.known = read_samples(self.folder)
        self.todo = [wanted for wanted in resolved.mine(job) if not self._is_done(wanted)]
        self.writer = LineWriter(self.folder / "samples")

    def _is_done(self, wanted: Wanted) -> bool:
        sample = self.known.get(wanted.id)
        if sample is None:
            return False
        if {side: image.key for side, image in sample.images().items()} != wanted.keys():
            raise RecordError(
                f"{self.folder} holds samples of another plan; move it away and run again"
            )
        return all(
            sample.metrics.get(name) == digest for name, digest in self.wanted_digests.items()
        )

    def finished_record(self) -> Record | None:
        """The record on disk if nothing is left to do and it has all metrics asked for."""
        if self.todo:
            return None
        record = self.known_record()
        if record is None or record.status != "complete" or record.n_samples != len(self.known):
            return None
        wanted = self.resolved.metric_refs
        return record if wanted.items() <= record.metrics.items() else None

    def known_record(self) -> Record | None:
        """The record on disk, or None if there is none yet."""
        return load_record(self.folder) if (self.folder / "run.json").is_file() else None

    def row_stores(self) -> dict[str, FeatureStore]:
        """What each image adds to each set metric, kept in the run's own folder."""
        return {
            name: FeatureStore(self.folder, self.resolved.metric_refs[name], kind="rows")
            for name, metric in self.resolved.metrics.items()
            if isinstance(metric, SetMetric)
        }

    def close(self, facts: dict[str, object], session: dict[str, object]) -> Record:
        """Summarise all samples there are, of every shard, and write the header.

        What an earlier session found by metrics that were not asked for now stays in the header.
        """
        self.writer.close()
        before = self.known_record()
        samples = read_samples(self.folder)
        ordered = [samples[wanted.id] for wanted in self.job.wanted if wanted.id in samples]
        ordered = [sample for sample in ordered if self._has_metrics(sample)]
        whole = len(ordered) == len(self.job.wanted)
        record = Record(
            plan=self.job.plan,
            plan_digest=self.job.plan.digest(),
            status="complete" if whole else "partial",
            label=self.job.label,
            provenance={**facts, "sessions": [*_sessions(before), session][-MAX_SESSIONS:]},
            metrics=self.resolved.metric_refs,
            n_samples=len(ordered),
            n_expected=len(self.job.wanted),
            notes=list(self.job.notes),
        )
        if ordered:
            summary = summarise(
                self.resolved.metrics,
                ordered,
                self.row_stores(),
                removal=self.resolved.benchmark.removal,
            )
            record.estimates = summary.estimates
            record.twin_estimates = summary.twin_estimates
            record.paired = summary.paired
            record.breakdown = summary.breakdown
            record.notes += summary.notes
        if before is not None and before.n_samples == record.n_samples:
            _keep_columns(before, record)
        save_record(self.folder, record)
        record.folder = self.folder
        return record

    def _has_metrics(self, sample: Sample) -> bool:
        return all(
            sample.metrics.get(name) == digest for name, digest in self.wanted_digests.items()
        )
