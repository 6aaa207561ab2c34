"""The one loop: plan -> requests -> images -> scores -> record.

Every step can be killed and continued: an image is in the store as soon as it is drawn, features
and scores as soon as they are made, and a sample's line is written when all its scores are there.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from negbench import __version__
from negbench.errors import NegbenchError, PluginError, RecordError, one_line
from negbench.files import LineWriter, make_folder, write_json
from negbench.metrics.base import ImageMetric, Item, Network, SetMetric
from negbench.plan import Job, Resolved, Wanted
from negbench.record import (
    ImageResult,
    Record,
    Sample,
    load_record,
    read_samples,
    run_folder,
    save_record,
)
from negbench.store import FeatureStore, ImageStore, ScoreStore, StoredImage, text_key
from negbench.types import Score

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHUNK = 64
"""Samples scored together; memory holds the pixels of at most this many samples."""


class Bar(Protocol):
    """A progress bar."""

    def update(self, n: int = 1) -> object:
        """Say that `n` more are done."""


Progress = Callable[[str, int], AbstractContextManager[Bar]]


class _Silent:
    def update(self, n: int = 1) -> object:
        return None


@contextmanager
def silent(label: str, total: int) -> Iterator[Bar]:
    """A progress bar that shows nothing."""
    yield _Silent()


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
    started = time.time()
    open_jobs = [_OpenJob(resolved, job) for job in resolved.jobs]
    finished = [job.finished_record() for job in open_jobs]
    if all(record is not None for record in finished):
        return [record for record in finished if record is not None]
    drawing = _Drawing(resolved)
    drawing.draw(open_jobs, progress=progress)
    scoring = _Scoring(resolved, drawing)
    todo = sum(len(job.todo) for job in open_jobs)
    with progress("scoring", todo) as bar:
        for job in open_jobs:
            scoring.score(job, bar=bar)
    facts = {
        "command": command,
        "started": _utc(started),
        "finished": _utc(time.time()),
        "seconds": round(time.time() - started, 3),
        "images_drawn": drawing.n_drawn,
        "evaluations_drawn": drawing.n_evaluations,
        **provenance(),
        "generator": resolved.generator.describe(),
    }
    return [job.close(facts) for job in open_jobs]


def provenance() -> dict[str, Any]:
    """Versions of what took part; not part of any identity."""
    names = ("torch", "diffusers", "transformers", "open-clip-torch", "torchmetrics", "numpy")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "negbench": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
    }


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class _OpenJob:
    """A job with its folder: which samples are scored already, which are still to do."""

    def __init__(self, resolved: Resolved, job: Job) -> None:
        self.resolved = resolved
        self.job = job
        self.folder = run_folder(resolved.out, job.plan)
        self.wanted_digests = {name: ref.digest() for name, ref in resolved.metric_refs.items()}
        self.known = read_samples(self.folder)
        self.todo = [wanted for wanted in resolved.mine(job) if not self._is_done(wanted)]
        self.writer = LineWriter(self.folder / "samples")

    def _is_done(self, wanted: Wanted) -> bool:
        sample = self.known.get(wanted.id)
        if sample is None:
            return False
        if (sample.treated.key, sample.twin.key) != (wanted.treated_key, wanted.twin_key):
            raise RecordError(
                f"{self.folder} holds samples of another plan; move it away and run again"
            )
        return all(
            sample.metrics.get(name) == digest for name, digest in self.wanted_digests.items()
        )

    def finished_record(self) -> Record | None:
        """The record on disk if nothing is left to do and it is of exactly this plan."""
        if self.todo or not (self.folder / "run.json").is_file():
            return None
        record = load_record(self.folder)
        if record.status != "complete" or record.plan != self.job.plan:
            return None
        if record.metrics != self.resolved.metric_refs or record.n_samples != len(self.known):
            return None
        return record

    def row_store(self, name: str) -> FeatureStore:
        """What each image adds to the set metric `name`, kept in the run's own folder."""
        return FeatureStore(self.folder, self.resolved.metric_refs[name], kind="rows")

    def close(self, facts: dict[str, Any]) -> Record:
        """Summarise all samples there are, of every shard, and write the header."""
        from negbench.summary import summarise

        self.writer.close()
        samples = read_samples(self.folder)
        ordered = [samples[wanted.id] for wanted in self.job.wanted if wanted.id in samples]
        ordered = [sample for sample in ordered if self._has_metrics(sample)]
        whole = len(ordered) == len(self.job.wanted)
        record = Record(
            plan=self.job.plan,
            plan_digest=self.job.plan.digest(),
            status="complete" if whole else "partial",
            label=self.job.label,
            provenance=facts,
            metrics=self.resolved.metric_refs,
            n_samples=len(ordered),
            n_expected=len(self.job.wanted),
            notes=list(self.job.notes),
        )
        if ordered:
            rows = {
                name: self.row_store(name)
                for name, metric in self.resolved.metrics.items()
                if isinstance(metric, SetMetric)
            }
            summary = summarise(self.resolved.metrics, ordered, rows)
            record.estimates = summary.estimates
            record.twin_estimates = summary.twin_estimates
            record.paired = summary.paired
            record.notes += summary.notes
        save_record(self.folder, record)
        record.folder = self.folder
        return record

    def _has_metrics(self, sample: Sample) -> bool:
        return all(
            sample.metrics.get(name) == digest for name, digest in self.wanted_digests.items()
        )


class _Drawing:
    """Draws the images that no store has, each once, for all jobs together."""

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.store = ImageStore(resolved.cache)
        self.requests = resolved.requests()
        self.stored: dict[str, StoredImage] = {}
        self.n_drawn = 0
        self.n_evaluations = 0

    def draw(self, jobs: Sequence[_OpenJob], *, progress: Progress) -> None:
        needed = dict.fromkeys(
            key
            for job in jobs
            for wanted in job.todo
            for key in (wanted.twin_key, wanted.treated_key)
        )
        missing = []
        for key in needed:
            stored = self.store.get(key)
            if stored is None:
                missing.append(key)
            else:
                self.stored[key] = stored
        if missing:
            started = time.monotonic()
            with progress("drawing", len(missing)) as bar:
                for _ in self._drawn(missing):
                    bar.update()
            self._keep_rate(time.monotonic() - started)

    def _keep_rate(self, seconds: float) -> None:
        """Remember seconds an evaluation, for forecasts."""
        if self.n_evaluations:
            rates = self.resolved.rates()
            rates[self.resolved.generator.ref().digest()] = seconds / self.n_evaluations
            write_json(self.resolved.cache / "rates.json", rates)

    def _drawn(self, keys: Sequence[str]) -> Iterator[StoredImage]:
        generator = self.resolved.generator
        waiting = dict.fromkeys(keys)
        about = {**provenance(), "generator": generator.describe()}
        try:
            for drawn in generator.draw([self.requests[key] for key in keys]):
                if drawn.key not in waiting:
                    raise PluginError(
                        f"generator {generator.ref().name} gave an image nobody asked for"
                    )
                del waiting[drawn.key]
                stored = self.store.put(drawn, self.requests[drawn.key], provenance=about)
                self.stored[drawn.key] = stored
                self.n_drawn += 1
                self.n_evaluations += drawn.evaluations
                yield stored
        except (NegbenchError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise PluginError(
                f"generator {generator.ref().name} failed after {self.n_drawn} images: "
                f"{type(error).__name__}: {one_line(str(error), limit=300)} "
                "(what was drawn is kept; the same command goes on)"
            ) from error
        if waiting:
            raise PluginError(
                f"generator {generator.ref().name} left out {len(waiting)} of {len(keys)} images"
            )

    def pixels(self, key: str) -> npt.NDArray[np.uint8]:
        """Pixels of an image; one that was altered on disk is drawn again."""
        pixels = self.store.load(self.stored[key])
        if pixels is None:
            before = self.stored[key].image
            self.store.discard(key)
            list(self._drawn([key]))
            pixels = self.store.load(self.stored[key])
            if pixels is None or self.stored[key].image != before:
                self.stored[key] = self.store.get(key) or self.stored[key]
            if pixels is None:
                raise RecordError(
                    f"image {self.store.png_path(key)} cannot be read back; check the disk"
                )
        return pixels


class _Scoring:
    """Scores samples: one pass of each network over each image, one score a metric and image."""

    def __init__(self, resolved: Resolved, drawing: _Drawing) -> None:
        self.resolved = resolved
        self.drawing = drawing
        self.scores = ScoreStore(resolved.cache)
        self.networks: dict[str, Network] = {}
        self.local: dict[tuple[str, str], str] = {}
        for name, metric in resolved.metrics.items():
            for label, network in metric.networks().items():
                digest = network.ref().digest()
                self.networks.setdefault(digest, network)
                self.local[name, label] = digest
        self.images = {
            digest: FeatureStore(resolved.cache, network.ref())
            for digest, network in self.networks.items()
        }
        self.texts: dict[str, FeatureStore] = {}

    def score(self, job: _OpenJob, *, bar: Bar) -> None:
        rows = {
            name: job.row_store(name)
            for name, metric in self.resolved.metrics.items()
            if isinstance(metric, SetMetric)
        }
        for start in range(0, len(job.todo), CHUNK):
            chunk = job.todo[start : start + CHUNK]
            for sample in self._chunk(job, chunk, rows):
                job.writer.append(sample.model_dump(mode="json"))
            bar.update(len(chunk))

    def _chunk(
        self, job: _OpenJob, chunk: Sequence[Wanted], rows: dict[str, FeatureStore]
    ) -> list[Sample]:
        pixels: dict[str, npt.NDArray[np.uint8]] = {}
        for wanted in chunk:
            for key in (wanted.treated_key, wanted.twin_key):
                if key not in pixels:
                    pixels[key] = self.drawing.pixels(key)
        stored = self.drawing.stored
        digests = {key: stored[key].image for key in pixels}
        by_digest = {digests[key]: array for key, array in pixels.items()}
        self._embed_images(by_digest)
        treated = [self._item(w, pixels, twin=False) for w in chunk]
        twins = [self._item(w, pixels, twin=True) for w in chunk]
        self._embed_texts([*treated, *twins])
        scored_treated: list[dict[str, Score]] = [{} for _ in chunk]
        scored_twins: list[dict[str, Score]] = [{} for _ in chunk]
        for name, metric in self.resolved.metrics.items():
            ready = [self._with_features(name, item) for item in treated]
            ready_twins = [self._with_features(name, item) for item in twins]
            if isinstance(metric, SetMetric):
                self._keep_rows(metric, [*ready, *ready_twins], rows[name])
            elif isinstance(metric, ImageMetric):
                for target, items in ((scored_treated, ready), (scored_twins, ready_twins)):
                    for scores, score in zip(
                        target, self._scores_of(name, metric, items), strict=True
                    ):
                        scores[name] = score
        return [
            self._sample(job, wanted, scored_treated[i], scored_twins[i])
            for i, wanted in enumerate(chunk)
        ]

    def _item(self, wanted: Wanted, pixels: dict[str, Any], *, twin: bool) -> Item:
        key = wanted.twin_key if twin else wanted.treated_key
        return Item(
            image=self.drawing.stored[key].image,
            pixels=pixels[key],
            case=wanted.case,
            negative=wanted.treatment.negative_text(),
            twin=None if twin else pixels[wanted.twin_key],
            evaluations=self.drawing.stored[key].evaluations,
        )

    def _embed_images(self, by_digest: dict[str, Any]) -> None:
        for digest, network in self.networks.items():
            store = self.images[digest]
            missing = store.missing(by_digest)
            if missing:
                store.put(missing, network.embed_images([by_digest[key] for key in missing]))

    def _embed_texts(self, items: Iterable[Item]) -> None:
        wanted: dict[str, dict[str, str]] = {}
        for item in items:
            for name, metric in self.resolved.metrics.items():
                for label, text in metric.texts(item.case, item.negative):
                    wanted.setdefault(self.local[name, label], {})[text_key(text)] = text
        for digest, texts in wanted.items():
            network = self.networks[digest]
            if digest not in self.texts:
                self.texts[digest] = FeatureStore(self.resolved.cache, network.ref(), kind="text")
            missing = self.texts[digest].missing(texts)
            if missing:
                self.texts[digest].put(
                    missing, network.embed_texts([texts[key] for key in missing])
                )

    def _with_features(self, name: str, item: Item) -> Item:
        from dataclasses import replace

        metric = self.resolved.metrics[name]
        features = {
            label: self.images[self.local[name, label]][item.image] for label in metric.networks()
        }
        texts = {
            (label, text): self.texts[self.local[name, label]][text_key(text)]
            for label, text in metric.texts(item.case, item.negative)
        }
        return replace(item, features=features, text_features=texts)

    def _keep_rows(self, metric: SetMetric, items: Sequence[Item], store: FeatureStore) -> None:
        new = {item.image: item for item in items if item.image not in store}
        if new:
            store.put(list(new), metric.rows(list(new.values())))

    def _scores_of(self, name: str, metric: ImageMetric, items: Sequence[Item]) -> list[Score]:
        from negbench.store import pixel_digest

        digest = self.resolved.metric_refs[name].digest()
        keys = [
            self.scores.key(
                digest,
                item.image,
                pixel_digest(item.twin) if item.twin is not None and metric.needs_twin else None,
                f"{item.case.prompt}\0{item.case.concept or ''}\0{item.evaluations}",
                item.negative,
            )
            for item in items
        ]
        known = [self.scores.get(key) for key in keys]
        todo = [i for i, score in enumerate(known) if score is None]
        if todo:
            try:
                fresh = metric.score([items[i] for i in todo])
            except NegbenchError:
                raise
            except Exception as error:
                raise PluginError(
                    f"metric {name} failed: {type(error).__name__}: "
                    f"{one_line(str(error), limit=300)} (scores made so far are kept)"
                ) from error
            if len(fresh) != len(todo) or not all(isinstance(s, Score) for s in fresh):
                raise PluginError(
                    f"metric {name} gave {len(fresh)} scores for {len(todo)} images; "
                    "it has to give one Score an item, in order"
                )
            for i, score in zip(todo, fresh, strict=True):
                self.scores.put(keys[i], score)
                known[i] = score
        return [score for score in known if score is not None]

    def _sample(
        self, job: _OpenJob, wanted: Wanted, treated: dict[str, Score], twin: dict[str, Score]
    ) -> Sample:
        results = []
        for key, scores in ((wanted.treated_key, treated), (wanted.twin_key, twin)):
            stored = self.drawing.stored[key]
            results.append(
                ImageResult(
                    key=key,
                    image=stored.image,
                    evaluations=stored.evaluations,
                    facts=stored.facts,
                    scores=scores,
                )
            )
        return Sample(
            case=wanted.case.id,
            replicate=wanted.replicate,
            seed=wanted.seed,
            prompt=wanted.case.prompt,
            concept=wanted.case.concept,
            tags=wanted.case.tags,
            treatment=wanted.treatment,
            treated=results[0],
            twin=results[1],
            metrics=job.wanted_digests,
        )
