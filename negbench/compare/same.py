"""Which runs may be compared, and the samples that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from negbench.errors import ConfigError, one_line
from negbench.record import Record, Sample
from negbench.types import Ref

MAX_SHOWN = 3
"""Differences that a refusal names."""


def run_labels(records: Sequence[Record]) -> list[str]:
    """A name for each run: its label, with rule or plan digest where two runs have the same."""
    from negbench.protocols.removal_table import rule_name

    labels = [one_line(record.label, limit=40) for record in records]
    rules = [one_line(rule_name(record.plan.treatment_guidance), limit=40) for record in records]
    digests = [record.plan_digest[:6] for record in records]
    for form, more in (("{}, {}", rules), ("{} ({})", digests)):
        double = [labels.count(label) > 1 for label in labels]
        labels = [
            form.format(label, extra) if shared else label
            for label, extra, shared in zip(labels, more, double, strict=True)
        ]
    return labels


def check_comparable(records: Sequence[Record], *, metrics: Sequence[str]) -> None:
    """Refuse runs whose difference would not be the method's.

    Runs are comparable if they have the same benchmark and version, the same generator (weights,
    scheduler, steps, size, ...), the same guidance of the twins, and each metric with the same
    version, parameters and weights. Method, guidance rule and number of cases may differ.

    Raises:
        ConfigError: they are not; the line says in what they differ.
    """
    labels = run_labels(records)
    first = records[0]
    for label, record in zip(labels[1:], records[1:], strict=True):
        found = differences(first, record, metrics=metrics)
        if found:
            more = f" and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
            raise ConfigError(
                f"{labels[0]} and {label} may not be compared: {'; '.join(found[:MAX_SHOWN])}{more}"
            )


def differences(first: Record, second: Record, *, metrics: Sequence[str]) -> list[str]:
    """In what two runs differ that makes their numbers incomparable, in words."""
    one, two = first.plan, second.plan
    found = []
    if (one.benchmark.name, one.benchmark.version) != (two.benchmark.name, two.benchmark.version):
        found.append(
            f"benchmark {one.benchmark.name}@{one.benchmark.version} and "
            f"{two.benchmark.name}@{two.benchmark.version}"
        )
    elif one.benchmark.params.get("protocol") != two.benchmark.params.get("protocol"):
        found.append(
            f"protocol {one.benchmark.params.get('protocol')} and "
            f"{two.benchmark.params.get('protocol')}"
        )
    for name in ("threshold", "distance", "placebos"):
        old, new = one.benchmark.params.get(name), two.benchmark.params.get(name)
        if None not in (old, new) and old != new and one.dataset == two.dataset:
            found.append(f"{name} {_short(old)} and {_short(new)}")
    found += _ref_differences("generator", one.generator, two.generator)
    if one.guidance != two.guidance:
        found += [
            f"guidance of the twins: {line}"
            for line in _value_differences(
                one.guidance.model_dump(mode="json"), two.guidance.model_dump(mode="json")
            )
        ]
    for name in metrics:
        a, b = first.metrics.get(name), second.metrics.get(name)
        if a is not None and b is not None:
            found += _ref_differences(f"metric {name}", a, b)
    return found


def _ref_differences(what: str, first: Ref, second: Ref) -> list[str]:
    if first.digest() == second.digest():
        return []
    if first.name != second.name:
        return [f"{what} {_short(first.name)} and {_short(second.name)}"]
    if first.version != second.version:
        return [f"{what} {_short(first.name)} version {first.version} and {second.version}"]
    return [f"{what}: {line}" for line in _value_differences(first.params, second.params)]


def _value_differences(first: Any, second: Any, *, path: str = "") -> list[str]:
    """``path one and other`` for each leaf that differs."""
    if isinstance(first, dict) and isinstance(second, dict):
        lines = []
        for key in sorted({*first, *second}):
            if first.get(key) != second.get(key):
                inner = f"{path}.{key}" if path else str(key)
                lines += _value_differences(first.get(key), second.get(key), path=inner)
        return lines
    return [f"{one_line(path, limit=60)} {_short(first)} and {_short(second)}"]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value[:4]) + "]"
    text = one_line(str(value), limit=80)
    is_digest = len(text) >= 40 and all(c in "0123456789abcdef…" for c in text)
    return text[:12] if is_digest else one_line(text, limit=60)


@dataclass(frozen=True)
class Shared:
    """Samples of two runs that have case, noise and prompt in common, pair by pair.

    Attributes:
        first: samples of the first run, in the order of cases.
        second: the same of the second.
        n_only_first: samples that the second run lacks.
        n_only_second: samples that the first run lacks.
        n_other_twins: pairs whose twins are the same request but not the same pixels.
    """

    first: list[Sample]
    second: list[Sample]
    n_only_first: int
    n_only_second: int
    n_other_twins: int

    @property
    def prompts(self) -> list[str]:
        """The prompt of each pair."""
        return [sample.prompt for sample in self.first]


def shared_samples(
    first: Sequence[Sample], second: Sequence[Sample], *, labels: tuple[str, str]
) -> Shared:
    """Pair the samples of two runs.

    Raises:
        ConfigError: a case has another prompt or seed in each run, or none is shared.
    """
    others = {sample.id: sample for sample in second}
    one, two = [], []
    for sample in first:
        other = others.get(sample.id)
        if other is None:
            continue
        for what, a, b in (
            ("prompt", sample.prompt, other.prompt),
            ("seed", sample.seed, other.seed),
            ("twin", sample.twin.key, other.twin.key),
        ):
            if a != b:
                raise ConfigError(
                    f"{labels[0]} and {labels[1]} may not be compared: case "
                    f"{_short(sample.case)} has {what} {_short(a)} and {_short(b)}"
                )
        one.append(sample)
        two.append(other)
    if not one:
        raise ConfigError(
            f"{labels[0]} and {labels[1]} may not be compared: they share no case and noise"
        )
    return Shared(
        first=one,
        second=two,
        n_only_first=len(first) - len(one),
        n_only_second=len(second) - len(two),
        n_other_twins=sum(a.twin.image != b.twin.image for a, b in zip(one, two, strict=True)),
    )
