"""Pictures that people have already: read, paired with their twins, scored; and runs exported."""

from __future__ import annotations

from negbench.score.export import export_run
from negbench.score.score import Outcome, score_pictures

__all__ = ["Outcome", "export_run", "score_pictures"]
