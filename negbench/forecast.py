"""What a run will cost and what it can show, before anything is drawn (``--dry-run``)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from negbench.plan import Resolved
from negbench.protocols.removal import HEADLINE
from negbench.record import run_folder
from negbench.store import ImageStore

BYTES_A_PIXEL = 1.6
"""PNG bytes a pixel, with the sidecar; pictures of Stable Diffusion need about this much."""


class Detectable(BaseModel):
    """Smallest true difference that the sample finds in 80 % of runs at the 5 % level."""

    model_config = ConfigDict(frozen=True)

    metric: str
    difference: float
    unit: str


class Outlook(BaseModel):
    """A plan in numbers.

    Attributes:
        evaluations: denoiser predictions that drawing the missing images takes.
        evaluations_alone: what they would take if each were drawn alone.
    """

    model_config = ConfigDict(frozen=True)

    benchmark: str
    methods: list[str]
    folders: list[str]
    plan_digests: list[str]
    prompts: int
    replicates: int
    images: int
    images_to_draw: int
    images_to_reuse: int
    evaluations: int
    evaluations_alone: int
    seconds: float | None
    disk_bytes: int
    detectable_sd: float | None
    detectable: list[Detectable]
    notes: list[str]

    def as_text(self) -> str:
        """The outlook for people."""
        lines = [
            f"benchmark    {self.benchmark}: {self.prompts} prompts, {self.replicates} noises each",
            f"methods      {', '.join(self.methods)}",
            f"images       {self.images}: {self.images_to_draw} to draw, "
            f"{self.images_to_reuse} to reuse (twins and equal requests are drawn once)",
            f"evaluations  {self.evaluations} of the denoiser{self._saved()}",
        ]
        if self.seconds is None:
            lines.append("time         not known yet: nothing was drawn here with this generator")
        else:
            lines.append(
                f"time         about {_span(self.seconds)} of drawing, as drawn here before"
            )
        lines.append(f"disk         about {self.disk_bytes / 1e6:.1f} MB")
        if self.detectable_sd is None:
            lines.append("can show     nothing: a single prompt has no interval")
        else:
            lines.append(
                f"can show     differences of {self.detectable_sd:.2f} standard deviations of the "
                "prompts' mean differences (80 % power, 5 % level)"
            )
        lines += [f"             {d.metric}: {d.difference:.3g} {d.unit}" for d in self.detectable]
        lines += [f"runs         {folder}" for folder in self.folders]
        lines += [f"note         {note}" for note in self.notes]
        return "\n".join(lines)

    def _saved(self) -> str:
        saved = self.evaluations_alone - self.evaluations
        if saved <= 0:
            return ""
        return (
            f"; {self.evaluations_alone} asked for, {saved} saved "
            f"({saved / self.evaluations_alone:.0%}), because images begin alike"
        )


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def forecast(resolved: Resolved) -> Outlook:
    """Count images, evaluations, time, disk and the smallest difference of a plan."""
    from negbench.stats import minimum_detectable_difference

    store = ImageStore(resolved.cache)
    requests = resolved.requests()
    missing = [request for key, request in requests.items() if key not in store]
    alone = sum(resolved.generator.evaluations(request) for request in missing)
    plan = resolved.jobs[0].plan
    cases = {wanted.case.id for wanted in resolved.mine(resolved.jobs[0])}
    prompts = len({case.prompt for case in resolved.cases if case.id in cases})
    evaluations = resolved.generator.needed(missing)
    sd = minimum_detectable_difference(1.0, prompts=prompts) if prompts > 1 else None
    detectable = []
    if sd is not None:
        for name, known in resolved.benchmark.effect_sd.items():
            metric = resolved.metrics.get(name)
            if metric is not None or (name == HEADLINE and "presence" in resolved.metrics):
                unit = metric.unit if metric is not None else "share"
                detectable.append(Detectable(metric=name, difference=sd * known, unit=unit))
    size = resolved.generator.image_size()
    rate = resolved.rates().get(resolved.generator.ref().digest())
    return Outlook(
        benchmark=f"{plan.benchmark.name}@{plan.benchmark.version}",
        methods=[job.label for job in resolved.jobs],
        folders=[str(run_folder(resolved.out, job.plan)) for job in resolved.jobs],
        plan_digests=[job.plan.digest() for job in resolved.jobs],
        prompts=prompts,
        replicates=plan.replicates,
        images=len(requests),
        images_to_draw=len(missing),
        images_to_reuse=len(requests) - len(missing),
        evaluations=evaluations,
        evaluations_alone=alone,
        seconds=None if rate is None else evaluations * rate,
        disk_bytes=int(len(missing) * size[0] * size[1] * BYTES_A_PIXEL),
        detectable_sd=sd,
        detectable=detectable,
        notes=_notes(resolved),
    )


def _notes(resolved: Resolved) -> Sequence[str]:
    return list(dict.fromkeys(note for job in resolved.jobs for note in job.notes))
