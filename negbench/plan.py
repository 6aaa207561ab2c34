"""Resolve and check everything before the first pixel.

Names, parameters, files, weights and guidance support are checked here; what a user can mend is
told in one line. The result knows every image that is needed, and which of them exist already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negbench.adaptive import AdaptiveMethod, adapt, planned
from negbench.errors import ConfigError
from negbench.files import read_json, write_json
from negbench.generators.base import Generator, RunOptions
from negbench.labels import read_labels, split_params
from negbench.methods.base import Method
from negbench.metrics.base import Metric
from negbench.params import build_config, check_counts
from negbench.progress import Progress, silent
from negbench.protocols import Benchmark, load_benchmark
from negbench.protocols.cases import dataset_digest, load_cases
from negbench.record import Plan
from negbench.remote import at_hand, written
from negbench.requests import Requests, Wanted, distinct_guidance
from negbench.store import default_cache
from negbench.types import Case, Guidance, ImageRequest, Ref, Treatment, canonical_json, sha256_hex

MINIATURE = "miniature"
METHOD_SEED = 0
"""Seed of methods that draw at random; fixed, so that a benchmark has one answer a method."""
NOT_TOLD = (
    "{label} writes the same whatever the concept, so its placebo is itself and net_removal is 0 "
    "by construction"
)


@dataclass
class Job:
    """One method on the benchmark."""

    label: str
    plan: Plan
    wanted: list[Wanted]
    notes: list[str] = field(default_factory=list)


@dataclass
class Resolved:
    """Everything that `evaluate` needs, checked."""

    benchmark: Benchmark
    cases: list[Case]
    generator: Generator
    metrics: dict[str, Metric]
    metric_refs: dict[str, Ref]
    jobs: list[Job]
    out: Path
    cache: Path
    shard: tuple[int, int] | None
    options: RunOptions

    def requests(self) -> dict[str, ImageRequest]:
        """Every distinct image of this shard by key, twins and arms included, case by case."""
        requests: dict[str, ImageRequest] = {}
        for job in self.jobs:
            for wanted in self.mine(job):
                requests |= {k: v for k, v in wanted.requests().items() if k not in requests}
        return requests

    def rates(self) -> dict[str, float]:
        """Seconds a denoiser evaluation by generator digest, as measured on this machine."""
        path = self.cache / "rates.json"
        if not path.is_file():
            return {}
        return {k: float(v) for k, v in read_json(path).items() if isinstance(v, (int, float))}

    def mine(self, job: Job) -> Iterator[Wanted]:
        """The samples of `job` that fall to this shard."""
        for wanted in job.wanted:
            if self.shard is None or in_shard(wanted.case.id, self.shard):
                yield wanted


def in_shard(case_id: str, shard: tuple[int, int]) -> bool:
    """Whether a case falls to shard (k, N), k from 1; by hash, so every case to exactly one."""
    k, count = shard
    return int(sha256_hex(canonical_json(["negbench-shard", case_id]))[:12], 16) % count == k - 1


def parse_shard(text: str) -> tuple[int, int]:
    """``2/3`` to (2, 3).

    Raises:
        ConfigError: it is not k/N with 1 <= k <= N.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard {text!r} is not k/N with 1 <= k <= N; write for example 1/3")
    return int(match[1]), int(match[2])


def make_plan(
    *,
    benchmark: str = "miniature-quality",
    methods: Sequence[str] = ("negopt",),
    method_params: Mapping[str, Any] | None = None,
    guidance: str | None = None,
    guidance_params: Mapping[str, Any] | None = None,
    scale: float | None = None,
    generator: str | None = None,
    generator_params: Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    prompts: Path | None = None,
    db: str | None = None,
    limit: int | None = None,
    replicates: int | None = None,
    shard: tuple[int, int] | None = None,
    out: Path = Path("runs"),
    cache: Path | None = None,
    options: RunOptions | None = None,
    dry: bool = False,
    progress: Progress = silent,
) -> Resolved:
    """Resolve a run and check all of it.

    Args:
        benchmark: name of a shipped benchmark, or path of a TOML file.
        methods: method names, each ``name`` or ``label=name``.
        method_params: ``key`` (one method) or ``label.key`` -> value.
        guidance: rule that carries the treatments; None for the benchmark's plain CFG.
        guidance_params: the rule's parameters.
        scale: guidance scale of treatments and twins; None for the benchmark's.
        generator: ``miniature``, a hub repo, a folder, a checkpoint, or a plug-in's name.
        generator_params: steps, scheduler, height, width, dtype, ...
        metrics: names, a subset of the benchmark's or others; None for the benchmark's.
        prompts: a file of one's own prompts in place of the benchmark's cases.
        db: a data set in place of the benchmark's.
        limit: the first so many cases only.
        replicates: noises a case; None for the benchmark's.
        shard: (k, N): only the cases that fall to shard k of N.
        out: folder of runs.
        cache: folder of images, features and scores; None for the default.
        options: device and batch size.
        dry: draw nothing, not even for a method that has to see pictures before it decides.
        progress: shows the search of such a method.

    Raises:
        NegbenchError: anything that would fail later, in one line.
    """
    bench = load_benchmark(benchmark)
    if bench.protocol == "timing":
        raise ConfigError(
            f"benchmark {bench.title} asks when negatives act, not which method is better; run "
            f"`negbench timing -b {bench.name}`"
        )
    if prompts is not None:
        bench = bench.model_copy(update={"name": f"{bench.name}+prompts"})
    check_counts(limit=limit, replicates=replicates)
    wanted_metrics, metric_refs = resolve_metrics(bench, metrics)
    drawer = resolve_generator(bench, generator, generator_params or {}, options or RunOptions())
    twin_guidance = bench.guidance
    if scale is not None:
        twin_guidance = twin_guidance.model_copy(update={"scale": float(scale)})
    carried = resolve_guidance(guidance, guidance_params or {}, base=twin_guidance)
    for rule in (twin_guidance, carried):
        drawer.check_guidance(rule)
    cases, training = load_cases(bench, db=db, prompts=prompts)
    placebos = _placebos(bench, cases)
    cases = cases[:limit]
    count = replicates or bench.replicates
    resolved = Resolved(
        benchmark=bench,
        cases=cases,
        generator=drawer,
        metrics=wanted_metrics,
        metric_refs=metric_refs,
        jobs=[],
        out=out,
        cache=cache or default_cache(),
        shard=shard,
        options=options or RunOptions(),
    )
    if not methods:
        raise ConfigError("no method given; write for example --method negopt")
    named = read_labels(methods, kind="method")
    params = split_params(method_params or {}, [label for label, _ in named], kind="method")
    built: list[tuple[str, str, Method]] = []
    for label, name in named:
        method = build_method(name, params[label], training)
        for embedding in method.embeddings():
            drawer.take_embedding(embedding)
        built.append((label, name, method))
    unrelated = {case.id: placebos[case.id] for case in cases} if placebos else {}
    bench_ref = Ref(
        name=bench.name,
        version=bench.version,
        params={
            "protocol": bench.protocol,
            "cases": len(cases),
            **_removal_params(bench, unrelated),
        },
    )
    about = _about_generator(bench, generator, drawer)
    requests = Requests(drawer.ref(), bench.title, twin_guidance, carried)

    def decide(
        method: Method, name: str, cases: Sequence[Case]
    ) -> tuple[list[Treatment], list[str]]:
        if not isinstance(method, AdaptiveMethod):
            return treat_cached(method, name, cases, cache=resolved.cache)
        return planned(method, cases) if dry else adapt(
            method, name, cases, generator=drawer, guidance=twin_guidance, carried=carried,
            cache=resolved.cache, options=resolved.options, progress=progress,
        )  # fmt: skip

    for label, name, method in built:
        treatments, notes = decide(method, name, cases)
        others: list[Treatment] = []
        if unrelated:
            told = [case.model_copy(update={"concept": unrelated[case.id]}) for case in cases]
            others, _ = decide(method, name, told)
            if others == treatments:
                notes = [*notes, NOT_TOLD.format(label=label)]
        _refuse_ignored(drawer, requests, [*treatments, *others])
        plan = Plan(
            benchmark=bench_ref,
            dataset=dataset_digest(cases),
            n_cases=len(cases),
            replicates=count,
            method=method.ref(name),
            treatments=sha256_hex(
                canonical_json([item.model_dump(mode="json") for item in treatments])
            ),
            guidance=twin_guidance,
            treatment_guidance=carried,
            generator=drawer.ref(),
        )
        wanted: list[Wanted] = []
        for number, (case, treatment) in enumerate(zip(cases, treatments, strict=True)):
            placebo = (unrelated[case.id], others[number]) if unrelated else None
            wanted.extend(requests.of(case, treatment, r, placebo=placebo) for r in range(count))
        resolved.jobs.append(Job(label=label, plan=plan, wanted=wanted, notes=[*about, *notes]))
    return resolved


def _about_generator(bench: Benchmark, spec: str | None, drawer: Generator) -> list[str]:
    """A note where a benchmark's metrics were not made for what draws."""
    if spec in (None, bench.generator) or drawer.ref().name == "fake":
        return []
    if bench.generator != MINIATURE:
        return []
    return [
        f"the metrics of {bench.name} read pictures of the miniature's world; for photographs and "
        "paintings take -b npdb-quality"
    ]


def _placebos(bench: Benchmark, cases: Sequence[Case]) -> dict[str, str]:
    """For a removal protocol, an unrelated concept by case id."""
    if bench.removal is None:
        return {}
    from negbench.protocols.case_sets import load_case_set
    from negbench.protocols.placebo import choose_placebos

    own = load_case_set(bench.data.case_set) if bench.data.case_set else []
    return choose_placebos(cases, [*cases, *own])


def _removal_params(bench: Benchmark, placebos: Mapping[str, str]) -> dict[str, Any]:
    if bench.removal is None:
        return {}
    return {
        **bench.removal.model_dump(mode="json"),
        "placebos": sha256_hex(canonical_json(dict(placebos))),
    }


def _refuse_ignored(drawer: Generator, requests: Requests, treatments: Sequence[Treatment]) -> None:
    """Refuse rules that cannot be carried out, and those under which a negative does nothing."""
    for treatment in treatments:
        if treatment.guidance is not None:
            drawer.check_guidance(treatment.guidance)
    for applied in distinct_guidance([requests.applied(item) for item in treatments]):
        assert applied.guidance is not None
        drawer.refuse_ignored(applied.guidance, applied.negatives)


def build_method(name: str, params: Mapping[str, Any], training: Any) -> Method:
    """A method by name with checked parameters."""
    from negbench.methods import methods

    cls = methods.get(name)
    config = build_config(cls.Config, params, owner=f"method {name}")
    method = cls(config, training=training)
    method.check()
    return method


def treat_cached(
    method: Method, name: str, cases: Sequence[Case], *, cache: Path
) -> tuple[list[Treatment], list[str]]:
    """What the method decides, contract checked; kept by identity where the method allows it."""
    from negbench.methods.check import treat_checked

    path: Path | None = None
    if method.cacheable:
        key = canonical_json([method.ref(name).digest(), dataset_digest(cases), METHOD_SEED])
        path = cache / "treatments" / f"{sha256_hex(key)}.json"
        if at_hand(path, cache=cache):
            kept = read_json(path).get("treatments", [])
            if len(kept) == len(cases):
                return [Treatment.model_validate(item) for item in kept], method.notes(cases)
    treatments = treat_checked(method, name, cases, seed=METHOD_SEED)
    if path is not None:
        write_json(path, {"treatments": [item.model_dump(mode="json") for item in treatments]})
        written(path, cache=cache)
    return treatments, method.notes(cases)


def resolve_metrics(
    bench: Benchmark, names: Sequence[str] | None
) -> tuple[dict[str, Metric], dict[str, Ref]]:
    """The benchmark's metrics, or those named, built and checked."""
    from negbench.metrics import metrics

    built: dict[str, Metric] = {}
    refs: dict[str, Ref] = {}
    for name in dict.fromkeys(names if names else bench.metrics):
        cls = metrics.get(name)
        config = build_config(cls.Config, bench.metrics.get(name, {}), owner=f"metric {name}")
        metric = cls(config)
        metric.check()
        built[name] = metric
        refs[name] = metric.ref(name)
    return built, refs


def resolve_generator(
    bench: Benchmark, spec: str | None, params: Mapping[str, Any], options: RunOptions
) -> Generator:
    """What draws: the benchmark's generator, or another one under the benchmark's settings.

    A plug-in's generator takes its own parameters only.
    """
    from negbench.generators import generators
    from negbench.generators.resolve import resolve

    chosen = spec or bench.generator
    fixed = {} if chosen in generators else bench.generator_options
    return resolve(chosen, params={**fixed, **params}, options=options)


def resolve_guidance(kind: str | None, params: Mapping[str, Any], *, base: Guidance) -> Guidance:
    """The rule that carries treatments, at the scale of `base` unless `params` has ``scale``."""
    from negbench.guidance import rules

    if kind is None:
        if params:
            raise ConfigError("-g needs --guidance; write for example --guidance window -g stop=10")
        return base
    cls = rules.get(kind)
    values = dict(params)
    scale = values.pop("scale", base.scale)
    try:
        number = float(scale)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"-g scale={scale!r} is not a number") from error
    config = build_config(cls.Config, values, owner=f"guidance rule {kind}")
    return Guidance(
        kind=kind, version=cls.version, scale=number, params=config.model_dump(mode="json")
    )
