"""Draw treatments beside their twins and score them, outside a run, through the same stores.

Images, features and scores are kept by identity, so that a trial that was made before, by whatever
command, costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from negbench.drawing import Drawing
from negbench.generators.base import Generator, RunOptions
from negbench.metrics.base import ImageMetric
from negbench.plan import Resolved
from negbench.progress import Progress, silent
from negbench.protocols.benchmark import Benchmark, DataSpec
from negbench.record import Sample
from negbench.requests import Requests, Wanted
from negbench.scoring import Scoring
from negbench.types import Case, Guidance, Treatment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from negbench.metrics.base import Features


@dataclass(frozen=True)
class Trial:
    """One treatment of a case on one noise."""

    case: Case
    treatment: Treatment
    replicate: int


class Trials:
    """Draws and scores trials.

    Args:
        generator: what draws.
        metrics: image metrics by name.
        guidance: plain CFG of twins.
        carried: the rule of treatments that name none; None for `guidance`.
        title: of the noises; another title than a benchmark's, so that what is tried here is never
            what is tested there.
        cache: folder of images, features and scores.
        options: device and batch size.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        metrics: Mapping[str, ImageMetric],
        guidance: Guidance,
        title: str,
        cache: Path,
        carried: Guidance | None = None,
        options: RunOptions | None = None,
    ) -> None:
        self.generator = generator
        self.guidance = guidance
        self.title = title
        self._requests = Requests(generator.ref(), title, guidance, carried or guidance)
        for metric in metrics.values():
            metric.check()
        bench = Benchmark(
            name="trials", version=1, summary="", data=DataSpec(source="miniature"),
            replicates=1, generator="", guidance=guidance, metrics={},
        )  # fmt: skip
        resolved = Resolved(
            benchmark=bench,
            cases=[],
            generator=generator,
            metrics=dict(metrics),
            metric_refs={name: metric.ref(name) for name, metric in metrics.items()},
            jobs=[],
            out=cache,
            cache=cache,
            shard=None,
            options=options or RunOptions(),
        )
        self.drawing = Drawing(resolved)
        self.scoring = Scoring(resolved, self.drawing)

    @property
    def n_drawn(self) -> int:
        """Images drawn so far; those found in the store are not among them."""
        return self.drawing.n_drawn

    def wanted(self, trial: Trial) -> Wanted:
        """The trial's request and its twin's."""
        found = self._requests.of(trial.case, trial.treatment, trial.replicate)
        # scoring knows samples by case and noise, and a case may be tried many times on one noise
        case = trial.case.model_copy(update={"id": found.treated_key})
        return replace(found, case=case)

    def make(self, trials: Sequence[Trial], *, progress: Progress = silent) -> list[Sample]:
        """Draw what is missing and score it: one sample a trial, in order.

        Raises:
            NegbenchError: the generator or a metric failed, or the disk is full; what was made so
                far is kept.
        """
        all_wanted = [self.wanted(trial) for trial in trials]
        distinct = {(w.treated_key, w.twin_key): w for w in all_wanted}
        for w in distinct.values():
            self.drawing.requests.setdefault(w.twin_key, w.twin)
            self.drawing.requests.setdefault(w.treated_key, w.treated)
        keys = [key for w in distinct.values() for key in (w.twin_key, w.treated_key)]
        self.drawing.draw(keys, progress=progress)
        made: dict[tuple[str, str], Sample] = {}
        for samples in self.scoring.score(list(distinct.values()), {}):
            for sample in samples:
                made[sample.treated.key, sample.twin.key] = sample
        return [made[w.treated_key, w.twin_key] for w in all_wanted]

    def features(self, metric: str, spec: str, image: str) -> Features:
        """What a metric's network made of an image that was scored, float32 (d,)."""
        return self.scoring.images[self.scoring.local[metric, spec]][image]

    def pixels(self, key: str) -> npt.NDArray[np.uint8]:
        """Pixels of an image that was drawn, uint8 (height, width, 3)."""
        return self.drawing.pixels(key)
