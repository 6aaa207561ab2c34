"""`negbench remove`: parse, call one public function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negbench.options import (
    AsJson,
    CacheFolder,
    Device,
    GeneratorParams,
    Judge,
    JudgeParams,
    Scale,
    command_line,
    emit,
)
from negbench.progress import progress_bar

EXIT = {"removed": 0, "not there": 0, "not removed": 1, "no verdict": 2}
"""Exit codes: 0 the concept is not in the picture, 1 it still is, 2 nobody can tell."""


def remove(
    prompt: Annotated[str, typer.Argument(help='What to draw, for example "a professor".')],
    concept: Annotated[str, typer.Option(help="What should not be seen, for example glasses.")],
    generator: Annotated[
        str,
        typer.Option(help="miniature, org/repo[@revision], a folder, or a .safetensors file."),
    ] = "miniature",
    option: GeneratorParams = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    scale: Scale = None,
    judge: Judge = None,
    judge_param: JudgeParams = None,
    budget: Annotated[int, typer.Option(help="Most pictures to draw, the twin included.")] = 60,
    out: Annotated[Path, typer.Option(help="Folder of results.")] = Path("removed"),
    cache: CacheFolder = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Remove what a prompt implies with the smallest window of a negative prompt.

    Exit code 0: the concept is not in the picture (removed, or never there); 1: it still is.
    """
    from negbench.errors import ConfigError
    from negbench.generators.base import RunOptions
    from negbench.generators.resolve import resolve
    from negbench.judges import build_judge
    from negbench.params import parse_pairs
    from negbench.remove.files import folder_of, write_removal
    from negbench.remove.search import remove as search

    if judge is None and generator != "miniature":
        raise ConfigError(
            "the default judge knows the miniature's world only; name another with --judge "
            "(`negbench list judges` shows all)"
        )
    drawer = resolve(
        generator,
        params=parse_pairs(option or [], option="-o"),
        options=RunOptions(device=device),
    )
    named = build_judge(
        judge or "miniature", parse_pairs(judge_param or [], option="--judge-param")
    )
    found = search(
        prompt,
        concept=concept,
        generator=drawer,
        judge=named,
        seed=seed,
        scale=scale,
        budget=budget,
        cache=cache,
        device=device,
        progress=progress_bar,
    )
    identity = [drawer.ref().digest(), named.ref().digest(), scale]
    result = write_removal(
        folder_of(out, found, identity=identity),
        found,
        about={
            "generator": drawer.ref().model_dump(mode="json"),
            "judge": named.ref().model_dump(mode="json"),
            "scale": drawer.default_guidance().scale if scale is None else scale,
        },
        command=command_line(),
    )
    folder = folder_of(out, found, identity=identity)
    if as_json:
        emit({**result, "folder": str(folder)})
    else:
        from negbench.remove.report import as_text

        typer.echo(as_text(found, folder))
    raise typer.Exit(EXIT[found.status])
