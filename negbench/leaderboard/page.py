"""The pages: one table, and a page an entry; each a file that works offline and runs nothing alien.

Texts of submitters are shown by `visible` and escaped by the template engine; a policy in each page
allows its own style and script by their sha256 and nothing else, no other host least of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from negbench.leaderboard import figures
from negbench.leaderboard.ranks import ALPHA, Ranking, series_of
from negbench.leaderboard.table import Cell, Column, Group, Row, Table
from negbench.numbers import arrow, number, p_value, signed, with_interval
from negbench.report.text import content_security_policy, visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from negbench.leaderboard.checks import Board, Checked

NAMES = {
    "inception_score": "Inception Score",
    "clip_alignment": "CLIP alignment",
    "clip_to_negative": "CLIP to negative",
    "aesthetic": "Aesthetic",
    "ssim": "SSIM to twin",
    "psnr": "PSNR to twin",
    "lpips": "LPIPS to twin",
    "no_op": "No-op",
    "evaluations": "Evaluations",
    "presence": "Presence",
    "net_removal": "Net removal",
    "rsr": "RSR",
    "rrsr": "RRSR",
    "cr": "CR",
    "reverse_activation": "Reverse activation",
    "alignment_lost": "Alignment lost",
}
HELP = {
    "inception_score": "how certain a classifier is of a picture, how varied its answers are",
    "clip_alignment": "cosine of picture and prompt",
    "clip_to_negative": "cosine of picture and the method's own negative prompt",
    "aesthetic": "points of the aesthetic predictor",
    "ssim": "structural similarity to the twin: 1 is the same picture",
    "psnr": "peak signal-to-noise ratio to the twin, in dB",
    "no_op": "share of pictures that equal their twin",
    "evaluations": "denoiser predictions a picture: the cost that no machine changes",
    "presence": "probability that the concept is visible",
    "net_removal": "removal success minus that of an unrelated concept (the placebo)",
    "rsr": "removal success: concept gone, of the twins that showed it",
    "rrsr": "removal success over that of the negative prompt at every step",
    "cr": "share closer to the twin than with the negative prompt at every step",
    "reverse_activation": "concept there, of the twins that did not show it",
    "alignment_lost": "CLIP alignment of the twin minus that of the picture",
}
MAX_TITLE = 160


def _unit(unit: str) -> str:
    """The unit by which numbers are written: predictions are counted."""
    return "count" if unit == "predictions" else unit


def metric_name(metric: str) -> str:
    """A metric as people write it."""
    return NAMES.get(metric, visible(metric.replace("_", " "), limit=60))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(str(_templates())),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"visible": visible, "p": p_value, "metric_name": metric_name}
    return made


def _templates() -> Any:
    return files("negbench.leaderboard") / "templates"


@cache
def _asset(name: str) -> str:
    text: str = (_templates() / name).read_text(encoding="utf-8")
    return text


def _page(template: str, **context: Any) -> bytes:
    style = _asset("style.css")
    script = _asset("page.js") if template == "index.html" else ""
    html = (
        _environment()
        .get_template(template)
        .render(
            style=_markup(style),
            script=_markup(script),
            policy=content_security_policy(style=style, script=script),
            **context,
        )
    )
    return html.encode("utf-8")


def _markup(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 (our own file)


def render(
    table: Table, board: Board, rankings: Mapping[tuple[int, str], Ranking]
) -> dict[str, bytes]:
    """All pages by path: ``index.html`` and one an entry."""
    groups = [_group(at, group) for at, group in enumerate(table.groups)]
    pages = {"index.html": _page("index.html", table=table, groups=groups)}
    for place, group in enumerate(table.groups):
        mine = {name: found for (at, name), found in rankings.items() if at == place}
        for row in group.rows:
            checked = board.entries[row.entry.removeprefix("entries/")]
            pages[row.page] = _page("entry.html", **_entry(group, row, checked, mine))
    return pages


def link(path: str, *, up: int = 0) -> str:
    """`path` below the board as a relative address from a page `up` folders down."""
    return "../" * up + quote(path, safe="/@+")


def _group(at: int, group: Group) -> dict[str, Any]:
    columns = [_column(group, column) for column in group.columns]
    return {
        "id": f"g{at}",
        "group": group,
        "short": group.generator_digest[:12],
        "about": _about(group),
        "columns": columns,
        "rules": sorted({visible(row.rule, limit=40) for row in group.rows}),
        "rows": [
            {
                "row": row,
                "title": visible(row.title, limit=MAX_TITLE),
                "href": link(row.page),
                "rule": visible(row.rule, limit=40),
                "is_twin": not any(cell.difference for cell in row.cells.values()),
                "find": visible(f"{row.title} {row.method} {row.rule}", limit=400).lower(),
                "cells": [_cell(row.cells.get(c["column"].metric), c, group) for c in columns],
            }
            for row in group.rows
        ],
        "figure": _figure(group),
        "twin": [_twin(c) for c in columns],
    }


def _about(group: Group) -> list[str]:
    params = group.generator_params
    said = [f"{group.n_cases} prompts × {group.replicates} noises"]
    if "steps" in params:
        said.append(f"{params['steps']} steps")
    if "scheduler" in params:
        said.append(visible(str(params["scheduler"]), limit=40))
    if "height" in params and "width" in params:
        said.append(f"{params['width']} × {params['height']} px")
    if "dtype" in params:
        said.append(visible(str(params["dtype"]), limit=20))
    said.append(f"{len(group.rows)} entr{'y' if len(group.rows) == 1 else 'ies'}")
    return said


def _column(group: Group, column: Column) -> dict[str, Any]:
    cells = [row.cells[column.metric] for row in group.rows if column.metric in row.cells]
    twin = column.twin.value if column.twin is not None else None
    places = [v for cell in cells for v in (cell.value, *(cell.ci95 or ()))]
    moves = [
        v for c in cells if c.difference for v in (c.difference.value, *(c.difference.ci95 or ()))
    ]
    return {
        "column": column,
        "name": metric_name(column.metric),
        "arrow": arrow(column.higher_is_better),
        "help": HELP.get(column.metric, ""),
        "twin": twin,
        "has_difference": bool(moves),
        "axis": figures.axis([*places, twin], left=4, right=figures.WIDTH - 4),
        "moves": figures.axis(moves, left=4, right=figures.WIDTH - 4, zero=True),
        "count": sum(cell.rank is not None for cell in cells),
    }


def _twin(c: dict[str, Any]) -> dict[str, Any] | None:
    column: Column = c["column"]
    if column.twin is None:
        return None
    cell = column.twin
    text = with_interval(cell.value, cell.ci95, _unit(column.unit))
    return {
        "value": "" if cell.value is None else number(cell.value, _unit(column.unit)),
        "bar": figures.bar(c["axis"], cell.value, cell.ci95, reference=c["twin"], label=text,
                           kind="of-twin"),
    }  # fmt: skip


def _cell(cell: Cell | None, c: dict[str, Any], group: Group) -> dict[str, Any] | None:
    if cell is None:
        return None
    column: Column = c["column"]
    said = [with_interval(cell.value, cell.ci95, _unit(column.unit))]
    if cell.rank is not None:
        said.append(f"rank {rank_text(cell.rank)} of {c['count']}")
    best = cell.rank is not None and cell.rank[0] == 1 and cell.rank[1] < c["count"]
    found: dict[str, Any] = {
        "name": c["name"],
        "value": "unscored" if cell.value is None else number(cell.value, _unit(column.unit)),
        "sort": cell.value,
        "interval": "" if cell.ci95 is None else _interval(cell.ci95, column.unit),
        "unscored": cell.n_unscored,
        "note": cell.note,
        "rank": None if cell.rank is None else rank_text(cell.rank),
        "strip": None if cell.rank is None else figures.rank_strip(cell.rank, c["count"]),
        "best": best,
        "bar": None
        if column.kind == "cost" or cell.value is None
        else figures.bar(
            c["axis"], cell.value, cell.ci95, reference=c["twin"], label="; ".join(said)
        ),
        "difference": None,
        "moved": None,
    }
    if column.kind != "cost" and cell.value is not None:
        found["bar"] = figures.bar(
            c["axis"], cell.value, cell.ci95, reference=c["twin"], label="; ".join(said)
        )
    difference = cell.difference
    if difference is not None and difference.value is not None:
        verdict = _verdict(difference.value, difference.p_holm, column.higher_is_better)
        text = signed(difference.value, _unit(column.unit))
        whole = (
            text if difference.ci95 is None else f"{text} {_interval(difference.ci95, column.unit)}"
        )
        found["difference"] = {
            "text": text,
            "interval": "" if difference.ci95 is None else _interval(difference.ci95, column.unit),
            "verdict": verdict,
            "baseline": difference.baseline,
            "bar": figures.bar(
                c["moves"], difference.value, difference.ci95, reference=0.0,
                label=f"{whole}: {verdict}", kind=verdict.replace(" ", "-"),
            ),
        }  # fmt: skip
        found["moved"] = difference.value
    return found


def rank_text(rank: tuple[int, int]) -> str:
    """``2`` or ``1–3``."""
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}–{rank[1]}"


def _interval(ci95: tuple[float, float], unit: str) -> str:
    return f"[{number(ci95[0], unit)}, {number(ci95[1], unit)}]".replace("-", "−")


def _verdict(delta: float, p_holm: float | None, higher_is_better: bool | None) -> str:  # noqa: FBT001
    if delta == 0:
        return "equal"
    if p_holm is None or p_holm > ALPHA or higher_is_better is None:
        return "cannot tell"
    return "better" if (delta > 0) == higher_is_better else "worse"


PREFERRED = (("clip_alignment", "inception_score"), ("alignment_lost", "net_removal"))


def _figure(group: Group) -> dict[str, Any] | None:
    """Two columns against each other: what is gained and what it costs."""
    ranked = [column for column in group.columns if column.ranked]
    if len(ranked) < 2 or len(group.rows) < 2:
        return None
    by_name = {column.metric: column for column in ranked}
    chosen = next(
        ((by_name[a], by_name[b]) for a, b in PREFERRED if a in by_name and b in by_name),
        (ranked[1], ranked[0]),
    )
    across, up = chosen
    dots = []
    for row in group.rows:
        a, b = row.cells.get(across.metric), row.cells.get(up.metric)
        if a is None or b is None or a.value is None or b.value is None:
            continue
        label = visible(row.title, limit=28)
        dots.append(figures.Dot(label, link(row.page), a.value, b.value, a.ci95, b.ci95))
    a, b = across.twin, up.twin
    if a is not None and b is not None and a.value is not None and b.value is not None:
        dots.append(figures.Dot("twin", None, a.value, b.value, a.ci95, b.ci95))
    names = [f"{metric_name(c.metric)} {arrow(c.higher_is_better)}" for c in (across, up)]
    return {
        "title": f"{metric_name(up.metric)} against {metric_name(across.metric)}",
        "svg": figures.tradeoff(
            dots, x_name=names[0], y_name=names[1],
            label=f"{names[1]} against {names[0]}, a point an entry, with 95 % intervals",
        ),
    }  # fmt: skip


UP = 3
"""Folders between an entry's page and the board."""


def _entry(
    group: Group, row: Row, checked: Checked, rankings: Mapping[str, Ranking]
) -> dict[str, Any]:
    entry = checked.entry
    columns = [_column(group, column) for column in group.columns]
    by_name = {c["column"].metric: c for c in columns}
    twins = {estimate.metric: estimate for estimate in entry.twin_estimates}
    numbers = []
    for estimate in entry.estimates:
        paired = next((p for p in entry.paired if p.metric == estimate.metric), None)
        cell = row.cells.get(estimate.metric)
        twin = twins.get(estimate.metric)
        numbers.append(
            {
                "name": metric_name(estimate.metric),
                "help": HELP.get(estimate.metric, ""),
                "arrow": arrow(estimate.higher_is_better),
                "unit": estimate.unit,
                "value": with_interval(estimate.value, estimate.ci95, _unit(estimate.unit)),
                "n": estimate.n_scored,
                "unscored": estimate.n_unscored,
                "note": estimate.note,
                "twin": ""
                if twin is None
                else with_interval(twin.value, twin.ci95, _unit(twin.unit)),
                "paired": None if paired is None else _cell_difference(paired, cell),
                "rank": None if cell is None or cell.rank is None else rank_text(cell.rank),
            }
        )
    own = entry.path
    return {
        "title": visible(row.title, limit=MAX_TITLE),
        "group": group,
        "row": row,
        "entry": entry,
        "about": _about(group),
        "numbers": numbers,
        "falls": _falls(checked, by_name),
        "others": _others(group, row, own, rankings, by_name),
        "other_columns": [c for c in columns if c["column"].metric in rankings],
        "index": link("index.html", up=UP),
        "files": [
            ("entry", link(row.entry, up=UP)),
            ("values", link(f"entries/{own.rsplit('/', 1)[0]}/{entry.values.file}", up=UP)),
            ("twins", link(f"entries/{own.rsplit('/', 1)[0]}/{entry.values.twins}", up=UP)),
        ],
        "plan": visible(entry.plan.model_dump_json(indent=1), limit=20_000),
        "sample": _sample_texts(checked),
    }


def _cell_difference(paired: Any, cell: Cell | None) -> dict[str, Any]:
    holm = None
    if cell is not None and cell.difference is not None:
        holm = cell.difference.p_holm
    delta = paired.delta
    return {
        "text": "unscored" if delta is None else signed(delta, _unit(paired.unit)),
        "interval": "" if paired.ci95 is None else _interval(paired.ci95, paired.unit),
        "baseline": paired.baseline,
        "p": p_value(paired.p),
        "p_holm": p_value(holm),
        "verdict": _verdict(delta or 0.0, holm, paired.higher_is_better),
    }


def _falls(checked: Checked, columns: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Differences to the twin by prompt, for image metrics that have a twin."""
    values, entry = checked.values, checked.entry
    falls = []
    for paired in entry.paired:
        name = paired.metric
        facts = entry.metrics.get(name)
        if paired.baseline != "twin" or facts is None or facts.kind != "image":
            continue
        if paired.unit == "predictions" or name not in columns:
            continue
        treated = series_of(entry, values, name) or []
        twins = values.numbers(name, "twin")
        sums: dict[int, list[float]] = {}
        for cluster, a, b in zip(values.clusters, treated, twins, strict=True):
            if a is not None and b is not None:
                sums.setdefault(cluster, []).append(a - b)
        means = [sum(found) / len(found) for found in sums.values()]
        better = entry.metrics[name].higher_is_better
        gained = sum((m > 0) == (better is not False) and m != 0 for m in means)
        lost = sum(m != 0 for m in means) - gained
        said = f"{gained} of {len(means)} prompts gain, {lost} lose"
        falls.append(
            {
                "name": metric_name(name),
                "said": said,
                "svg": figures.waterfall(
                    means, higher_is_better=better, label=f"{metric_name(name)}: {said}"
                ),
                "top": signed(max(means, default=0.0), paired.unit),
                "bottom": signed(min(means, default=0.0), paired.unit),
            }
        )
    return falls


def _others(
    group: Group,
    row: Row,
    own: str,
    rankings: Mapping[str, Ranking],
    columns: Mapping[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    """This entry against each other one, in every ranked column."""
    found = []
    for other in group.rows:
        if other.entry == row.entry:
            continue
        path = other.entry.removeprefix("entries/")
        cells = []
        for name, ranking in rankings.items():
            pair = next((p for p in ranking.pairs if {p.first, p.second} == {own, path}), None)
            if pair is None:
                cells.append({"text": "unscored", "p": "", "verdict": "cannot tell"})
                continue
            sign = 1.0 if pair.first == own else -1.0
            column: Column = columns[name]["column"]
            delta = None if pair.contrast.delta is None else sign * pair.contrast.delta
            verdict = _verdict(delta or 0.0, pair.p_holm, column.higher_is_better)
            cells.append(
                {
                    "text": "unscored" if delta is None else signed(delta, column.unit),
                    "p": p_value(pair.p_holm),
                    "verdict": verdict,
                }
            )
        found.append(
            {
                "title": visible(other.title, limit=MAX_TITLE),
                "href": link(other.page, up=UP),
                "cells": cells,
            }
        )
    return found


def _sample_texts(checked: Checked, *, count: int = 5) -> list[tuple[str, str]]:
    """A few prompts with what the method wrote, where texts may be shown."""
    values = checked.values
    if values.treatments is None or values.prompts is None:
        return []
    shown: dict[str, str] = {}
    for prompt, treatment in zip(values.prompts, values.treatments, strict=True):
        shown.setdefault(prompt, treatment.negative_text())
        if len(shown) == count:
            break
    return [(visible(p, limit=300), visible(n, limit=400)) for p, n in shown.items()]
