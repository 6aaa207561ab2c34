"""Runs against each other: paired on the same cases and noises, with what can be concluded."""

from __future__ import annotations

from negbench.compare.compare import Comparison, Comparisons, compare_runs

__all__ = ["Comparison", "Comparisons", "compare_runs"]
