r"""Strength of the negative prompt over time, and the critical step.

With A the cross-attention probabilities of head h of layer l at model call t under a text, up to
the latent's size bicubic upsampling, and k the text's token positions,

    E_t = \sum_l \sum_h mean_{k,u,v} [ max(0, up(A_{t,l,h}))^2 ],    r_t = E^-_t / E^+_t

over the cross-attention layers of the down and up blocks, the middle block left out, as the code
behind Ban et al. (arXiv 2406.02965) computes it; the paper's own formula could not be found. All
positions of the context count, begin, end and padding included, so r_t moves by a few percent only.
``words`` is our variant: the mean over k runs over the words of the negative above, those of the
prompt below. ``placebo`` is the control that the code lacks: the same for an unrelated word on the
way of the concept, which shows how much of a curve any word would give. Curves of different texts
lie at very different heights, and a mean curve follows the highest; in the ``relative`` variants
each curve is divided by its own mean over the calls first, so that every case has one vote.

The critical step has no formula either ("For nouns, we find a peak at the 5th step ... For
adjectives, we observe a plateau around the 10th step"). Here, of the mean curve over all cases: the
peak is its largest value, the plateau begins where 90 % of the way from the first value to the
largest is made. No case is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from negbench.generators.tracing import Trace
from negbench.stats import mean_summary
from negbench.timing.plan import Resolved
from negbench.timing.resample import locate, peak, risen
from negbench.timing.tables import numbers, write_csv
from negbench.timing.traces import NEGATIVE, PLACEBO, POSITIVE, UnitTraces

Curve = npt.NDArray[np.float64]


def strength_ratio(trace: Trace, *, negative: int = NEGATIVE, words: bool = False) -> Curve:
    """r_t of a trace, (calls,).

    Args:
        trace: of a picture drawn with the negative in every call.
        negative: which of the watched texts is held against the prompt.
        words: take the texts' own words in place of all positions.
    """

    def mean(place: int) -> Curve:
        strength = trace.strength[:, place]
        if words:
            strength = strength[:, list(trace.words[trace.names[place]])]
        return np.asarray(strength.mean(axis=1))

    return mean(negative) / mean(POSITIVE)


def relative(curve: Curve) -> Curve:
    """A curve over its own mean."""
    return np.asarray(curve / curve.mean())


VARIANTS: dict[str, Callable[[Trace], Curve]] = {
    "authors": strength_ratio,
    "placebo": lambda trace: strength_ratio(trace, negative=PLACEBO),
    "relative": lambda trace: relative(strength_ratio(trace)),
    "placebo_relative": lambda trace: relative(strength_ratio(trace, negative=PLACEBO)),
    "words": lambda trace: strength_ratio(trace, words=True),
    "placebo_words": lambda trace: strength_ratio(trace, negative=PLACEBO, words=True),
    "words_relative": lambda trace: relative(strength_ratio(trace, words=True)),
    "placebo_words_relative": lambda trace: relative(
        strength_ratio(trace, negative=PLACEBO, words=True)
    ),
}
"""Each variant is followed by its control."""


def groups(
    resolved: Resolved, traced: Sequence[UnitTraces]
) -> Iterator[tuple[str, list[UnitTraces]]]:
    """``all``, then each category by itself if there are several."""
    yield "all", list(traced)
    if len(resolved.categories) > 1:
        for name in resolved.categories:
            yield name, [one for one in traced if one.unit.category == name]


def prompts_of(traced: Sequence[UnitTraces]) -> list[str]:
    """The cluster of each unit."""
    return [one.unit.case.prompt for one in traced]


def measure_curves(resolved: Resolved, traced: Sequence[UnitTraces]) -> dict[str, Any]:
    """Write ``curves.csv``, ``critical-steps.csv`` and ``curves.png``; return the summary."""
    from negbench.timing.plots import draw_curves

    rows: list[dict[str, Any]] = []
    places: list[dict[str, Any]] = []
    critical: dict[str, Any] = {}
    for variant, ratio in VARIANTS.items():
        for group, members in groups(resolved, traced):
            values = np.stack([ratio(one.by_way["concept"]) for one in members])
            prompts = prompts_of(members)
            for call in range(values.shape[1]):
                summary = mean_summary(values[:, call].tolist(), prompts)
                rows.append(
                    {
                        "variant": variant,
                        "group": group,
                        "call": call,
                        "fraction": call / resolved.calls,
                        **numbers(summary),
                    }
                )
            for kind, place in (("peak", peak), ("plateau", risen)):
                found = locate(values.tolist(), prompts, place)
                critical.setdefault(variant, {}).setdefault(group, {})[kind] = found.as_json()
                low, high = found.ci95 or (None, None)
                own = place(case_curves(values, members))
                places.append(
                    {
                        "variant": variant,
                        "group": group,
                        "kind": kind,
                        "call": found.value,
                        "low": low,
                        "high": high,
                        "n": found.n,
                        "prompts": found.n_prompts,
                        "median_of_cases": float(np.median(own)),
                        "first_quartile": float(np.quantile(own, 0.25)),
                        "third_quartile": float(np.quantile(own, 0.75)),
                    }
                )
    files = [
        write_csv(resolved.folder / "curves.csv", rows),
        write_csv(resolved.folder / "critical-steps.csv", places),
        draw_curves(resolved.folder / "curves.png", rows, critical, calls=resolved.calls),
    ]
    return {"critical": critical, "files": files}


def case_curves(values: Curve, members: Sequence[UnitTraces]) -> Curve:
    """Mean over the noises of each case, (cases, calls)."""
    ids = [one.unit.case.id for one in members]
    return np.stack(
        [values[[i for i, own in enumerate(ids) if own == name]].mean(axis=0)
         for name in dict.fromkeys(ids)]
    )  # fmt: skip
