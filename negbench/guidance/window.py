"""The negative prompt in a part of the schedule, the empty prompt in the rest."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from negbench.errors import ConfigError
from negbench.guidance.base import EMPTY, POSITIVE, Branch, Neutral, Plain, Space, Step
from negbench.guidance.cfg import Cfg

if TYPE_CHECKING:
    import torch


class Window(Cfg):
    """`Cfg` whose negative acts in model calls [start, stop) only; outside, the empty prompt does.

    Ban et al., Understanding the Impact of Negative Prompts (arXiv 2406.02965), section 5: guidance
    itself goes on outside the window, against the empty prompt, and never falls back to the
    conditional prediction alone. Their calls 5 to 15 of 31 (PNDM, 30 steps), both included, are
    ``start=5, stop=16``. Calls are counted, not steps: PNDM makes one call more than steps.
    """

    neutral: ClassVar[tuple[Neutral, ...]] = (
        Neutral(equals="positive", params={}, scale=1.0),
        Neutral(equals="empty_negative", params={"start": 0, "stop": 0}),
        Neutral(equals="cfg", params={"start": 0, "stop": None}),
    )

    class Config(BaseModel):
        """When the negative acts."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        start: float = Field(default=0.0, ge=0, description="first call with the negative")
        stop: float | None = Field(
            default=None, ge=0, description="first call without it again; none means to the end"
        )
        unit: Literal["calls", "fraction"] = Field(
            default="calls",
            description="count model calls from 0, or take start and stop as parts of the schedule",
        )

        @model_validator(mode="after")
        def _half_open(self) -> Self:
            for name, value in (("start", self.start), ("stop", self.stop)):
                if value is None:
                    continue
                if self.unit == "calls" and value != int(value):
                    raise ValueError(f"{name} counts calls; unit=fraction takes parts")
                if self.unit == "fraction" and value > 1:
                    raise ValueError(f"{name} is a part of the schedule, between 0 and 1")
            if self.stop is not None and self.stop < self.start:
                raise ValueError("stop must not lie before start")
            return self

    def calls(self, total: int) -> range:
        """The calls with the negative, of a schedule of `total` calls.

        A fraction f stands for call ceil(f * total), so that neighbouring windows share no call
        and leave none out.
        """
        config = self._window()
        last = total if config.stop is None else self._call(config.stop, total)
        return range(min(self._call(config.start, total), total), min(last, total))

    def check(self, *, family: str, space: Space, total: int) -> None:
        """Refuse a window that begins after the last call: it would silently do nothing."""
        super().check(family=family, space=space, total=total)
        config = self._window()
        empty = config.stop is not None and config.stop == config.start
        if config.unit == "calls" and config.start >= total and not empty:
            raise ConfigError(
                f"guidance rule window: start={config.start:g} lies after the last of {total} "
                f"model calls; choose a start below {total}"
            )

    def needs(self, step: Step) -> tuple[Branch, ...]:
        """As plain guidance: with the negatives inside the window, without them outside."""
        if self.scale == 1 or step.index in self.calls(step.total):
            return super().needs(step)
        return (EMPTY,) if self.scale == 0 else (EMPTY, POSITIVE)

    def phase(self, step: Step) -> Hashable:
        """That of `Cfg` inside the window, plain guidance outside."""
        return super().phase(step) if step.index in self.calls(step.total) else Plain(self.scale)

    def combine(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        """Plain guidance, away from the empty prompt outside the window."""
        if self.scale == 1 or step.index in self.calls(step.total):
            return super().combine(predictions, x_t, step, state)
        base = predictions[EMPTY]
        if self.scale == 0:
            return base, state
        return base + self.scale * (predictions[POSITIVE] - base), state

    def _window(self) -> Window.Config:
        assert isinstance(self.config, Window.Config)
        return self.config

    def _call(self, value: float, total: int) -> int:
        if self._window().unit == "calls":
            return int(value)
        # 1e-9 keeps 0.1 * 30 = 3.0000000000000004 at call 3.
        return math.ceil(value * total - 1e-9)
