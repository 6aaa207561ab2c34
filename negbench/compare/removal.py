"""The removal protocol's numbers of single triples, so that two runs can be paired on them."""

from __future__ import annotations

from collections.abc import Sequence

from negbench.compare.same import Shared
from negbench.protocols.removal import PRESENCE, present
from negbench.record import Record, Sample

NUMBERS = ("net_removal", "rsr", "reverse_activation")
"""Those that are means over triples; ratios and medians of two runs are not compared."""


def removal_values(
    metric: str, pair: Shared, record: Record
) -> tuple[list[list[float | None]], list[str]] | None:
    """What each triple adds to `metric` in both runs, and its prompt.

    Args:
        metric: one of `NUMBERS`.
        pair: shared samples; the twins of both runs are the same request.
        record: a run, for the protocol's threshold.

    Returns:
        Two aligned lists, over the triples whose twin shows the concept (for reverse activation:
        does not show it), and their prompts; None if the runs have no presence scores.
    """
    threshold = record.plan.benchmark.params.get("threshold")
    if not isinstance(threshold, (int, float)) or PRESENCE not in record.metrics:
        return None
    wanted = metric != "reverse_activation"
    chosen = [
        (one, two)
        for one, two in zip(pair.first, pair.second, strict=True)
        if present(one, "twin", threshold=threshold) is wanted
        and present(two, "twin", threshold=threshold) is wanted
    ]
    sides = [
        [_value(metric, sample, threshold=float(threshold)) for sample in side]
        for side in ([one for one, _ in chosen], [two for _, two in chosen])
    ]
    return sides, _prompts([one for one, _ in chosen])


def _prompts(samples: Sequence[Sample]) -> list[str]:
    return [sample.prompt for sample in samples]


def _value(metric: str, sample: Sample, *, threshold: float) -> float | None:
    treated = present(sample, "treated", threshold=threshold)
    if treated is None:
        return None
    if metric == "reverse_activation":
        return float(treated)
    if metric == "rsr":
        return float(not treated)
    if "placebo" not in sample.arms:
        return None
    placebo = present(sample, "placebo", threshold=threshold)
    return None if placebo is None else float(not treated) - float(not placebo)
