"""Runs of a report against each other, metric by metric, as `negbench compare` has them."""

from __future__ import annotations

from collections.abc import Sequence

from negbench.compare.compare import compare_runs
from negbench.compare.comparison import Comparison
from negbench.errors import NegbenchError
from negbench.numbers import p_value, signed_interval
from negbench.record import Record
from negbench.report.charts import Chart, direction, make_bar, subtitle, unit_of
from negbench.report.scale import Scale
from negbench.report.text import visible
from negbench.report.words import about_metric

MAX_RUNS = 8
"""Runs up to which all pairs are shown."""


def between(records: Sequence[Record]) -> tuple[list[Chart], int, str | None]:
    """Charts of all pairs of runs, the number of tests, and a note where there are none.

    Args:
        records: runs on the same cases.
    """
    if len(records) < 2:
        return [], 0, None
    if len(records) > MAX_RUNS:
        return [], 0, f"more than {MAX_RUNS} runs: negbench compare shows all pairs"
    try:
        found = compare_runs(records)
    except NegbenchError as error:
        return [], 0, str(error)
    rows = [row for row in found.comparisons if row.delta is not None and row.verdict != "same"]
    charts = [
        _chart([row for row in rows if row.metric == metric])
        for metric in dict.fromkeys(row.metric for row in rows)
    ]
    return charts, found.family, None


def _chart(rows: Sequence[Comparison]) -> Chart:
    about = rows[0]
    scale = Scale.over((end for row in rows for end in (row.delta, *(row.ci95 or ()))), zero=True)
    bars = [
        make_bar(
            f"{visible(row.first, limit=40)} − {visible(row.second, limit=40)}",
            row.delta,
            row.ci95,
            scale,
            text=signed_interval(row.delta, row.ci95, row.unit),
            verdict=_verdict(row),
            detail=subtitle(f"n {row.n:,}", f"Holm {p_value(row.p_holm)}" if row.p_holm else ""),
            note=_outlook(row),
        )
        for row in rows
    ]
    gain = "gain over the twin" if about.of == "gain" else ""
    return Chart(
        metric=visible(about.metric, limit=60),
        subtitle=subtitle(gain, unit_of(about.unit), direction(about.higher_is_better)),
        about=about_metric(about.metric),
        zero=scale.x(0.0),
        ticks=scale.ticks(),
        bars=bars,
    )


def _verdict(row: Comparison) -> str:
    if row.verdict in ("better", "worse"):
        return row.verdict
    return "cannot tell" if row.verdict in ("cannot tell", "leaning") else ""


def _outlook(row: Comparison) -> str:
    if row.verdict not in ("cannot tell", "leaning") or row.prompts_needed is None:
        return ""
    if row.prompts_needed <= row.n_prompts:
        return ""
    return f"about {row.prompts_needed:,} prompts would tell, if the difference is as measured"
