"""Resolve and check a timing run before the first pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from negbench.errors import ConfigError, UnknownNameError, did_you_mean
from negbench.generators.base import RunOptions
from negbench.params import check_counts
from negbench.protocols import Benchmark, load_benchmark
from negbench.protocols.case_sets import check_concepts, load_case_set, tagged
from negbench.protocols.cases import dataset_digest, load_cases
from negbench.protocols.placebo import choose_placebos
from negbench.record import safe_name
from negbench.store import default_cache
from negbench.types import (
    Case,
    Guidance,
    ImageRequest,
    Negative,
    Ref,
    Spec,
    Treatment,
    canonical_json,
    seed_of,
    sha256_hex,
)

if TYPE_CHECKING:
    from negbench.generators.diffusers import DiffusersGenerator
    from negbench.judges import Judge

PARTS = ("curves", "maps", "grid", "activation", "inducing", "momentum")
"""What can be measured, in the order in which it is."""

TRACED = frozenset({"curves", "maps", "inducing", "momentum"})
"""Parts that look into the network and need a U-Net of Stable Diffusion 1.x, 2.x or XL."""

CASES = 24
"""Cases of a run that asks for no number."""

EDGES = (0, 1 / 12, 1 / 6, 1 / 4, 1 / 3, 5 / 12, 1 / 2, 2 / 3, 5 / 6, 1)
"""Starts and stops of the coarse grid, as parts of the schedule. With 31 model calls these are
0, 3, 5, 8, 10, 13, 16, 21, 26, 31, so that the window [5, 16) of Ban et al. is one of them."""

FULL_STEPS = 30
"""Steps of the full grid, unless the user says otherwise."""


class TimingPlan(Spec):
    """What a timing run draws; its digest names the run.

    Attributes:
        benchmark: name, version and how many cases.
        dataset: sha256 over the cases.
        n_cases: how many cases there are.
        replicates: noises a case.
        generator: the generator's identity.
        guidance: plain CFG of twins and windows.
        judge: who says whether a concept is visible.
        placebos: sha256 over the unrelated concept of each case.
        edges: starts and stops of the grid, in model calls.
    """

    schema_: Literal[1] = 1
    benchmark: Ref
    dataset: str
    n_cases: int
    replicates: int
    generator: Ref
    guidance: Guidance
    judge: Ref
    placebos: str
    edges: tuple[int, ...]


@dataclass(frozen=True)
class Unit:
    """One case with one noise.

    Attributes:
        case: prompt and concept.
        replicate: which noise, from 0.
        seed: of the noise.
        placebo: an unrelated concept.
        category: the case's, for example ``noun_object``; ``other`` if it has none.
    """

    case: Case
    replicate: int
    seed: int
    placebo: str
    category: str

    @property
    def concept(self) -> str:
        """What the negative prompt names."""
        assert self.case.concept is not None
        return self.case.concept


@dataclass(frozen=True)
class Resolved:
    """Everything that `run_timing` needs, checked.

    Attributes:
        calls: model calls of the schedule.
        folder: where the results go.
    """

    benchmark: Benchmark
    plan: TimingPlan
    generator: DiffusersGenerator
    judge: Judge
    units: tuple[Unit, ...]
    parts: tuple[str, ...]
    calls: int
    scheduler: str
    folder: Path
    cache: Path
    options: RunOptions

    @property
    def edges(self) -> tuple[int, ...]:
        """Starts and stops of the grid."""
        return self.plan.edges

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories of the cases, in a fixed order."""
        return tuple(sorted({unit.category for unit in self.units}, reverse=True))

    def request(
        self,
        unit: Unit,
        *,
        negative: str | None = None,
        window: tuple[int, int] | None = None,
        prompt: str | None = None,
    ) -> ImageRequest:
        """The picture of a unit with a negative in model calls [start, stop), or its twin.

        Args:
            unit: case and noise.
            negative: the negative prompt; None for the twin.
            window: start and stop; None for every call. A window of all calls is plain guidance.
            prompt: another prompt in place of the case's.
        """
        guidance = self.plan.guidance
        negatives: tuple[Negative, ...] = ()
        if negative is not None and window != (0, 0):
            negatives = (Negative(text=negative),)
            if window is not None and window != (0, self.calls):
                guidance = window_rule(guidance.scale, *window)
        treatment = Treatment(prompt=prompt or unit.case.prompt, negatives=negatives,
                              guidance=guidance)  # fmt: skip
        return ImageRequest(generator=self.plan.generator, treatment=treatment, seed=unit.seed)


def window_rule(scale: float, start: int, stop: int) -> Guidance:
    """The guidance rule ``window`` in model calls [start, stop)."""
    from negbench.guidance.window import Window

    config = Window.Config(start=start, stop=stop)
    return Guidance(
        kind="window", version=Window.version, scale=scale, params=config.model_dump(mode="json")
    )


def calls_of(generator: Any) -> int:
    """Model calls of a generator's schedule.

    Raises:
        ConfigError: a plug-in's generator, whose schedule is not known.
    """
    from negbench.generators.diffusers import DiffusersGenerator

    if not isinstance(generator, DiffusersGenerator):
        raise ConfigError(
            f"generator {generator.ref().name} does not tell its schedule, and windows count its "
            "model calls; choose a diffusion pipeline"
        )
    return generator.schedule.calls()


def coarse_edges(calls: int) -> tuple[int, ...]:
    """`EDGES` in model calls, each once."""
    return tuple(sorted({round(part * calls) for part in EDGES}))


def balanced(cases: Sequence[Case], count: int) -> list[Case]:
    """The first cases of each category in turn, `count` in all, in the order given."""
    waiting: dict[str, list[Case]] = {}
    for case in cases:
        waiting.setdefault(category_of(case), []).append(case)
    chosen: list[Case] = []
    while len(chosen) < count and any(waiting.values()):
        for name in sorted(waiting, reverse=True):
            if waiting[name] and len(chosen) < count:
                chosen.append(waiting[name].pop(0))
    return chosen


def category_of(case: Case) -> str:
    """The case's category, ``other`` if it has none."""
    return next(iter(tagged(case, "category")), "other")


def make_timing_plan(
    *,
    benchmark: str = "miniature-timing",
    parts: Sequence[str] | None = None,
    generator: str | None = None,
    generator_params: Mapping[str, Any] | None = None,
    scheduler: str | None = None,
    judge: str | None = None,
    judge_params: Mapping[str, Any] | None = None,
    scale: float | None = None,
    prompts: Path | None = None,
    cases: int | None = None,
    replicates: int | None = None,
    full: bool = False,
    out: Path = Path("runs"),
    cache: Path | None = None,
    options: RunOptions | None = None,
) -> Resolved:
    """Resolve a timing run and check all of it.

    Args:
        benchmark: name of a shipped timing benchmark, or path of a TOML file.
        parts: of `PARTS`; None for all that the generator allows.
        generator: ``miniature``, a hub repo, a folder or a checkpoint; None for the benchmark's.
        generator_params: steps, height, width, dtype, ...
        scheduler: ``ddim``, ``pndm``, ``dpm++2m`` ...; None for the benchmark's.
        judge: who says whether the concept is visible; None for the benchmark's.
        judge_params: the judge's parameters.
        scale: guidance scale; None for the benchmark's.
        prompts: a file of cases with concepts in place of the benchmark's.
        cases: how many, balanced over categories.
        replicates: noises a case; None for the benchmark's.
        full: every model call is a start and a stop, and 30 steps unless `generator_params` say.
        out: folder of runs.
        cache: folder of images and traces; None for the default.
        options: device and batch size.

    Raises:
        NegbenchError: anything that would fail later, in one line.
    """
    from negbench.judges import build_judge
    from negbench.plan import resolve_generator

    bench = load_benchmark(benchmark)
    if bench.protocol != "timing":
        raise ConfigError(
            f"benchmark {bench.title} asks another question ({bench.protocol}); take miniature-"
            "timing or concepts-timing"
        )
    if prompts is not None:
        bench = bench.model_copy(update={"name": f"{bench.name}+prompts"})
    check_counts(cases=cases, replicates=replicates)
    for name in parts or ():
        if name not in PARTS:
            raise UnknownNameError(f"unknown part {name!r}; {did_you_mean(name, PARTS)}")
    params = dict(generator_params or {})
    if scheduler is not None:
        params["scheduler"] = scheduler
    if full:
        params.setdefault("steps", FULL_STEPS)
    options = options or RunOptions()
    drawer = resolve_generator(bench, generator, params, options)
    calls = calls_of(drawer)
    chosen = _parts(drawer, parts)
    guidance = bench.guidance
    if scale is not None:
        guidance = guidance.model_copy(update={"scale": float(scale)})
    if guidance.scale in (0, 1):
        raise ConfigError(f"at scale {guidance.scale:g} a negative prompt has no effect; raise it")
    drawer.check_guidance(guidance)
    drawer.check_guidance(window_rule(guidance.scale, 0, 1))
    asked = bench.metrics.get("presence", {})
    own = asked.get("judge_params")
    named = build_judge(
        judge or str(asked.get("judge", "miniature")),
        judge_params if judge or judge_params else own if isinstance(own, dict) else None,
    )
    found, _ = load_cases(bench, prompts=prompts)
    check_concepts(found)
    pool = [*found, *(load_case_set(bench.data.case_set) if bench.data.case_set else [])]
    placebos = choose_placebos(found, pool)
    taken = balanced(found, cases or CASES)
    count = replicates or bench.replicates
    units = tuple(
        Unit(
            case=case,
            replicate=number,
            seed=seed_of(bench.title, case.prompt, number),
            placebo=placebos[case.id],
            category=category_of(case),
        )
        for case in taken
        for number in range(count)
    )
    plan = TimingPlan(
        benchmark=Ref(name=bench.name, version=bench.version, params={"protocol": bench.protocol}),
        dataset=dataset_digest(taken),
        n_cases=len(taken),
        replicates=count,
        generator=drawer.ref(),
        guidance=guidance,
        judge=named.ref(),
        placebos=sha256_hex(canonical_json({case.id: placebos[case.id] for case in taken})),
        edges=tuple(range(calls + 1)) if full else coarse_edges(calls),
    )
    shown = str(plan.generator.params.get("scheduler", "own")).removesuffix("Scheduler")
    folder = out / safe_name(bench.title) / safe_name(f"timing-{shown}") / plan.digest()[:12]
    return Resolved(
        benchmark=bench,
        plan=plan,
        generator=drawer,  # type: ignore[arg-type]  # calls_of has refused every other class
        judge=named,
        units=units,
        parts=chosen,
        calls=calls,
        scheduler=shown,
        folder=folder,
        cache=cache or default_cache(),
        options=options,
    )


def _parts(generator: Any, parts: Sequence[str] | None) -> tuple[str, ...]:
    """The parts asked for; without a word all that the generator allows."""
    from negbench.generators.tracing import check_traceable

    asked = PARTS if parts is None else tuple(part for part in PARTS if part in parts)
    if TRACED.isdisjoint(asked):
        return asked
    try:
        check_traceable(generator)
    except ConfigError:
        if parts is not None:
            raise
        return tuple(part for part in asked if part not in TRACED)
    return asked
