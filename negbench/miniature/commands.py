"""``negbench miniature`` and ``negbench train miniature``: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negbench.options import AsJson, emit


def miniature(
    sheet: Annotated[Path, typer.Option(help="Where to draw the contact sheet.")] = Path(
        "miniature-sheet.png"
    ),
    as_json: AsJson = False,
) -> None:
    """Draw the miniature's contact sheet anew and print its calibration figures."""
    from negbench.files import make_folder
    from negbench.miniature import card_path, weights_dir
    from negbench.miniature.card import draw_sheet, figures

    found = figures()
    make_folder(sheet.resolve().parent)
    draw_sheet(weights_dir()).save(sheet, format="PNG")
    if as_json:
        emit({"sheet": str(sheet), "figures": found})
    else:
        typer.echo(card_path().read_text(encoding="utf-8"))
        typer.echo(f"contact sheet: {sheet}")


def train_miniature(
    part: Annotated[
        list[str] | None,
        typer.Option(help="vae, unet, clip, inception, judge, aesthetic or negopt; default: all."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of weights and checkpoints.")] = Path(
        "miniature-weights"
    ),
    steps: Annotated[int | None, typer.Option(help="Training steps; default: the part's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.")] = 0,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew in place of going on.")
    ] = False,
) -> None:
    """Train the miniature's models, each resumable: hours on a CPU, minutes on a GPU."""
    from negbench.errors import UnknownNameError, did_you_mean
    from negbench.miniature.training import PARTS, train

    for name in part or PARTS:
        if name not in PARTS:
            raise UnknownNameError(f"unknown part {name!r}; {did_you_mean(name, PARTS)}")
    for name in part or PARTS:
        train(name, out=out, steps=steps, resume=not restart, seed=seed)
    typer.echo(str(out))
