"""Cases by discovery: draw twins, let a judge list what it sees, drop what the prompt names.

So Ban et al. (arXiv 2406.02965) chose the objects to remove, twin by twin. The twins are those that
`negbench evaluate --prompts` will draw for the written file, request by request, so they are drawn
once, and its condition (the twin shows the concept) holds for the pairs that were found here.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.drawing import Drawing
from negbench.errors import ConfigError, DataError, one_line
from negbench.files import make_folder, write_atomic
from negbench.generators.base import RunOptions
from negbench.params import check_counts
from negbench.plan import Job, Resolved, resolve_generator
from negbench.progress import Progress, silent
from negbench.protocols import load_benchmark
from negbench.protocols.case_sets import case_set_names, load_case_set, slug, tagged
from negbench.protocols.cases import dataset_digest, read_prompts
from negbench.protocols.placebo import named_in
from negbench.record import Plan
from negbench.requests import Requests, Wanted
from negbench.store import default_cache
from negbench.types import Case, Ref, Treatment

if TYPE_CHECKING:
    from negbench.judges import Judge

CHUNK = 64
"""Pictures judged together."""

COLUMNS = ("id", "prompt", "concept", "category", "entangled", "related", "seen", "twins")


@dataclass(frozen=True)
class Found:
    """A concept that a prompt's twins show though the prompt does not name it.

    Attributes:
        seen: in how many twins.
        twins: of how many that were judged.
    """

    prompt: str
    concept: str
    seen: int
    twins: int


@dataclass
class Discovery:
    """What was found.

    Attributes:
        benchmark: whose generator, guidance and seeds were used.
        judge: its name.
        n_prompts: prompts in the file.
        n_twins: twins drawn or reused.
        named: concepts seen but named in their prompt, with the number of twins.
        unscored: reasons why a picture was not judged, with their number.
    """

    benchmark: str
    judge: str
    n_prompts: int
    n_twins: int = 0
    found: list[Found] = field(default_factory=list)
    named: Counter[str] = field(default_factory=Counter)
    unscored: Counter[str] = field(default_factory=Counter)


def discover(
    prompts: Path,
    *,
    judge: Judge,
    benchmark: str = "miniature-removal",
    generator: str | None = None,
    generator_params: Mapping[str, Any] | None = None,
    scale: float | None = None,
    replicates: int | None = None,
    concepts: Sequence[str] | None = None,
    at_least: int = 1,
    limit: int | None = None,
    cache: Path | None = None,
    options: RunOptions | None = None,
    progress: Progress = silent,
) -> Discovery:
    """Draw the twins of a file of prompts and list what they show unasked.

    Args:
        prompts: as for ``evaluate --prompts``; concepts in it are not read.
        judge: who looks.
        benchmark: the removal benchmark that the cases are for.
        generator: in place of the benchmark's.
        generator_params: its parameters.
        scale: guidance scale in place of the benchmark's.
        replicates: noises a prompt; None for the benchmark's.
        concepts: the only ones to look for; None for all that the judge names or knows.
        at_least: twins of a prompt that have to show a concept.
        limit: the first so many prompts only.
        cache: folder of images; None for the default.
        options: device and batch size.
        progress: shows bars.

    Raises:
        ConfigError: this judge has no list of concepts, or the benchmark is none of removal.
        NegbenchError: a file or weights are missing, or drawing failed; what was drawn is kept.
    """
    check_counts(limit=limit, replicates=replicates, at_least=at_least)
    bench = load_benchmark(benchmark)
    if bench.removal is None:
        raise ConfigError(f"benchmark {bench.name} asks no question of removal; take another -b")
    asked = list(dict.fromkeys(concepts)) if concepts is not None else None
    if asked is None and not _lists(judge):
        known = judge.vocabulary()
        if known is None:
            raise ConfigError(
                f"judge {judge.name} lists no concepts of its own accord; say what to look for, "
                "for example --concepts coco"
            )
        asked = list(known)
    cases = _distinct(read_prompts(prompts))[:limit]
    resolved = _twins(
        bench.model_copy(update={"name": f"{bench.name}+prompts"}),
        cases,
        drawer=resolve_generator(bench, generator, generator_params or {}, options or RunOptions()),
        scale=scale,
        replicates=replicates,
        cache=cache or default_cache(),
        options=options or RunOptions(),
    )
    wanted = resolved.jobs[0].wanted
    make_folder(resolved.cache)
    drawing = Drawing(resolved)
    drawing.draw((item.twin_key for item in wanted), progress=progress)
    judge.prepare(device=resolved.options.device, cache=resolved.cache)
    result = Discovery(resolved.benchmark.title, judge.name, len(cases), len(wanted))
    seen: dict[str, Counter[str]] = {case.prompt: Counter() for case in cases}
    judged: Counter[str] = Counter()
    with progress("judging", len(wanted)) as bar:
        for start in range(0, len(wanted), CHUNK):
            chunk = wanted[start : start + CHUNK]
            pixels = [drawing.pixels(item.twin_key) for item in chunk]
            images = [drawing.stored[item.twin_key].image for item in chunk]
            answers = look(judge, images, pixels, asked, where=resolved)
            for item, answer in zip(chunk, answers, strict=True):
                if isinstance(answer, str):
                    result.unscored[one_line(answer, limit=200)] += 1
                else:
                    judged[item.case.prompt] += 1
                    seen[item.case.prompt].update(set(answer))
            bar.update(len(chunk))
    for prompt, counts in seen.items():
        for concept, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            if named_in(concept, prompt):
                result.named[concept] += count
            elif count >= at_least:
                result.found.append(Found(prompt, concept, count, judged[prompt]))
    return result


def _lists(judge: Judge) -> bool:
    """Whether the judge names concepts without being told any."""
    from negbench.judges import Judge as Base

    return type(judge).list_concepts is not Base.list_concepts


def look(
    judge: Judge,
    images: Sequence[str],
    pixels: Sequence[Any],
    asked: Sequence[str] | None,
    *,
    where: Resolved,
) -> list[tuple[str, ...] | str]:
    """For each picture the concepts the judge sees, or the reason why it does not say.

    Args:
        judge: who looks.
        images: digests of the pixels.
        pixels: uint8 (height, width, 3).
        asked: concepts to ask for one by one; None to let the judge name them.
        where: its cache and device are used.
    """
    from negbench.judges import Question, Verdict
    from negbench.judges.ask import ask

    if asked is None:
        named = judge.list_concepts(pixels)
        return [
            (item.unscored or "no answer") if isinstance(item, Verdict) else item for item in named
        ]
    questions = [
        Question(image=image, pixels=picture, concept=concept)
        for image, picture in zip(images, pixels, strict=True)
        for concept in asked
    ]
    verdicts = iter(ask(judge, questions, cache=where.cache, device=where.options.device))
    answers: list[tuple[str, ...] | str] = []
    for _ in images:
        own = [next(verdicts) for _ in asked]
        if own and all(verdict.present is None for verdict in own):
            answers.append(own[0].unscored or "no answer")
        else:
            answers.append(tuple(c for c, v in zip(asked, own, strict=True) if v.present))
    return answers


def _distinct(cases: Sequence[Case]) -> list[Case]:
    by_prompt: dict[str, Case] = {}
    for case in cases:
        by_prompt.setdefault(case.prompt, case)
    return list(by_prompt.values())


def _twins(
    bench: Any,
    cases: list[Case],
    *,
    drawer: Any,
    scale: float | None,
    replicates: int | None,
    cache: Path,
    options: RunOptions,
) -> Resolved:
    """A plan of twins alone."""
    twin = bench.guidance
    if scale is not None:
        twin = twin.model_copy(update={"scale": float(scale)})
    drawer.check_guidance(twin)
    requests = Requests(drawer.ref(), bench.title, twin, twin)
    count = replicates or bench.replicates
    wanted: list[Wanted] = [
        requests.of(case, Treatment(prompt=case.prompt), replicate)
        for case in cases
        for replicate in range(count)
    ]
    plan = Plan(
        benchmark=Ref(name=bench.name, version=bench.version, params={"protocol": "discover"}),
        dataset=dataset_digest(cases),
        n_cases=len(cases),
        replicates=count,
        method=Ref(name="none"),
        treatments="",
        guidance=twin,
        treatment_guidance=twin,
        generator=drawer.ref(),
    )
    return Resolved(
        benchmark=bench,
        cases=cases,
        generator=drawer,
        metrics={},
        metric_refs={},
        jobs=[Job(label="none", plan=plan, wanted=wanted)],
        out=Path(),
        cache=cache,
        shard=None,
        options=options,
    )


def write_cases(discovery: Discovery, path: Path) -> int:
    """Write a case file for ``evaluate --prompts``; gives the number of cases.

    The category of a concept is that of the shipped case sets, where one of them has it.

    Raises:
        DataError: nothing was found.
        StorageError: the file cannot be written.
    """
    if not discovery.found:
        reason = discovery.unscored.most_common(1)
        why = f" ({reason[0][0]})" if reason else ""
        raise DataError(
            f"judge {discovery.judge} saw nothing in {discovery.n_twins} twins that their prompts "
            f"do not name{why}; no case file was written"
        )
    categories = {
        case.concept: (tagged(case, "category") or [""])[0]
        for name in case_set_names()
        for case in load_case_set(name)
    }
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    ids: Counter[str] = Counter()
    for item in discovery.found:
        name = f"{slug(item.concept)}/{slug(item.prompt)}"[:150]
        ids[name] += 1
        writer.writerow(
            {
                "id": name if ids[name] == 1 else f"{name}-{ids[name]}",
                "prompt": item.prompt,
                "concept": item.concept,
                "category": categories.get(item.concept, ""),
                "seen": item.seen,
                "twins": item.twins,
            }
        )
    write_atomic(path, buffer.getvalue().encode("utf-8"))
    return len(discovery.found)
