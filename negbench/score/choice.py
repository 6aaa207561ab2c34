"""Which metrics score given pictures: a benchmark's, as far as its weights are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from negbench.errors import MissingError
from negbench.metrics.base import Metric
from negbench.plan import MINIATURE, resolve_metrics
from negbench.protocols import Benchmark, benchmark_names, load_benchmark
from negbench.score.pairing import Picture
from negbench.types import Ref

REAL = "npdb-quality"
"""The benchmark whose metrics read photographs and paintings."""


@dataclass
class Chosen:
    """Metrics that can be had, and what a reader should know of the choice.

    Attributes:
        bench: the benchmark that they belong to.
        metrics: by name, built and checked.
        refs: their identities.
        left_out: name -> why it is not among them.
        notes: for the record.
    """

    bench: Benchmark
    metrics: dict[str, Metric] = field(default_factory=dict)
    refs: dict[str, Ref] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def choose_metrics(
    pictures: Sequence[Picture], *, metrics_of: str | None, names: Sequence[str] | None
) -> Chosen:
    """The metrics asked for, or those that fit the pictures.

    Without a choice of the user's: pictures that negbench exported have the metrics of their
    benchmark; all others those for real pictures, as far as weights are at hand.

    Raises:
        MissingError: weights of a metric that was asked for are not at hand, or none are.
        UnknownNameError: no such metric or benchmark.
    """
    chosen = Chosen(load_benchmark(metrics_of or _own(pictures) or REAL))
    if names or metrics_of is not None:
        chosen.metrics, chosen.refs = resolve_metrics(chosen.bench, names)
    else:
        for name in chosen.bench.metrics:
            try:
                metrics, refs = resolve_metrics(chosen.bench, [name])
            except MissingError as error:
                chosen.left_out[name] = str(error)
                continue
            chosen.metrics |= metrics
            chosen.refs |= refs
    if chosen.bench.generator == MINIATURE and _foreign(pictures):
        chosen.notes.append(
            f"the networks of {chosen.bench.name} know the miniature's drawn world only; of other "
            "pictures their scores say little"
        )
    return chosen


def nothing_left(chosen: Chosen, *, paired: bool) -> MissingError:
    """The error where no metric can be computed."""
    reasons = "; ".join(dict.fromkeys(chosen.left_out.values()))
    pairs = "" if paired else "there are no pairs, so distances to the twin cannot be had; "
    return MissingError(
        f"no metric can be computed: {pairs}{reasons or 'all need twins'}; the miniature's own "
        "networks are at hand, but know its drawn world only and are not used on other pictures "
        "unless you say --metrics-of miniature-quality"
    )


def _own(pictures: Sequence[Picture]) -> str | None:
    """The shipped benchmark whose run all pictures were exported from, if there is one."""
    names = {p.known.mark.benchmark if p.known.mark else None for p in pictures}
    if len(names) != 1:
        return None
    name = (names.pop() or "").partition("@")[0].removesuffix("+prompts")
    return name if name in benchmark_names() else None


def _foreign(pictures: Sequence[Picture]) -> bool:
    own = _own(pictures)
    return own is None or load_benchmark(own).generator != MINIATURE
