"""``negbench discover``: parse, call one public function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negbench.options import (
    AsJson,
    BatchSize,
    CacheFolder,
    Device,
    Generator,
    GeneratorParams,
    JudgeParams,
    Limit,
    Plugins,
    Replicates,
    Scale,
    emit,
    load_plugins,
)
from negbench.progress import progress_bar


def discover(
    prompts: Annotated[Path, typer.Option(help="CSV, TSV, JSONL or text file of prompts.")],
    judge: Annotated[str, typer.Option(help="Who looks (`negbench list judges`).")] = "miniature",
    judge_param: JudgeParams = None,
    benchmark: Annotated[
        str, typer.Option("-b", "--benchmark", help="Removal benchmark that the cases are for.")
    ] = "miniature-removal",
    concepts: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Look for these only: coco, or a file with one concept a line."
        ),
    ] = None,
    at_least: Annotated[
        int, typer.Option(min=1, help="Twins of a prompt that have to show a concept.")
    ] = 1,
    generator: Generator = None,
    option: GeneratorParams = None,
    scale: Scale = None,
    limit: Limit = None,
    replicates: Replicates = None,
    out: Annotated[
        Path, typer.Option(metavar="CASES.csv", help="Where to write the cases.")
    ] = Path("cases.csv"),
    cache: CacheFolder = None,
    device: Device = "auto",
    batch_size: BatchSize = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Write removal cases from what a judge sees in twins that their prompts do not name."""
    from negbench.discover.discover import discover as find
    from negbench.discover.discover import write_cases
    from negbench.errors import one_line
    from negbench.generators.base import RunOptions
    from negbench.judges import build_judge
    from negbench.params import parse_pairs
    from negbench.protocols.concept_lists import load_concepts

    load_plugins(plugin)
    listed = None if concepts is None else sorted(load_concepts(concepts).concepts)
    result = find(
        prompts,
        judge=build_judge(judge, parse_pairs(judge_param or [], option="--judge-param")),
        benchmark=benchmark,
        generator=generator,
        generator_params=parse_pairs(option or [], option="-o"),
        scale=scale,
        replicates=replicates,
        concepts=listed,
        at_least=at_least,
        limit=limit,
        cache=cache,
        options=RunOptions(device=device, batch_size=batch_size),
        progress=progress_bar,
    )
    count = write_cases(result, out)
    again = f"negbench evaluate -b {benchmark} -m concept --prompts {out}"
    if as_json:
        summary = {
            "cases": count,
            "file": str(out),
            "prompts": result.n_prompts,
            "twins": result.n_twins,
            "judge": result.judge,
            "named_in_prompt": dict(result.named),
            "unscored": dict(result.unscored),
            "next": again,
        }
        emit(summary)
        return
    typer.echo(
        f"{result.n_prompts} prompts, {result.n_twins} twins, judge {result.judge}: {count} cases, "
        f"{len({item.concept for item in result.found})} concepts"
    )
    if result.named:
        shown = ", ".join(f"{name} {n}" for name, n in result.named.most_common(10))
        typer.echo(f"left out, since the prompt names them (twins): {one_line(shown)}")
    for reason, number in result.unscored.most_common(3):
        typer.echo(f"not judged: {number} twins, {reason}")
    typer.echo(f"{out}; next: {one_line(again)}")
