"""A timing run's answers as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NAMES = {"noun_object": "nouns", "attribute": "attributes", "all": "all"}


def as_text(run: dict[str, Any]) -> str:
    """The answers of every part that was measured, with n and 95 % intervals."""
    head = (
        f"{run['benchmark']}, {run['scheduler']}, {run['calls']} model calls: "
        f"{run['plan']['n_cases']} cases of {run['n_prompts']} prompts, "
        f"{run['plan']['replicates']} noises each"
    )
    lines = [head]
    parts = run["parts"]
    for name, tell in (
        ("curves", _curves),
        ("grid", _grid),
        ("activation", _activation),
        ("inducing", _inducing),
        ("momentum", _momentum),
    ):
        if name in parts:
            lines += ["", *tell(parts[name])]
    files = [file for part in parts.values() for file in part["files"] if file.endswith(".png")]
    lines += ["", f"{run['folder']}: timing.json, CSV files, {', '.join(files)}"]
    return "\n".join(lines)


def _number(found: dict[str, Any], key: str = "value", digits: int = 3) -> str:
    value = found[key]
    if value is None:
        return f"none ({found['note']})" if found.get("note") else "none"
    ci95 = found["ci95"]
    span = "" if ci95 is None else f" [{ci95[0]:.{digits}f}, {ci95[1]:.{digits}f}]"
    return f"{value:.{digits}f}{span}"


def _group(name: str) -> str:
    return NAMES.get(name, name)


def _curves(part: dict[str, Any]) -> Iterator[str]:
    yield "Critical step of the strength ratio (model call)"
    for variant, label in (
        ("authors", "all positions"),
        ("relative", "over its mean"),
        ("placebo_relative", "over its mean, control"),
        ("words", "own words"),
        ("words_relative", "own words over mean"),
        ("placebo_words_relative", "own words, control"),
    ):
        for group, found in part["critical"][variant].items():
            yield (
                f"  {label:<24} {_group(group):<11} peak {_number(found['peak'], digits=0):<14} "
                f"plateau from {_number(found['plateau'], digits=0):<14} n {found['peak']['n']}"
            )


def _grid(part: dict[str, Any]) -> Iterator[str]:
    yield "Start/stop grid: removed (of twins that show it), damage (1 - SSIM), against every call"
    for group, found in part["claims"].items():
        units = part["units"][group]
        shows, lacks = units["twin_shows"], units["twin_lacks"]
        yield f"  {_group(group)}: {shows} twins show it, {lacks} lack it"
        for name, one in found.items():
            start, stop = one["window"]
            low, high = one["against"]
            yield (
                f"    {name.replace('_', ' ')}: [{start}, {stop}) removed "
                f"{_number(one['removal'])}, [{low}, {high}) {_number(one['removal_against'])}; "
                f"damage difference {_number(one['damage_difference'], 'delta')}"
            )
        works = part["works"][group]
        yield (
            f"    half of the removal is left with a start up to call "
            f"{_number(works['latest_start'], digits=0)} and with a stop from call "
            f"{_number(works['earliest_stop'], digits=0)} on"
        )


def _activation(part: dict[str, Any]) -> Iterator[str]:
    yield f"Reverse activation, {part['twin_lacks']} of {part['units']} twins lack the concept"
    for row in part["by_count"]:
        concept, placebo = (
            _number({"value": row[f"{arm}_value"], "ci95": _ends(row, f"{arm}_")})
            for arm in ("concept", "placebo")
        )
        yield f"  first {row['first_calls']:>2} calls: concept {concept}, unrelated {placebo}"
    for group, found in part["at_any_count"].items():
        yield (
            f"  at any of these counts, {_group(group)}: concept {_number(found['concept'])}, "
            f"unrelated {_number(found['placebo'])}, difference "
            f"{_number(found['difference'], 'delta')} (p {found['difference']['p']})"
        )


def _ends(row: dict[str, Any], prefix: str) -> tuple[float, float] | None:
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    return None if low is None or high is None else (low, high)


def _inducing(part: dict[str, Any]) -> Iterator[str]:
    start, stop = part["calls"]
    yield f"Inducing measure, mean over calls {start} to {stop - 1}"
    for arm, label in (
        ("concept", "the concept"),
        ("placebo", "unrelated negative (control)"),
        ("empty", "along the empty prompt (control)"),
    ):
        yield f"  {label:<34} {_number(part['mean'][arm])}  n {part['mean'][arm]['n']}"
    yield f"  concept minus unrelated            {_number(part['concept_minus_placebo'], 'delta')}"
    yield f"  concept minus empty                {_number(part['concept_minus_empty'], 'delta')}"


def _momentum(part: dict[str, Any]) -> Iterator[str]:
    momentum, alignment = part["momentum"], part["alignment"]
    yield "Momentum cos(e+(t), e+(t+1)), mean over calls"
    for arm, label in (
        ("concept", "concept as negative"),
        ("twin", "no negative (control)"),
        ("placebo", "unrelated negative (control)"),
    ):
        yield f"  {label:<34} {_number(momentum['mean'][arm], digits=4)}"
    yield (
        "  concept minus no negative          "
        f"{_number(momentum['concept_minus_twin'], 'delta', digits=5)}"
    )
    yield "Alignment cos(e+, e-), mean over calls"
    for arm, label in (
        ("concept", "the concept's noise"),
        ("empty", "the empty prompt's (control)"),
        ("placebo", "an unrelated concept's (control)"),
    ):
        yield f"  {label:<34} {_number(alignment['mean'][arm], digits=4)}"
