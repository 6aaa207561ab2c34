"""What a negative prompt is worth: drawn beside its twin, scored, weighed in frozen scales."""

from __future__ import annotations

from negbench.reward.terms import Reward, Term
from negbench.reward.trials import Trial, Trials

__all__ = ["Reward", "Term", "Trial", "Trials"]
