"""Statistics for images that come in clusters: several replicates of each prompt.

Replicates of a prompt are not independent, so every interval and every test here takes the prompt
as its unit. All functions are pure, seeded where they draw, and never return NaN or infinity:
degenerate input gives None and a note that says why.

A per-image score is a number or None (unscored); the lists that functions take are aligned, one
entry an image, with the prompt of each image as its cluster.
"""

from __future__ import annotations

from negbench.stats.bootstrap import cluster_bootstrap, ratio_summary
from negbench.stats.functional import (
    leave_one_out,
    set_contrast,
    set_summary,
    swap_test,
    swap_test_of_rows,
)
from negbench.stats.inception import (
    inception_contrast,
    inception_splits,
    inception_summary,
    inception_terms,
    log_inception,
)
from negbench.stats.means import mean_summary, paired_contrast
from negbench.stats.multiple import holm
from negbench.stats.power import (
    Components,
    minimum_detectable_difference,
    prompts_needed,
    variance_components,
)
from negbench.stats.proportions import agreeing_interval, share_summary, wilson
from negbench.stats.signflip import sign_flip
from negbench.stats.summary import Contrast, Summary

__all__ = [
    "Components",
    "Contrast",
    "Summary",
    "agreeing_interval",
    "cluster_bootstrap",
    "holm",
    "inception_contrast",
    "inception_splits",
    "inception_summary",
    "inception_terms",
    "leave_one_out",
    "log_inception",
    "mean_summary",
    "minimum_detectable_difference",
    "paired_contrast",
    "prompts_needed",
    "ratio_summary",
    "set_contrast",
    "set_summary",
    "share_summary",
    "sign_flip",
    "swap_test",
    "swap_test_of_rows",
    "variance_components",
    "wilson",
]
