"""How the pages and exports write things: metrics, numbers, ranks, verdicts and addresses."""

from __future__ import annotations

from urllib.parse import quote

from negbench.leaderboard.ranks import ALPHA
from negbench.leaderboard.table import Group
from negbench.numbers import number
from negbench.report.text import visible

NAMES = {
    "inception_score": "Inception Score",
    "clip_alignment": "CLIP alignment",
    "clip_to_negative": "CLIP to negative",
    "aesthetic": "Aesthetic",
    "ssim": "SSIM to twin",
    "psnr": "PSNR to twin",
    "lpips": "LPIPS to twin",
    "no_op": "No-op",
    "evaluations": "Evaluations",
    "presence": "Presence",
    "net_removal": "Net removal",
    "rsr": "RSR",
    "rrsr": "RRSR",
    "cr": "CR",
    "reverse_activation": "Reverse activation",
    "alignment_lost": "Alignment lost",
}
HELP = {
    "inception_score": "how certain a classifier is of a picture, how varied its answers are",
    "clip_alignment": "cosine of picture and prompt",
    "clip_to_negative": "cosine of picture and the method's own negative prompt",
    "aesthetic": "points of the aesthetic predictor",
    "ssim": "structural similarity to the twin: 1 is the same picture",
    "psnr": "peak signal-to-noise ratio to the twin, in dB",
    "no_op": "share of pictures that equal their twin",
    "evaluations": "denoiser predictions a picture: the cost that no machine changes",
    "presence": "probability that the concept is visible",
    "net_removal": "removal success minus that of an unrelated concept (the placebo)",
    "rsr": "removal success: concept gone, of the twins that showed it",
    "rrsr": "removal success over that of the negative prompt at every step",
    "cr": "share closer to the twin than with the negative prompt at every step",
    "reverse_activation": "concept there, of the twins that did not show it",
    "alignment_lost": "CLIP alignment of the twin minus that of the picture",
}
MAX_TITLE = 160


def written_unit(unit: str) -> str:
    """The unit by which numbers are written: predictions are counted."""
    return "count" if unit == "predictions" else unit


def metric_name(metric: str) -> str:
    """A metric as people write it."""
    return NAMES.get(metric, visible(metric.replace("_", " "), limit=60))


def rank_text(rank: tuple[int, int]) -> str:
    """``2`` or ``1–3``."""
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}–{rank[1]}"


def interval_text(ci95: tuple[float, float] | None, unit: str) -> str:
    """``[0.12, 0.34]``, or nothing where there is no interval."""
    if ci95 is None:
        return ""
    return f"[{number(ci95[0], unit)}, {number(ci95[1], unit)}]".replace("-", "−")


def verdict(delta: float, p_holm: float | None, *, higher_is_better: bool | None) -> str:
    """``better``, ``worse``, ``equal`` or ``cannot tell``, at 5 % after correction."""
    if delta == 0:
        return "equal"
    if p_holm is None or p_holm > ALPHA or higher_is_better is None:
        return "cannot tell"
    return "better" if (delta > 0) == higher_is_better else "worse"


def about(group: Group) -> list[str]:
    """What a group's entries have in common, in a few words each."""
    params = group.generator_params
    said = [f"{group.n_cases} prompts × {group.replicates} noises"]
    if "steps" in params:
        said.append(f"{params['steps']} steps")
    if "scheduler" in params:
        said.append(visible(str(params["scheduler"]), limit=40))
    if "height" in params and "width" in params:
        said.append(f"{params['width']} × {params['height']} px")
    if "dtype" in params:
        said.append(visible(str(params["dtype"]), limit=20))
    return said


def link(path: str, *, up: int = 0) -> str:
    """`path` below the board as a relative address from a page `up` folders down."""
    return "../" * up + quote(path, safe="/@+")
