"""Run a rule at many settings on a removal benchmark, beside plain guidance at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue

from negbench.errors import ConfigError
from negbench.evaluate import evaluate
from negbench.files import write_atomic, write_json
from negbench.plan import Resolved, make_plan
from negbench.progress import Progress, silent
from negbench.protocols import load_benchmark
from negbench.protocols.removal import HEADLINE, present
from negbench.protocols.removal_table import rule_name
from negbench.record import Record, safe_name
from negbench.types import Estimate, canonical_json, sha256_hex

if TYPE_CHECKING:
    from negbench.record import Sample

MAX_SETTINGS = 64


class Point(BaseModel):
    """One setting: what it removes and what it costs.

    Attributes:
        value: of the swept parameter; None for the reference.
        removal: net removal (rsr minus the placebo's).
        damage: distance to the twin, whole picture; 0 is the same picture.
        pareto: no other setting removes more at no more damage.
    """

    model_config = ConfigDict(frozen=True)

    value: JsonValue
    rule: str
    removal: Estimate
    rsr: Estimate
    placebo: Estimate
    reverse_activation: Estimate
    damage: float | None
    damage_ci95: tuple[float, float] | None
    pareto: bool
    plan_digest: str
    folder: str


class Matched(BaseModel):
    """Net removal of the rule where it does a given damage, interpolated between settings.

    Attributes:
        damage: where; the reference's own unless another was asked for.
        removal: of the rule there, with its interval by prompt.
        minus_reference: the same minus the reference's net removal.
    """

    model_config = ConfigDict(frozen=True)

    damage: float | None
    removal: float | None
    removal_ci95: tuple[float, float] | None
    minus_reference: float | None
    minus_reference_ci95: tuple[float, float] | None
    note: str | None = None


class Sweep(BaseModel):
    """A rule at many settings, the reference, and both at matched damage."""

    model_config = ConfigDict(frozen=True)

    benchmark: str
    method: str
    key: str
    damage_by: str
    points: list[Point]
    reference: Point
    matched: Matched
    n_prompts: int
    folder: str


@dataclass(frozen=True)
class Planned:
    """A checked sweep.

    Attributes:
        resolved: all settings as jobs of one plan, the reference last, equal ones once.
        order: for each value, then for the reference, the job's number.
    """

    resolved: Resolved
    key: str
    values: tuple[str, ...]
    order: tuple[int, ...]
    at: float | None


def parse_over(text: str) -> tuple[str, tuple[str, ...]]:
    """``stop=8,12,16`` to a key and its values.

    Raises:
        ConfigError: no key, no value, one twice, or too many.
    """
    key, equals, rest = text.partition("=")
    values = tuple(item.strip() for item in rest.split(",") if item.strip())
    if not equals or not key.strip() or not values:
        raise ConfigError(f"--over {text!r} is not key=value,value; write for example stop=8,12,16")
    if len(set(values)) < len(values):
        raise ConfigError(f"--over {key}: a value stands there twice; give each once")
    if len(values) > MAX_SETTINGS:
        raise ConfigError(f"--over {key}: {len(values)} values; at most {MAX_SETTINGS}")
    return key.strip(), values


def plan_sweep(
    *,
    over: str,
    benchmark: str = "miniature-removal",
    method: str = "concept",
    guidance: str | None = None,
    guidance_params: Mapping[str, Any] | None = None,
    method_params: Mapping[str, Any] | None = None,
    at: float | None = None,
    **options: Any,
) -> Planned:
    """Check every setting before the first pixel.

    Args:
        over: ``key=v1,v2,...``: a parameter of the rule, ``scale`` (of the treatment alone), or
            ``p.key`` for a parameter of the method.
        benchmark: a removal benchmark, or a TOML file of one.
        method: one method.
        guidance: the rule; None for plain guidance, with ``scale`` or ``p.key`` only.
        guidance_params: its other parameters.
        method_params: the method's parameters.
        at: damage at which to compare; None for the reference's.
        options: as for `make_plan`.

    Raises:
        ConfigError: this is no removal benchmark, or nothing of that name can be swept.
        NegbenchError: whatever would fail later.
    """
    key, values = parse_over(over)
    in_method = key.startswith("p.")
    if guidance is None and key != "scale" and not in_method:
        raise ConfigError(f"--over {key} needs --guidance; or sweep scale, or p.<parameter>")
    bench = load_benchmark(benchmark)
    if bench.removal is None:
        raise ConfigError(
            f"benchmark {bench.name} asks no question of removal; take -b miniature-removal or "
            "concepts-removal"
        )
    resolved: Resolved | None = None
    order: list[int] = []
    for value in (*values, None):
        kind, params, own = (
            guidance or "cfg",
            dict(guidance_params or {}),
            dict(method_params or {}),
        )
        if value is None:
            kind, params = "cfg", {}
        elif in_method:
            own[key.removeprefix("p.")] = value
        else:
            params[key] = value
        setting = make_plan(
            benchmark=benchmark,
            methods=[method],
            method_params=own,
            guidance=kind,
            guidance_params=params,
            **options,
        )
        _check(setting)
        if resolved is None:
            resolved = setting
        [job] = setting.jobs
        digests = [known.plan.digest() for known in resolved.jobs]
        if job.plan.digest() in digests:
            order.append(digests.index(job.plan.digest()))
        else:
            resolved.jobs.append(job)
            order.append(len(resolved.jobs) - 1)
    assert resolved is not None
    return Planned(resolved, key, values, tuple(order), at)


def _check(setting: Resolved) -> None:
    spec = setting.benchmark.removal
    assert spec is not None
    for name in ("presence", spec.distance):
        if name not in setting.metrics:
            raise ConfigError(f"a sweep needs the metric {name}; leave --metric out or add it")
    distance = setting.metrics[spec.distance]
    if distance.needs_rival:
        raise ConfigError(
            f"a sweep needs a distance, and {spec.distance} is none; take ssim or lpips"
        )
    if distance.higher_is_better and (
        distance.bounds is None or distance.bounds[1] == float("inf")
    ):
        raise ConfigError(f"distance {spec.distance} has no largest value, so damage has no zero")


def run_sweep(planned: Planned, *, progress: Progress = silent, command: str = "") -> Sweep:
    """Draw and score all settings, then write ``curve.csv``, ``curve.png`` and ``sweep.json``.

    Raises:
        NegbenchError: as `evaluate`; what was drawn is kept.
    """
    from negbench.sweep.curve import matched, pareto
    from negbench.sweep.plot import draw_curve
    from negbench.sweep.table import as_csv

    resolved = planned.resolved
    spec = resolved.benchmark.removal
    assert spec is not None
    done = evaluate(resolved, progress=progress, command=command)
    records = [done[number] for number in planned.order]
    best = _zero(resolved, spec.distance)
    damage = [_damage(record, spec.distance, best) for record in records]
    net = [_estimate(record, HEADLINE).value for record in records]
    front = pareto([value for value, _ in damage], net)
    points = [
        Point(
            value=value,
            rule=rule_name(record.plan.treatment_guidance),
            removal=_estimate(record, HEADLINE),
            rsr=_estimate(record, "rsr"),
            placebo=_estimate(record, "rsr_placebo"),
            reverse_activation=_estimate(record, "reverse_activation"),
            damage=cost,
            damage_ci95=ends,
            pareto=best_of_all,
            plan_digest=record.plan_digest,
            folder=str(record.folder),
        )
        for value, record, (cost, ends), best_of_all in zip(
            (*planned.values, None), records, damage, front, strict=True
        )
    ]
    totals = _totals(records, threshold=spec.threshold, distance=spec.distance, best=best)
    removal, gain = matched(totals, settings=len(planned.values), at=planned.at)
    notes = list(dict.fromkeys(note for note in (removal.note, gain.note) if note))
    plan = records[0].plan
    digest = sha256_hex(canonical_json([record.plan_digest for record in records]))[:12]
    folder = (
        resolved.out
        / safe_name(f"{plan.benchmark.name}@{plan.benchmark.version}")
        / safe_name(f"sweep-{records[0].label}-{planned.key}-{digest}")
    )
    sweep = Sweep(
        benchmark=f"{plan.benchmark.name}@{plan.benchmark.version}",
        method=records[0].label,
        key=planned.key,
        damage_by=spec.distance if best is None else f"{best:g} - {spec.distance}",
        points=points[:-1],
        reference=points[-1],
        matched=Matched(
            damage=damage[-1][0] if planned.at is None else planned.at,
            removal=removal.value,
            removal_ci95=removal.ci95,
            minus_reference=gain.value,
            minus_reference_ci95=gain.ci95,
            note="; ".join(notes) or None,
        ),
        n_prompts=len(totals),
        folder=str(folder),
    )
    write_atomic(folder / "curve.csv", as_csv(sweep).encode("utf-8"))
    write_json(folder / "sweep.json", sweep.model_dump(mode="json"))
    draw_curve(sweep, folder / "curve.png")
    return sweep


def _estimate(record: Record, name: str) -> Estimate:
    return next(estimate for estimate in record.estimates if estimate.metric == name)


def _zero(resolved: Resolved, distance: str) -> float | None:
    """The metric's value where nothing was changed, if more is closer; None if less is closer."""
    metric = resolved.metrics[distance]
    if not metric.higher_is_better:
        return None
    assert metric.bounds is not None
    return metric.bounds[1]


def _cost(score: float, best: float | None) -> float:
    return score if best is None else best - score


def _damage(
    record: Record, distance: str, best: float | None
) -> tuple[float | None, tuple[float, float] | None]:
    estimate = _estimate(record, distance)
    if estimate.value is None:
        return None, None
    if estimate.ci95 is None:
        return _cost(estimate.value, best), None
    low, high = sorted(_cost(end, best) for end in estimate.ci95)
    return _cost(estimate.value, best), (low, high)


def _totals(
    records: Sequence[Record], *, threshold: float, distance: str, best: float | None
) -> Any:
    """Sums by prompt as `negbench.sweep.curve.matched` takes them."""
    import numpy as np

    by_record = [
        _sums(r.samples(), threshold=threshold, distance=distance, best=best) for r in records
    ]
    prompts = sorted({prompt for sums in by_record for prompt in sums})
    return np.array(
        [[x for sums in by_record for x in sums.get(prompt, (0.0,) * 4)] for prompt in prompts]
    )


def _sums(
    samples: Sequence[Sample], *, threshold: float, distance: str, best: float | None
) -> dict[str, list[float]]:
    sums: dict[str, list[float]] = {}
    for sample in samples:
        row = sums.setdefault(sample.prompt, [0.0, 0.0, 0.0, 0.0])
        seen = {
            side: present(sample, side, threshold=threshold)
            for side in ("twin", "treated", "placebo")
        }
        treated, placebo = seen["treated"], seen["placebo"]
        if seen["twin"] and treated is not None and placebo is not None:
            row[0] += float(placebo) - float(treated)
            row[1] += 1.0
        score = sample.treated.scores[distance].value
        if score is not None:
            row[2] += _cost(score, best)
            row[3] += 1.0
    return sums
