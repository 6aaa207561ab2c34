"""`negbench remove`: parse, call one public function, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

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
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-o", "--option", metavar="KEY=VALUE", help="Of the generator: steps, scheduler, ..."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    scale: Annotated[float | None, typer.Option(help="Guidance scale; default: its own.")] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Who says whether the concept is visible. [miniature]"),
    ] = None,
    judge_param: Annotated[
        list[str] | None,
        typer.Option("--judge-param", metavar="KEY=VALUE", help="Parameter of the judge."),
    ] = None,
    budget: Annotated[int, typer.Option(help="Most pictures to draw, the twin included.")] = 60,
    out: Annotated[Path, typer.Option(help="Folder of results.")] = Path("removed"),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of images; default: user cache.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
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
        command="negbench " + " ".join(sys.argv[1:]),
    )
    folder = folder_of(out, found, identity=identity)
    if as_json:
        shown = {**result, "folder": str(folder)}
        sys.stdout.write(json.dumps(shown, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        from negbench.remove.report import as_text

        typer.echo(as_text(found, folder))
    raise typer.Exit(EXIT[found.status])
