"""Leave out one tag of a negative prompt at a time, and say what each tag does."""

from __future__ import annotations

from negbench.ablate.ablate import Ablation, TagEffect, ablate, plan_ablation
from negbench.ablate.tags import split_tags

__all__ = ["Ablation", "TagEffect", "ablate", "plan_ablation", "split_tags"]
