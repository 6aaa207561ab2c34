"""Fetch weights before they are needed, for nodes without internet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from negbench.errors import ConfigError
from negbench.params import build_config
from negbench.protocols import Benchmark, load_benchmark

MINIATURE = "miniature"


def prefetch(
    names: Sequence[str] = (),
    *,
    benchmark: str | None = None,
    generator: str | None = None,
    method: str | None = None,
    method_params: Mapping[str, Any] | None = None,
    judge: str | None = None,
    judge_params: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, str]]:
    """Fetch what is named, into the caches that runs read.

    Args:
        names: weights or metrics by name, for example ``inception-v3``, ``laion-v2``,
            ``clip:ViT-L-14/openai``, ``aesthetic``, ``real-pictures``.
        benchmark: all that its metrics and its default generator need.
        generator: a hub repo ``org/name[@revision]``.
        method: what a method needs, for example a checkpoint of ``negopt``.
        method_params: the method's parameters.
        judge: what a judge needs, for example ``detector``.
        judge_params: the judge's parameters.

    Yields:
        What was asked for and where it lies now, also if it was there before.

    Raises:
        MissingError: no connection, or the server has not got it.
    """
    from negbench.metrics import weights

    wanted = list(names)
    generators = [generator] if generator else []
    judges = [(judge, judge_params or {})] if judge else []
    if benchmark is not None:
        bench = load_benchmark(benchmark)
        wanted += metric_weights(bench)
        if bench.generator != MINIATURE:
            generators.append(bench.generator)
        judges += metric_judges(bench)
    if not (wanted or generators or method or benchmark or judge):
        raise ConfigError(
            "say what to fetch: for example `negbench prefetch --benchmark npdb-quality`, "
            "`negbench prefetch aesthetic` or `negbench prefetch --generator org/name`"
        )
    weights.expand(wanted)
    for name, path in weights.prefetch(wanted):
        yield name, str(path)
    for spec in dict.fromkeys(generators):
        from negbench.generators.weights import fetch

        yield spec, str(fetch(spec).folder)
    if method is not None:
        from negbench.methods import methods

        cls = methods.get(method)
        built = cls(build_config(cls.Config, method_params or {}, owner=f"method {method}"))
        built.prefetch()
        yield method, "at hand"
    for name, params in judges:
        from negbench.judges import make_judge

        make_judge(name, params).prefetch()
        yield f"judge {name}", "at hand"


def metric_weights(bench: Benchmark) -> list[str]:
    """The downloads that a benchmark's metrics need; none for the miniature's networks."""
    wanted: dict[str, None] = {}
    for name, params in bench.metrics.items():
        chosen = {key: params.get(key) for key in ("network", "clip", "head")}
        if chosen["clip"] not in (None, MINIATURE):
            wanted[f"clip:{chosen['clip']}"] = None
        if chosen["network"] not in (None, MINIATURE):
            wanted[str(chosen["network"])] = None
        if chosen["head"] not in (None, MINIATURE):
            wanted[name] = None
    return list(wanted)


def metric_judges(bench: Benchmark) -> list[tuple[str, Mapping[str, Any]]]:
    """The judges, with their parameters, that a benchmark's metrics ask."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for params in bench.metrics.values():
        judge, given = params.get("judge"), params.get("judge_params", {})
        if isinstance(judge, str) and isinstance(given, dict) and (judge, given) not in found:
            found.append((judge, given))
    return found
