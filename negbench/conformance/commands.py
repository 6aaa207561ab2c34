"""``negbench check-plugin``."""

from __future__ import annotations

from typing import Annotated

import typer

from negbench.options import (
    AsJson,
    emit,
)


def check_plugin(
    target: Annotated[
        str, typer.Argument(metavar="NAME_OR_FILE", help="A part's name, or a Python file.")
    ],
    kind: Annotated[
        str | None, typer.Option(help="guidance, method, metric or generator, if several match.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="KEY=VALUE", help="Parameter of the part."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try what a plug-in promises, and say in words what does not hold.

    Exit code 1 if a check fails, 2 if the plug-in cannot be loaded or needs what is not at hand.
    """
    from negbench.conformance.parts import check_part, find_parts
    from negbench.params import parse_pairs

    params = parse_pairs(param or [])
    rows = []
    for part in find_parts(target, kind=kind):
        outcomes = check_part(part, params=params)
        passed = all(outcome.passed for outcome in outcomes)
        checks = [vars(outcome) for outcome in outcomes]
        rows.append({**vars(part), "passed": passed, "checks": checks})
        if as_json:
            continue
        typer.echo(f"{part.kind} {part.name}, from {part.origin}")
        for outcome in outcomes:
            mark = "ok  " if outcome.passed else "FAIL"
            typer.echo(f"  {mark}  {outcome.check}: {outcome.message}")
        held = sum(outcome.passed for outcome in outcomes)
        typer.echo(f"  {held} of {len(outcomes)} checks hold")
    passed = all(row["passed"] for row in rows)
    if as_json:
        emit({"passed": passed, "parts": rows})
    if not passed:
        raise typer.Exit(1)
