"""Which question is asked: protocols, and the benchmarks that name and version them."""

from __future__ import annotations

from negbench.protocols.benchmark import Benchmark, benchmark_names, load_benchmark

__all__ = ["Benchmark", "benchmark_names", "load_benchmark"]
