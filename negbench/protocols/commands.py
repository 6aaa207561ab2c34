"""Commands of the protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from negbench.options import (
    AsJson,
    emit,
)


def score_verdicts(
    verdicts: Annotated[
        Path,
        typer.Argument(
            metavar="VERDICTS.csv",
            help="Columns concept, arm (all_steps, window, none), present (0, 1), count; "
            "optionally case, seed.",
        ),
    ],
    comparisons: Annotated[
        Path | None,
        typer.Option(
            metavar="C.csv",
            help="Columns case, closer (window, all_steps, tie), count; optionally seed, concept.",
        ),
    ] = None,
    concepts: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Score these concepts only: coco, coco-underscored, or a file with one a line.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score recorded judgements of removal: rsr, rrsr and cr with 95 % intervals."""
    from negbench.protocols.concept_lists import load_concepts
    from negbench.protocols.verdict_scores import score_verdicts as score
    from negbench.protocols.verdict_table import as_text
    from negbench.protocols.verdicts import read_comparisons, read_verdicts

    chosen = None if concepts is None else load_concepts(concepts)
    scores = score(
        read_verdicts(verdicts),
        comparisons=None if comparisons is None else read_comparisons(comparisons),
        concepts=chosen,
    )
    if as_json:
        emit(scores.model_dump(mode="json"))
    else:
        typer.echo(as_text(scores))
