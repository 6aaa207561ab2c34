"""Safe Latent Diffusion: away from a concept where the picture comes near it, with momentum."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from negbench.errors import ConfigError
from negbench.guidance.arithmetic import FromEmpty, epsilon_factor
from negbench.guidance.base import EMPTY, POSITIVE, Branch, Neutral, Plain, Space, Step
from negbench.types import Negative, join_negatives

if TYPE_CHECKING:
    import torch

_FIELDS = ("warmup", "strength", "threshold", "momentum_scale", "momentum_beta")
PRESETS: dict[str, dict[str, float]] = {
    "weak": dict(zip(_FIELDS, (15, 20.0, 0.0, 0.0, 0.0), strict=True)),
    "medium": dict(zip(_FIELDS, (10, 1000.0, 0.01, 0.3, 0.4), strict=True)),
    "strong": dict(zip(_FIELDS, (7, 2000.0, 0.025, 0.5, 0.7), strict=True)),
    "max": dict(zip(_FIELDS, (0, 5000.0, 1.0, 0.5, 0.7), strict=True)),
}
"""The authors' four settings, tuned with 50 steps (``SafetyConfig`` in diffusers)."""


class Sld(FromEmpty):
    r"""u + s (c - u - g), with g = sum_i w_i m_i (n_i - u) + a v, after a warm-up.

    Schramowski et al., Safe Latent Diffusion (arXiv 2211.05105), equations 3 to 8, elementwise:
    m_i = min(1, S |c - n_i|) where c - n_i < threshold and 0 elsewhere; a is ``momentum_scale``,
    S ``strength``; v starts at 0 and becomes b v + (1 - b) g after every call, in the warm-up too.
    Before call ``warmup`` g is left out of the guidance. The numbers of the equations are those of
    the authors' code, ``StableDiffusionPipelineSafe`` of diffusers, with which this rule agrees but
    for one thing: that code switches itself off at S <= 1 or scale <= 1, and here the formula holds
    for all.

    Several negatives of weight 1 are one text joined by commas, as the authors write their list of
    concepts. With any other weight each has its own m_i and they share one v, which every picture
    keeps for itself. In the warm-up without momentum no negative is predicted.

    The threshold, S and v are defined between noises. Where the network predicts something else,
    differences are measured in noise (`epsilon_factor`), v is kept in noise, and g is converted
    back: the same as converting everything. Any family, any scheduler; calls are counted, so one
    that makes two calls a step warms up in half the steps and moves v twice a step. The paper has
    Stable Diffusion 1.4.
    """

    neutral: ClassVar[tuple[Neutral, ...]] = (
        Neutral(equals="empty_negative", params={"strength": 0.0}),
    )

    class Config(BaseModel):
        """A preset, any number of which can be overridden."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        preset: Literal["weak", "medium", "strong", "max"] = Field(
            default="medium", description="the authors' setting for all numbers not given"
        )
        warmup: int = Field(
            default=10, ge=0, le=100_000, description="first model call whose guidance is changed"
        )
        strength: float = Field(
            default=1000.0, ge=0, le=1e6, description="S: how soon an element counts as near"
        )
        threshold: float = Field(
            default=0.01, ge=-100, le=100, description="elements with c - n below it are guided"
        )
        momentum_scale: float = Field(
            default=0.3, ge=0, le=1, description="a: how much of v is added to g"
        )
        momentum_beta: float = Field(
            default=0.4, ge=0, lt=1, description="b: how much of v stays from call to call"
        )

        @model_validator(mode="before")
        @classmethod
        def _fill(cls, data: Any) -> Any:
            if not isinstance(data, Mapping):
                return data
            preset = PRESETS.get(str(data.get("preset", "medium")), {})
            return {**preset, **data}

    @classmethod
    def read(cls, negatives: Sequence[Negative]) -> tuple[Negative, ...]:
        """Blank and weightless negatives left out, the others joined if all have weight 1."""
        kept = super().read(negatives)
        if len(kept) > 1 and all(item.weight == 1 for item in kept):
            return (join_negatives(kept),)
        return kept

    def acting(self) -> dict[Branch, float]:
        """No negative acts at strength 0: every m_i is 0."""
        return super().acting() if self._settings().strength > 0 else {}

    def check(self, *, family: str, space: Space, total: int) -> None:
        """Refuse a warm-up that outlasts the schedule: the negative would silently do nothing."""
        super().check(family=family, space=space, total=total)
        warmup = self._settings().warmup
        if warmup >= total and self._settings().strength > 0:
            raise ConfigError(
                f"guidance rule sld: warmup={warmup} lasts longer than the {total} model calls of "
                f"the schedule, so the negative would never act; choose a warmup below {total}"
            )

    def needs(self, step: Step) -> tuple[Branch, ...]:
        """Empty prompt, negatives, prompt; without negatives while they leave no trace."""
        config = self._settings()
        if step.index < config.warmup and config.momentum_scale == 0 and self.scale != 0:
            return (POSITIVE,) if self.scale == 1 else (EMPTY, POSITIVE)
        return super().needs(step)

    def phase(self, step: Step) -> Hashable:
        """Plain guidance in a warm-up without momentum, and where no negative acts."""
        if self.scale == 0 or len(self.needs(step)) <= 2:
            return Plain(self.scale)
        return super().phase(step)

    def blend(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """The formula above; the state is v, float32, of the shape of a prediction."""
        config = self._settings()
        if len(self.needs(step)) == 2:
            base = predictions[EMPTY]
            return base + self.scale * (predictions[POSITIVE] - base), state
        base, direction, away = self.differences(predictions)
        noise = epsilon_factor(step)
        push = direction.new_zeros(direction.shape)  # g without its momentum, in the prediction
        for weight, difference in away:
            gap = noise * (direction - difference)
            mask = (config.strength * gap.abs()).clamp(max=1.0)
            push = (
                push + weight * mask.where(gap < config.threshold, mask.new_zeros(())) * difference
            )
        if state is not None and noise != 0:
            push = push + config.momentum_scale * state / noise
        momentum = (1 - config.momentum_beta) * noise * push
        if state is not None:
            momentum = config.momentum_beta * state + momentum
        if step.index >= config.warmup:
            direction = direction - push
        return (base + self.scale * direction).to(x_t.dtype), momentum

    def _settings(self) -> Sld.Config:
        assert isinstance(self.config, Sld.Config)
        return self.config
