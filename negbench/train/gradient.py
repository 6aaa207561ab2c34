"""The policy gradient: group baseline, clipped ratio, KL penalty.

A prompt's group of samples is its own baseline, as in GRPO (2402.03300, eq. 3 and 21); the ratio is
clipped as in PPO (1707.06347, eq. 7); the loss is a mean over all tokens of a step. The KL penalty
is the exact divergence of the two next-token distributions at the sampled positions, not an
estimate from the sampled token.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

STD_FLOOR = 0.1
"""In units of reward: groups whose rewards differ less are not blown up."""


def advantages(rewards: Sequence[float], groups: Sequence[int]) -> npt.NDArray[np.float64]:
    """Reward minus the group's mean, over the group's standard deviation or `STD_FLOOR`.

    Args:
        rewards: one a sample, (n,).
        groups: the prompt of each sample, (n,).

    Returns:
        float64 (n,); exactly 0 for a group whose rewards are all equal.
    """
    values, of = np.asarray(rewards, dtype=np.float64), np.asarray(groups)
    result = np.zeros_like(values)
    for group in np.unique(of):
        mine = of == group
        if np.ptp(values[mine]) > 0:
            spread = max(float(values[mine].std()), STD_FLOOR)
            result[mine] = (values[mine] - values[mine].mean()) / spread
    return result


def policy_loss(
    chances: torch.Tensor,
    old: torch.Tensor,
    reference: torch.Tensor,
    *,
    tokens: torch.Tensor,
    advantage: torch.Tensor,
    clip: float,
    kl: float,
    total: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss to minimise and the KL, both summed over tokens and divided by `total`.

    Args:
        chances: log-probabilities of the policy, (n, tokens, vocabulary).
        old: log-probability of each sampled token when it was sampled, (n, tokens).
        reference: log-probabilities of the model that training began with, like `chances`.
        tokens: what was sampled, int64 (n, tokens); negative where there is none.
        advantage: (n,).
        clip: half width of the trusted range of the ratio.
        kl: weight of the penalty.
        total: tokens of the whole step.
    """
    shown = tokens >= 0
    chosen = chances.gather(-1, tokens.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    ratio = torch.exp((chosen - old).masked_fill(~shown, 0.0))
    gain = advantage.unsqueeze(1).to(ratio.dtype)
    aim = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)
    apart = (chances.exp() * (chances - reference)).sum(dim=-1)
    apart = apart.masked_fill(~shown, 0.0).sum() / total
    loss = -aim.masked_fill(~shown, 0.0).sum() / total + kl * apart
    return loss, apart.detach()


def guard(text: str, *, ended: bool, max_tags: int) -> float:
    """What length and repetition cost, in units of reward (negbench's choice).

    0.05 a tag beyond `max_tags`, 1 times the share of tags that stand there before, 0.5 for a text
    that did not end by itself.

    Args:
        text: as the model wrote it, before repeated tags are dropped.
        ended: whether it ended with the end token.
        max_tags: tags that cost nothing.

    Returns:
        A cost, not negative.
    """
    tags = [" ".join(tag.split()).casefold() for tag in text.split(",")]
    tags = [tag for tag in tags if tag]
    repeated = 1.0 - len(set(tags)) / len(tags) if tags else 0.0
    words = text.split()
    runs = sum(a == b for a, b in itertools.pairwise(words)) / max(len(words), 1)
    return 0.05 * max(0, len(tags) - max_tags) + repeated + runs + (0.0 if ended else 0.5)
