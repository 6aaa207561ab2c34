"""Schedulers by name, as data: what they are is decided while planning, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from negbench.errors import ConfigError, did_you_mean
from negbench.guidance.base import Space, Step

OWN = "own"
"""The scheduler that the pipeline comes with."""

SHORT: dict[str, tuple[str, dict[str, JsonValue]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "kdpm2": ("KDPM2DiscreteScheduler", {}),
    "kdpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++2m_karras": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True},
    ),
    "dpm++2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "deis": ("DEISMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Short name -> diffusers class and what it sets beside the pipeline's own configuration."""

HISTORY: Mapping[str, tuple[str, ...]] = {
    "DDIMScheduler": (),
    "DDPMScheduler": (),
    "DEISMultistepScheduler": ("model_outputs",),
    "DPMSolverMultistepScheduler": ("model_outputs",),
    "EulerAncestralDiscreteScheduler": (),
    "EulerDiscreteScheduler": (),
    "FlowMatchEulerDiscreteScheduler": (),
    "HeunDiscreteScheduler": ("prev_derivative", "sample"),
    "KDPM2AncestralDiscreteScheduler": ("sample",),
    "KDPM2DiscreteScheduler": ("sample",),
    "LMSDiscreteScheduler": ("derivatives",),
    "PNDMScheduler": ("ets", "cur_sample", "cur_model_output"),
    "UniPCMultistepScheduler": ("model_outputs", "last_sample"),
}
"""Scheduler class -> its attributes with an entry a row; all others are equal for all rows.

A test restarts each of these at every call. A class that is not here is never cut or joined, so
nothing is shared under it.
"""

_CLASSES = {name for name, _ in SHORT.values()}
FLOW = "FlowMatchEulerDiscreteScheduler"
"""The scheduler of rectified flows (Stable Diffusion 3, FLUX)."""

_DOUBLE = {"HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"}
_REFUSED = {
    "DPMSolverSDEScheduler": "draws its noise for a whole batch at once",
    "LCMScheduler": "belongs to models whose guidance is distilled into the weights",
    "TCDScheduler": "belongs to models whose guidance is distilled into the weights",
}
_SPACES: dict[str, Space] = {
    "epsilon": "epsilon",
    "v_prediction": "v_prediction",
    "sample": "sample",
}


def _finite(value: Any) -> JsonValue:
    """JSON has no infinity: DPM++ has ``lambda_min_clipped=-inf``, kept as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Schedule:
    """A scheduler's class, its configuration, and how many steps it is asked for.

    Attributes:
        name: class name in diffusers.
        config: JSON configuration; what is left out has the default of diffusers.
        steps: steps asked for, not the model calls, which may be more.
        mu: shift of a flow's noise levels that depends on the size, see `flow_shift`.
        even: noise levels of a flow are even from 1 to 1 / steps before the shift, as
            ``FluxPipeline`` has them, and not the scheduler's own.
    """

    name: str
    config: Mapping[str, JsonValue]
    steps: int
    mu: float | None = None
    even: bool = False

    @classmethod
    def choose(
        cls, choice: str, own: Mapping[str, Any], *, steps: int, flow: bool = False
    ) -> Schedule:
        """The scheduler `choice` with the noise schedule of the pipeline.

        Args:
            choice: ``own``, a short name, or the name of a class in diffusers.
            own: the pipeline's ``scheduler_config.json``.
            steps: steps asked for.
            flow: the model is a rectified flow, which has one scheduler only.

        Raises:
            ConfigError: unknown name, or a scheduler that this loop cannot run.
        """
        kept = {key: _finite(item) for key, item in own.items() if not key.startswith("_")}
        extra: dict[str, JsonValue] = {}
        if choice == OWN:
            name = str(own.get("_class_name", ""))
        elif choice in SHORT:
            name, extra = SHORT[choice]
        else:
            name = choice
        if flow:
            if name != FLOW:
                raise ConfigError(
                    f"scheduler {name or choice!r} is not for a rectified flow; leave "
                    f"scheduler= out, or write scheduler={FLOW}"
                )
            return cls(name=name, config=kept, steps=steps)
        if name in _REFUSED:
            raise ConfigError(
                f"scheduler {name} is not supported: it {_REFUSED[name]}; choose one with "
                f"scheduler={'|'.join(SHORT)}"
            )
        if name not in _CLASSES:
            hint = did_you_mean(choice, [OWN, *SHORT, *_CLASSES])
            raise ConfigError(f"unknown scheduler {name or choice!r}; {hint}")
        schedule = cls(name=name, config={**kept, **extra}, steps=steps)
        if str(schedule.config.get("prediction_type", "epsilon")) not in _SPACES:
            raise ConfigError(
                f"scheduler {name} has prediction_type={schedule.config['prediction_type']!r}; "
                f"supported: {', '.join(_SPACES)}"
            )
        return schedule

    @property
    def space(self) -> Space:
        """What the network predicts."""
        if self.name == FLOW:
            return "flow"
        return _SPACES[str(self.config.get("prediction_type", "epsilon"))]

    def calls(self) -> int:
        """Model calls: one a step, one more with PNDM, twice as many less one at second order."""
        if self.name in _DOUBLE:
            return 2 * self.steps - 1
        if self.name == "PNDMScheduler":
            if self.config.get("skip_prk_steps", False):
                return self.steps + 1 if self.steps > 1 else 1
            return len(self.build().timesteps)
        return self.steps

    def build(self) -> Any:
        """A fresh diffusers scheduler with its timesteps set, on the CPU.

        Raises:
            ConfigError: diffusers refuses the configuration or the number of steps.
        """
        import diffusers

        config = {
            key: float(item) if item in ("inf", "-inf") else item
            for key, item in self.config.items()
        }
        levels: dict[str, Any] = {} if self.mu is None else {"mu": self.mu}
        if self.even:
            import numpy as np

            levels["sigmas"] = np.linspace(1.0, 1 / self.steps, self.steps)
        try:
            scheduler = getattr(diffusers, self.name).from_config(config)
            scheduler.set_timesteps(self.steps, **levels)
        except (ValueError, TypeError, IndexError, ImportError, NotImplementedError) as error:
            raise ConfigError(f"scheduler {self.name} with {self.steps} steps: {error}") from error
        return scheduler

    def describe(self, scheduler: Any) -> list[Step]:
        """Every model call of a scheduler that `build` made."""
        times = [float(t) for t in scheduler.timesteps]
        if self.name == FLOW:
            levels = [float(level) for level in scheduler.sigmas[: len(times)]]
            sigmas = [level / (1 - level) if level < 1 else math.inf for level in levels]
        else:
            sigmas = [noise_to_signal(scheduler, t) for t in times]
        return [
            Step(index=i, total=len(times), timestep=t, sigma=sigma, space=self.space)
            for i, (t, sigma) in enumerate(zip(times, sigmas, strict=True))
        ]


def flow_shift(config: Mapping[str, JsonValue], *, tokens: int, highest: float) -> float | None:
    """How far the noise levels of a flow are shifted for a picture of `tokens`, or None if not.

    Linear in the number of tokens, as ``calculate_shift`` of diffusers has it for Stable Diffusion
    3.5 and FLUX (Esser et al., arXiv 2403.03206, section 5.3.2, for why).

    Args:
        config: the scheduler's.
        tokens: patches of the latent.
        highest: ``max_shift`` where the configuration has none; pipelines differ in it.
    """
    if not config.get("use_dynamic_shifting"):
        return None

    def number(key: str, default: float) -> float:
        return float(config.get(key, default))  # type: ignore[arg-type]

    base, most = number("base_image_seq_len", 256), number("max_image_seq_len", 4096)
    low, high = number("base_shift", 0.5), number("max_shift", highest)
    slope = (high - low) / (most - base)
    return tokens * slope + (low - slope * base)


def noise_to_signal(scheduler: Any, timestep: float) -> float:
    """sqrt((1 - abar) / abar) at a timestep, abar linear between whole timesteps.

    This is sigma of Karras et al. (arXiv 2206.00364), table 1, for variance-preserving schedules;
    infinite where no signal is left.
    """
    abar = scheduler.alphas_cumprod
    position = min(max(timestep, 0.0), len(abar) - 1.0)
    low = int(position)
    high = min(low + 1, len(abar) - 1)
    value = float(abar[low]) + (position - low) * (float(abar[high]) - float(abar[low]))
    return math.sqrt((1 - value) / value) if value > 0 else math.inf
