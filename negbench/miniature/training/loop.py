"""The training loop all parts share: seeded by step, resumable, with a progress bar."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm


class Average:
    """Exponential moving average of a module's parameters (the weights that get shipped)."""

    def __init__(self, module: torch.nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: torch.nn.Module, *, step: int) -> None:
        """Fold in the current parameters; the first steps use a shorter memory."""
        decay = min(self.decay, (1 + step) / (10 + step))
        state = module.state_dict()
        floats = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_(
            [self.values[k] for k in floats], [state[k].detach() for k in floats], 1.0 - decay
        )
        for key in state.keys() - floats:
            self.values[key].copy_(state[key])

    def state_dict(self) -> dict[str, Any]:
        """The averaged values."""
        return self.values

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Go on from saved values."""
        self.values = {k: v.clone() for k, v in values.items()}


def one_cycle(step: int, *, steps: int, peak: float, warmup: float = 0.05) -> float:
    """Learning rate of a step: linear rise, then half a cosine down to a hundredth."""
    rise = max(1, int(steps * warmup))
    if step < rise:
        return peak * (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def prepare(threads: int | None = None) -> torch.device:
    """Choose the device and set what speeds up training on a CPU."""
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_loop(
    name: str,
    *,
    modules: dict[str, torch.nn.Module],
    batch_loss: Callable[[np.random.Generator], torch.Tensor],
    steps: int,
    peak: float,
    work: Path,
    resume: bool,
    seed: int,
    average: float | None = None,
    weight_decay: float = 0.01,
    save_every: int = 250,
) -> dict[str, dict[str, Any]]:
    """Train modules together.

    Step `i` draws from generators seeded with (seed, i), so a run that was interrupted and
    resumed sees the batches an uninterrupted one would have seen.

    Args:
        name: Names the checkpoint and the progress bar.
        modules: Modules to train, by name.
        batch_loss: Draws a batch and returns the loss to minimise.
        steps: Number of steps.
        peak: Highest learning rate.
        work: Folder of checkpoints.
        resume: Go on from the checkpoint if there is one.
        seed: Seed of the run.
        average: Decay of the moving average, or None for the raw weights.
        weight_decay: AdamW's.
        save_every: Steps between checkpoints.

    Returns:
        State dict by module name: averaged where `average` is given.
    """
    parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.99), fused=True,
                                  weight_decay=weight_decay)  # fmt: skip
    averages = {k: Average(m, decay=average) for k, m in modules.items()} if average else {}
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / f"{name}.pt"
    start, smooth = 0, float("nan")
    if resume and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for key, module in modules.items():
            module.load_state_dict(saved["modules"][key])
        optimizer.load_state_dict(saved["optimizer"])
        for key, mean in averages.items():
            mean.load_state_dict(saved["averages"][key])
        start, smooth = saved["step"], saved["loss"]

    def save(step: int) -> None:
        part = checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "modules": {k: m.state_dict() for k, m in modules.items()},
                "optimizer": optimizer.state_dict(),
                "averages": {k: a.state_dict() for k, a in averages.items()},
                "step": step,
                "loss": smooth,
            },
            part,
        )
        part.replace(checkpoint)

    for module in modules.values():
        module.train()
    bar = tqdm(range(start, steps), desc=name, initial=start, total=steps, file=sys.stderr,
               mininterval=2.0)  # fmt: skip
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, steps=steps, peak=peak)
        torch.manual_seed(seed * 1_000_003 + step)
        loss = batch_loss(np.random.default_rng([seed, step]))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        for key, mean in averages.items():
            mean.update(modules[key], step=step)
        value = float(loss.detach())
        smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
        if step % 10 == 0:
            bar.set_postfix(loss=f"{smooth:.4f}")
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save(step + 1)
    for module in modules.values():
        module.eval()
    if averages:
        return {k: a.state_dict() for k, a in averages.items()}
    return {k: m.state_dict() for k, m in modules.items()}
