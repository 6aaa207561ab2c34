"""The model that learns to write negatives, and one step of its policy gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from negbench.train.base_model import Base, check_same_vocabulary
from negbench.train.gradient import policy_loss
from negbench.train.team import Team
from negbench.train.writing import Batch, Pen, Written

ROWS = 64
"""Samples in one forward pass of the policy."""


class Policy:
    """A model that writes, its optimizer, and a copy that it stays near to.

    Args:
        base: the fine-tuned model; it is trained in place.
        frozen: the same model again, of which nothing changes.
        team: device, precision and the other processes.
        lr: peak learning rate.

    Attributes:
        model: what learns.
        pen: writes with it.
        optimizer: AdamW without weight decay.

    Raises:
        ConfigError: the two have different vocabularies.
    """

    def __init__(self, base: Base, frozen: Base, *, team: Team, lr: float) -> None:
        check_same_vocabulary(base, frozen)
        self.team = team
        self.model = base.model.to(team.device).eval()
        self.pen = Pen(self.model, base.tokenizer, device=team.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, weight_decay=0.0)
        still = frozen.model.to(team.device).eval().requires_grad_(False)
        self._reference = Pen(still, frozen.tokenizer, device=team.device)

    def learn(
        self,
        prompts: Sequence[str],
        written: Written,
        advantage: npt.NDArray[np.float64],
        *,
        rate: float,
        inner: int,
        temperature: float,
        clip: float,
        kl: float,
    ) -> tuple[float, float]:
        """Take `inner` steps of the optimizer on the same samples.

        Args:
            prompts: one a sample.
            written: what this model wrote for them, at `temperature`.
            advantage: what each sample earned, (n,).
            rate: learning rate.
            inner: steps; the clipped ratio is to the chances before the first.
            temperature: at which log-chances are taken.
            clip: how far a ratio may be from 1.
            kl: weight of the divergence from the frozen copy.

        Returns:
            The last loss and the first divergence, means over all tokens of all processes.

        Raises:
            FloatingPointError: the loss is not finite; the model is as after the step before.
        """
        team = self.team
        ids, mask = self.pen.read(prompts)
        (total,) = team.sum([float(Batch(ids, mask, written.tokens).n_tokens)])
        parts = [slice(at, at + ROWS) for at in range(0, len(ids), ROWS)]
        old: list[torch.Tensor] = []
        first_kl = last_loss = 0.0
        for turn in range(inner):
            spent = apart = 0.0
            for number, part in enumerate(parts):
                batch = Batch(ids[part], mask[part], written.tokens[part])
                with torch.no_grad(), team.autocast():
                    reference = self._reference.log_chances(batch, temperature=temperature)
                with team.autocast():
                    chances = self.pen.log_chances(batch, temperature=temperature)
                if turn == 0:
                    at = batch.labels.clamp_min(0).unsqueeze(-1)
                    old.append(chances.detach().gather(-1, at).squeeze(-1))
                loss, divergence = policy_loss(
                    chances, old[number], reference, tokens=batch.labels,
                    advantage=torch.as_tensor(advantage[part], device=team.device),
                    clip=clip, kl=kl, total=total,
                )  # fmt: skip
                team.scaler.scale(loss).backward()
                spent += float(loss.detach())
                apart += float(divergence)
            spent, apart = team.sum([spent, apart])
            if not math.isfinite(spent):
                raise FloatingPointError("the loss is not finite")
            team.update(self.optimizer, self.parameters, rate=rate)
            first_kl = apart if turn == 0 else first_kl
            last_loss = spent
        return last_loss, first_kl

    def state(self) -> dict[str, dict[str, Any]]:
        """What a later process needs to go on: `restore` takes it back."""
        return self.team.state(self.model, self.optimizer)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with what `state` gave."""
        self.team.restore(state, self.model, self.optimizer)
