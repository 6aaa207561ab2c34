"""Curves in place of points: a rule at many strengths, removal against damage."""

from __future__ import annotations

from negbench.sweep.sweep import Matched, Point, Sweep, plan_sweep, run_sweep

__all__ = ["Matched", "Point", "Sweep", "plan_sweep", "run_sweep"]
