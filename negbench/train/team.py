"""The processes that train together: one, or several that `accelerate launch` started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch

from negbench.errors import ConfigError
from negbench.generators.choices import choose_device

Precision = Literal["no", "bf16", "fp16"]


class Team:
    """Rank, device and precision of this process, and sums over all processes.

    With one process every sum is the value itself and nothing of accelerate is loaded.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` ...; with several processes accelerate chooses.
        precision: of the forward passes; weights and optimizer stay float32.

    Raises:
        ConfigError: fp16 without a GPU.
    """

    def __init__(self, *, device: str = "auto", precision: Precision = "no") -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = 0
        if self.world > 1:
            from accelerate import PartialState  # type: ignore[import-untyped]

            state = PartialState(cpu=device == "cpu")
            self.rank, self.world = state.process_index, state.num_processes
            self.device = torch.device(state.device)
        else:
            self.device = torch.device(choose_device(device))
        if precision == "fp16" and self.device.type != "cuda":
            raise ConfigError("--precision fp16 needs a GPU; take bf16 or no")
        self.precision = precision
        self.scaler: Any = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
        torch.set_flush_denormal(True)

    @property
    def leads(self) -> bool:
        """True in the one process that writes files."""
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision for a forward pass, or nothing."""
        if self.precision == "no":
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def sum(self, values: list[float]) -> list[float]:
        """Each value summed over all processes."""
        if self.world == 1:
            return values
        from accelerate.utils import reduce  # type: ignore[import-untyped]

        total = reduce(torch.tensor(values, dtype=torch.float64, device=self.device), "sum")
        return [float(value) for value in total.tolist()]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum each gradient over all processes, in place."""
        if self.world == 1:
            return
        from accelerate.utils import reduce

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(reduce(parameter.grad, "sum"))

    def update(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[torch.nn.Parameter],
        *,
        rate: float,
    ) -> None:
        """One step of the optimizer by the gradients of all processes, whose norm is cut at 1."""
        self.sum_gradients(parameters)
        for group in optimizer.param_groups:
            group["lr"] = rate
        self.scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad()

    def state(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> dict[str, dict[str, Any]]:
        """What a later process needs to go on with a model: `restore` takes it back."""
        return {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(
        self,
        state: dict[str, Any],
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Go on with what `state` gave; the scaler's is of use with the same precision only."""
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
