"""Whether a negative prompt can have any effect at all: asked while planning, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from negbench.errors import ConfigError
from negbench.guidance.base import Rule, Space, Step
from negbench.guidance.binding import bind
from negbench.types import Guidance, Negative

PROBE = (Negative(text="a negative prompt"),)


def reads_negative(rule: Rule, *, total: int, space: Space = "epsilon") -> bool:
    """Whether `rule` looks at a negative in any of `total` model calls."""
    for index in range(total):
        for branch in rule.needs(Step(index, total, 0.0, 0.0, space)):
            if branch.role == "negative" or branch.steer is not None:
                return True
    return False


def why_ignored(
    guidance: Guidance,
    negatives: Sequence[Negative] = PROBE,
    *,
    total: int,
    space: Space = "epsilon",
) -> str | None:
    """Why `negatives` could not change a picture under `guidance`, or None if they can.

    Args:
        guidance: the rule, its scale and parameters.
        negatives: what would be applied; by default some plain negative prompt.
        total: model calls of the schedule.
        space: what the network predicts.

    Returns:
        A clause to follow "a negative prompt would have no effect:", or None. None, too, where
        no negative with text and weight is given, since there is nothing to lose.
    """
    given = [item for item in negatives if item.text.strip() and item.weight != 0]
    if not given:
        return None
    rule, _ = bind(guidance, given)
    if reads_negative(rule, total=total, space=space):
        return None
    other, _ = bind(guidance.model_copy(update={"scale": 5.0}), given)
    if guidance.scale == 1 and reads_negative(other, total=total, space=space):
        return (
            f"rule {guidance.kind} at scale 1 predicts the prompt alone; take a scale above 1 (if "
            "the model's guidance is distilled away, a rule inside attention instead)"
        )
    if guidance.scale == 0 and reads_negative(other, total=total, space=space):
        return f"rule {guidance.kind} at scale 0 draws without the prompt; take a scale above 1"
    return (
        f"rule {guidance.kind} with these parameters never looks at it in {total} model calls; "
        f"`negbench show guidance {guidance.kind}` lists what each parameter does"
    )


def refuse_ignored(
    guidance: Guidance,
    negatives: Sequence[Negative] = PROBE,
    *,
    total: int,
    space: Space = "epsilon",
    where: str = "",
) -> None:
    """Refuse guidance under which a negative prompt would silently do nothing.

    Args:
        guidance: as for `why_ignored`, like `negatives`, `total` and `space`.
        negatives: what would be applied.
        total: model calls of the schedule.
        space: what the network predicts.
        where: what the message begins with, for example ``generator org/name``.

    Raises:
        ConfigError: with the reason.
    """
    reason = why_ignored(guidance, negatives, total=total, space=space)
    if reason is not None:
        start = f"{where}: " if where else ""
        raise ConfigError(f"{start}a negative prompt would have no effect: {reason}")


def why_distilled(configs: Mapping[str, Mapping[str, Any]], *, pipeline: str = "") -> str | None:
    """Why a model takes no negative prompt because its guidance is distilled away, or None.

    Args:
        configs: a pipeline's JSON configurations by part: ``unet``, ``transformer``,
            ``scheduler``; parts it does not have are left out.
        pipeline: ``_class_name`` of its ``model_index.json``.

    Returns:
        The reason, which names the setting that shows it. Models that were distilled without
        leaving a trace in their configurations (Turbo, Lightning, Hyper) are not known from these;
        they are drawn at scale 1, where `why_ignored` speaks.
    """
    if configs.get("unet", {}).get("time_cond_proj_dim") is not None:
        return (
            "its U-Net takes the guidance scale as an input (time_cond_proj_dim), as latent "
            "consistency models do, and predicts no unguided picture to be steered away from"
        )
    if configs.get("transformer", {}).get("guidance_embeds"):
        return (
            "its transformer takes the guidance scale as an input (guidance_embeds), as FLUX.1-dev "
            "does; a negative prompt acts only with a second prediction at a true scale above 1"
        )
    scheduler = str(configs.get("scheduler", {}).get("_class_name", ""))
    if pipeline.startswith("LatentConsistency") or scheduler in ("LCMScheduler", "TCDScheduler"):
        name = scheduler or pipeline
        return f"its {name} belongs to models whose guidance is distilled into their weights"
    return None
