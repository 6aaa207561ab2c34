"""Every estimate of an entry, computed again from its own values by the code that made it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from negbench.errors import NegbenchError
from negbench.leaderboard.entry import MetricFacts
from negbench.leaderboard.values import Values
from negbench.metrics.base import ImageMetric, Item, Metric, SetMetric
from negbench.protocols.benchmark import RemovalSpec
from negbench.record import ImageResult, Plan, Sample
from negbench.summary import RunSummary, summarise
from negbench.types import Estimate, PairedDifference, Ref, Score, Treatment

if TYPE_CHECKING:
    from negbench.store import FeatureStore

RELATIVE, ABSOLUTE = 1e-9, 1e-12
"""Between two machines only the rounding of sums differs."""


class Claims(Protocol):
    """What an entry and a record have in common."""

    @property
    def estimates(self) -> Sequence[Estimate]:
        """Of the treated images."""

    @property
    def twin_estimates(self) -> Sequence[Estimate]:
        """Of their twins."""

    @property
    def paired(self) -> Sequence[PairedDifference]:
        """Of both."""


class _Declared(ImageMetric):
    """A metric that is not installed here: mean, share and bounds need no more than its facts."""

    def score(self, items: Sequence[Item]) -> list[Score]:
        raise NotImplementedError


def facts_of(metric: Metric, *, ref: Ref) -> MetricFacts:
    """What an entry says of a metric whose identity is `ref`."""
    bounds: Any = None
    if metric.bounds is not None:
        bounds = tuple(end if math.isfinite(end) else None for end in metric.bounds)
    return MetricFacts(
        ref=ref,
        kind="set" if isinstance(metric, SetMetric) else "image",
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        needs_twin=metric.needs_twin,
        bounds=bounds,
    )


def without_weights(name: str, ref: Ref) -> Metric:
    """The installed metric of that name with the parameters of `ref`; it can only summarise.

    Raises:
        NegbenchError: it is not installed, or does not take these parameters.
    """
    from negbench.metrics import metrics
    from negbench.params import build_config

    cls = metrics.get(name)
    own = set(cls.Config.model_fields) - set(cls.network_fields)
    params = {key: value for key, value in ref.params.items() if key in own}
    metric: Metric = cls(build_config(cls.Config, params, owner=f"metric {name}"))
    return metric


def metric_of(name: str, facts: MetricFacts) -> Metric | None:
    """A metric that can summarise values; it needs no weights.

    Returns:
        None for a set metric that is not installed here: nothing else knows its formula.

    Raises:
        NegbenchError: the entry's facts are not those of the installed metric.
    """
    from negbench.metrics import metrics

    if name not in metrics:
        return None if facts.kind == "set" else _declared(facts)
    metric = without_weights(name, facts.ref)
    kind = "set" if isinstance(metric, SetMetric) else "image"
    for key, installed in (
        ("version", metric.version),
        ("kind", kind),
        ("unit", metric.unit),
        ("higher_is_better", metric.higher_is_better),
        ("needs_twin", metric.needs_twin),
    ):
        told = facts.ref.version if key == "version" else getattr(facts, key)
        if told != installed:
            raise NegbenchError(
                f"metric {name}: {key} is {told!r} in the entry and {installed!r} in this version"
            )
    return metric


def _declared(facts: MetricFacts) -> Metric:
    metric = _Declared()
    low, high = facts.bounds or (None, None)
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    for key, value in {
        "unit": facts.unit,
        "higher_is_better": facts.higher_is_better,
        "needs_twin": facts.needs_twin,
        "bounds": None if facts.bounds is None else ends,
    }.items():
        setattr(metric, key, value)
    return metric


class _ByImage:
    """Rows of a set metric by the name that `samples_of` gives an image."""

    def __init__(self, values: Values, metric: str) -> None:
        self.rows = {side: values.rows[side, metric] for side in values.sides}

    def __getitem__(self, image: str) -> Any:
        side, _, at = image.partition(":")
        return self.rows[side][int(at)]


def samples_of(values: Values) -> list[Sample]:
    """Samples with all that a summary reads; prompts are their clusters' numbers."""
    names = values.clusters_as_text()
    columns = {
        side: {name: scores for (where, name), scores in values.scores.items() if where == side}
        for side in values.sides
    }

    def result(side: str, at: int) -> ImageResult:
        return ImageResult(
            key=values.keys[side][at],
            image=f"{side}:{at}",
            evaluations=values.evaluations[side][at],
            scores={name: scores[at] for name, scores in columns[side].items()},
        )

    return [
        Sample(
            case=case,
            replicate=replicate,
            seed=values.seeds[at],
            prompt=names[at],
            tags=values.tags[at],
            treatment=Treatment(prompt=names[at]),
            treated=result("treated", at),
            twin=result("twin", at),
            arms={side: result(side, at) for side in values.sides[2:]},
        )
        for at, (case, replicate) in enumerate(values.ids)
    ]


def recompute(
    plan: Plan, metrics: Mapping[str, MetricFacts], values: Values
) -> tuple[RunSummary, list[str]]:
    """Estimates from values, and names of metrics nobody here can compute."""
    known: dict[str, Metric] = {}
    unknown: list[str] = []
    for name, facts in metrics.items():
        metric = metric_of(name, facts)
        if metric is None:
            unknown.append(name)
        else:
            known[name] = metric
    rows = {name: _ByImage(values, name) for name in known if metrics[name].kind == "set"}
    stores = cast("Mapping[str, FeatureStore]", rows)
    return summarise(known, samples_of(values), stores, removal=removal_of(plan)), unknown


def removal_of(plan: Plan) -> RemovalSpec | None:
    """How a removal benchmark counts, or None."""
    params = plan.benchmark.params
    if params.get("protocol") != "removal":
        return None
    return RemovalSpec.model_validate(
        {name: params[name] for name in RemovalSpec.model_fields if name in params}
    )


def differences(claimed: Claims, found: RunSummary, *, skip: Sequence[str] = ()) -> Iterator[str]:
    """What is claimed otherwise than the values say, one line each.

    Args:
        claimed: an entry or a record.
        found: what `recompute` gave.
        skip: metrics nobody here can compute.
    """
    for part in ("estimates", "twin_estimates", "paired"):
        told = {_key(item): item for item in getattr(claimed, part)}
        if len(told) != len(getattr(claimed, part)):
            yield f"{part}: a metric stands twice"
        follows = {_key(item): item for item in getattr(found, part)}
        for key in sorted({*told, *follows}):
            name = " against ".join(key)
            if key[0] in skip:
                continue
            if key not in told:
                yield f"{part}: {name} is missing"
            elif key not in follows:
                yield f"{part}: {name} does not follow from the values"
            else:
                for field, value in told[key].model_dump().items():
                    other = getattr(follows[key], field)
                    if not same(value, other):
                        yield f"{part}: {name}: {field} is {value}, its values give {other}"


def _key(item: Estimate | PairedDifference) -> tuple[str, ...]:
    return (item.metric, item.baseline) if isinstance(item, PairedDifference) else (item.metric,)


def same(first: Any, second: Any) -> bool:
    """Equal up to rounding, in numbers, tuples and dicts of them."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return math.isclose(first, second, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    return bool(first == second)
