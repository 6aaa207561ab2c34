"""What the numbers of a report are called and mean."""

from __future__ import annotations

ARM_WORDS = {
    "treated": "treated",
    "twin": "twin",
    "all_steps": "negative at every step, plain guidance",
    "empty": "the rule without a negative",
    "placebo": "placebo: an unrelated concept",
}
"""Sides of a sample, in words."""

SHORT_ARMS = {"all_steps": "every step", "empty": "no negative", "placebo": "placebo"}

BASELINES = {
    "twin": "minus twin",
    "placebo": "minus placebo",
    "all_steps": "minus the plain negative at every step",
    "empty": "minus the rule without a negative",
}

_REMOVAL = {
    "net_removal": "share of removals beyond those of an unrelated word, where the twin shows the "
    "concept",
    "rsr": "share of removals where the twin shows the concept",
    "rrsr": "removals relative to the plain negative at every step",
    "cr": "share of pictures closer to the twin than the plain negative's",
    "cr_both_removed": "the same among pictures from which both removed the concept",
    "base_rate": "share of twins that show the concept",
    "absent_rate": "share of treated pictures without the concept",
    "reverse_activation": "share of pictures that show the concept although the twin does not",
    "alignment_lost": "alignment with the prompt lost to the twin",
}
"""Metrics of the removal protocol (`negbench.protocols.removal` has the formulas)."""


def split_arm(metric: str) -> tuple[str, str | None]:
    """``rsr_placebo`` to (``rsr``, ``placebo``); the arm is None for the treated picture."""
    for arm in ("all_steps", "empty", "placebo"):
        if metric.endswith(f"_{arm}"):
            return metric[: -len(arm) - 1], arm
    return metric, None


def is_removal(metric: str) -> bool:
    """Whether `metric` is a number of the removal protocol."""
    base, arm = split_arm(metric)
    return arm is not None or base in _REMOVAL


def about_metric(metric: str) -> str:
    """One line about a metric; nothing is known of a plug-in that is not loaded."""
    from negbench.metrics import metrics

    base, arm = split_arm(metric)
    text = _REMOVAL.get(base)
    if text is None:
        text = next((entry.summary for entry in metrics.entries() if entry.name == base), "")
    return f"{text} ({ARM_WORDS[arm]})" if arm is not None and text else text
