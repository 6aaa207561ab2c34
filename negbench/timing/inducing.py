r"""What the negative does to the prediction of the prompt: inducing measure, momentum, alignment.

As the code behind Ban et al. (arXiv 2406.02965) computes it, on the predicted noise of the whole
latent as one vector:

    P_b(a) = <a, b> / <b, b> b
    D^(t) = |P_{e-}(e+)| with the negative in every call  -  |P_{e-}(e+)| without a negative

A positive D^(t) was read as the negative bringing its own concept into the prediction of the
prompt. Two controls that the code lacks: D of an unrelated concept on its own way (``placebo``),
and the change of |P_{empty}(e+)| on the concept's way (``empty``), which knows nothing of the
concept.

The momentum is cos(e+(t), e+(t+1)) with the negative in every call; its control is the same on the
twin's way, where there is no negative to carry on. The alignment is cos(e+, e-) call by call,
beside cos(e+, e of the empty prompt) and cos(e+, e of an unrelated concept).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from negbench.generators.tracing import Trace
from negbench.stats import mean_summary, paired_contrast
from negbench.timing.curves import groups, prompts_of
from negbench.timing.plan import Resolved
from negbench.timing.tables import as_json, curve_row, write_csv
from negbench.timing.traces import EMPTY, NEGATIVE, PLACEBO, POSITIVE, UnitTraces

Curve = npt.NDArray[np.float64]


def projection(trace: Trace, onto: int) -> Curve:
    """|P_{e_onto}(e+)| = |<e+, e_onto>| / |e_onto| at each call, (calls,)."""
    length = np.sqrt(trace.gram[:, onto, onto])
    return np.asarray(np.abs(trace.gram[:, POSITIVE, onto]) / length)


def cosine(trace: Trace, other: int) -> Curve:
    """cos(e+, e_other) at each call, (calls,)."""
    gram = trace.gram
    lengths = np.sqrt(gram[:, POSITIVE, POSITIVE] * gram[:, other, other])
    return np.asarray(gram[:, POSITIVE, other] / lengths)


def momentum(trace: Trace) -> Curve:
    """cos(e+(t), e+(t+1)), (calls - 1,)."""
    squares = trace.gram[:, POSITIVE, POSITIVE]
    return np.asarray(trace.lag[:, POSITIVE] / np.sqrt(squares[:-1] * squares[1:]))


def inducing_curves(one: UnitTraces) -> dict[str, Curve]:
    """D^(t) of the concept and of both controls."""
    ways = one.by_way
    return {
        "concept": projection(ways["concept"], NEGATIVE) - projection(ways["twin"], NEGATIVE),
        "placebo": projection(ways["placebo"], PLACEBO) - projection(ways["twin"], PLACEBO),
        "empty": projection(ways["concept"], EMPTY) - projection(ways["twin"], EMPTY),
    }


def momentum_curves(one: UnitTraces) -> dict[str, Curve]:
    """The momentum with the concept, without a negative, and with an unrelated concept."""
    return {way: momentum(one.by_way[way]) for way in ("concept", "twin", "placebo")}


def alignment_curves(one: UnitTraces) -> dict[str, Curve]:
    """Cosine of the prompt's noise to the concept's, the empty prompt's, an unrelated concept's."""
    way = one.by_way["concept"]
    return {
        "concept": cosine(way, NEGATIVE),
        "empty": cosine(way, EMPTY),
        "placebo": cosine(way, PLACEBO),
    }


def measure_inducing(resolved: Resolved, traced: Sequence[UnitTraces]) -> dict[str, Any]:
    """Write ``inducing.csv`` and ``inducing.png``; return D over the first third of the calls."""
    from negbench.timing.plots import draw_lines

    found = [inducing_curves(one) for one in traced]
    rows = _rows(resolved, traced, found)
    third = slice(1, max(2, resolved.calls // 3))
    early = {arm: [float(c[arm][third].mean()) for c in found] for arm in found[0]}
    prompts = prompts_of(traced)
    picture = draw_lines(
        resolved.folder / "inducing.png",
        rows,
        title="Inducing measure D(t): change of the prompt's noise along the negative's",
        ylabel="change of projected length",
        labels={"concept": "concept as negative", "placebo": "unrelated negative",
                "empty": "along the empty prompt's noise"},
        zero=True,
    )  # fmt: skip
    return {
        "calls": [third.start, third.stop],
        "mean": {arm: as_json(mean_summary(own, prompts)) for arm, own in early.items()},
        "concept_minus_placebo": as_json(
            paired_contrast(early["concept"], early["placebo"], prompts)
        ),
        "concept_minus_empty": as_json(paired_contrast(early["concept"], early["empty"], prompts)),
        "files": [write_csv(resolved.folder / "inducing.csv", rows), picture],
    }


def measure_momentum(resolved: Resolved, traced: Sequence[UnitTraces]) -> dict[str, Any]:
    """Write momentum and alignment as CSV and PNG; return means and differences to controls."""
    from negbench.timing.plots import draw_lines

    summary: dict[str, Any] = {}
    files = []
    prompts = prompts_of(traced)
    for name, curves, control, title, ylabel, labels in (
        (
            "momentum",
            [momentum_curves(one) for one in traced],
            "twin",
            "Momentum: cosine of the prompt's noise at neighbouring calls",
            "cos(e+(t), e+(t+1))",
            {"concept": "concept as negative", "twin": "no negative (control)",
             "placebo": "unrelated negative (control)"},
        ),
        (
            "alignment",
            [alignment_curves(one) for one in traced],
            "empty",
            "Alignment of the prompt's noise, concept as negative in every call",
            "cosine",
            {"concept": "with the concept's noise", "empty": "with the empty prompt's (control)",
             "placebo": "with an unrelated concept's (control)"},
        ),
    ):  # fmt: skip
        rows = _rows(resolved, traced, curves)
        files.append(write_csv(resolved.folder / f"{name}.csv", rows))
        files.append(
            draw_lines(
                resolved.folder / f"{name}.png", rows, title=title, ylabel=ylabel, labels=labels
            )
        )
        means = {arm: [float(c[arm].mean()) for c in curves] for arm in curves[0]}
        lowest = {arm: [float(c[arm].min()) for c in curves] for arm in curves[0]}
        summary[name] = {
            "mean": {arm: as_json(mean_summary(own, prompts)) for arm, own in means.items()},
            "lowest": {arm: as_json(mean_summary(own, prompts)) for arm, own in lowest.items()},
            f"concept_minus_{control}": as_json(
                paired_contrast(means["concept"], means[control], prompts)
            ),
            "concept_minus_placebo": as_json(
                paired_contrast(means["concept"], means["placebo"], prompts)
            ),
        }
    return {**summary, "files": files}


def _rows(
    resolved: Resolved, traced: Sequence[UnitTraces], curves: Sequence[dict[str, Curve]]
) -> list[dict[str, Any]]:
    """A row for each arm, group and call: mean over units with its interval."""
    place = {id(one): i for i, one in enumerate(traced)}
    rows = []
    for arm in curves[0]:
        for group, members in groups(resolved, traced):
            values = np.stack([curves[place[id(one)]][arm] for one in members])
            prompts = prompts_of(members)
            for call in range(values.shape[1]):
                summary = mean_summary(values[:, call].tolist(), prompts)
                rows.append(
                    curve_row(summary, arm=arm, group=group, call=call, calls=resolved.calls)
                )
    return rows
