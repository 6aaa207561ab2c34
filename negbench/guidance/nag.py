"""Normalized attention guidance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from negbench.guidance.attention import Steer, Steered, Stop, attend
from negbench.guidance.base import Neutral

if TYPE_CHECKING:
    import torch

PRESETS: dict[str, dict[str, float]] = {
    "sd": {"nag_scale": 3.0, "tau": 2.5, "alpha": 0.375},
    "sdxl": {"nag_scale": 3.0, "tau": 2.5, "alpha": 0.5},
}
"""Table 5 of the paper for Stable Diffusion 1.5 and XL; its phi is 2, so the code's scale is 3."""


@dataclass(frozen=True)
class NagSteer(Steer):
    """Extrapolate, bound the length, blend; see `Nag`."""

    scale: float = 1.0
    tau: float = 2.5
    alpha: float = 0.375
    norm: Literal["l1", "l2"] = "l1"

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        away_key: torch.Tensor,
        away_value: torch.Tensor,
    ) -> torch.Tensor:
        """The formula of `Nag`, in float32 at least."""
        import torch

        plain = attend(query, key, value)
        exact = torch.promote_types(plain.dtype, torch.float32)
        positive = plain.to(exact)
        away = attend(query, away_key, away_value).to(exact)
        far = self.scale * positive - (self.scale - 1) * away
        order = 1 if self.norm == "l1" else 2
        length = positive.norm(p=order, dim=-1, keepdim=True)
        far_length = far.norm(p=order, dim=-1, keepdim=True)
        bound = (self.tau * length / far_length.clamp_min(1e-12)).clamp(max=1.0)
        blend: torch.Tensor = self.alpha * bound * far + (1 - self.alpha) * positive
        return blend.to(plain.dtype)


class Nag(Steered):
    r"""a min(1, tau |Z+| / |Z~|) Z~ + (1 - a) Z+ with Z~ = g Z+ - (g - 1) Z-, in every layer.

    Chen et al., Normalized Attention Guidance (arXiv 2505.21179). Z+ and Z- are what a
    cross-attention layer makes of prompt and negative under the same query, all heads side by side
    and before the output projection; lengths are taken over the features of each position. Where
    code and paper disagree: the paper writes Z~ = Z+ + phi (Z+ - Z-), so g = phi + 1, and g is what
    the authors' programs call ``nag_scale``, as here; the paper and the ComfyUI nodes have the L1
    norm, the first release for FLUX the L2 norm (``norm=l2``). Defaults are the paper's for Stable
    Diffusion 1.5; take ``preset=sdxl`` for XL.

    Several negatives are one text joined by commas. At scale 1 the steered branch is drawn alone,
    as in few-step models; at any other scale it takes the prompt's place in plain guidance from the
    empty prompt, as the paper combines them. The paper finds the first quarter of the schedule to
    be nearly enough: ``stop=0.25``.

    Any prediction space and scheduler; U-Nets with cross-attention (Stable Diffusion 1, 2, XL).
    Cost: one prediction with the cross-attention computed twice in place of the prompt's one (for
    XL the paper measures 22 % more time), counted as one evaluation.
    """

    neutral: ClassVar[tuple[Neutral, ...]] = (
        Neutral(equals="positive", params={"nag_scale": 1.0}, scale=1.0),
        Neutral(equals="empty_negative", params={"nag_scale": 1.0}),
        Neutral(equals="empty_negative", params={"alpha": 0.0}),
    )

    class Config(BaseModel):
        """A preset, any number of which can be overridden."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        preset: Literal["sd", "sdxl"] = Field(
            default="sd", description="the paper's numbers for a model family, if not given"
        )
        nag_scale: float = Field(
            default=3.0, ge=1, le=100, description="g, the paper's phi + 1; at 1 nothing is done"
        )
        tau: float = Field(
            default=2.5, gt=0, le=100, description="longest |Z~| allowed, in lengths of Z+"
        )
        alpha: float = Field(default=0.375, ge=0, le=1, description="a: share of the steered part")
        norm: Literal["l1", "l2"] = Field(default="l1", description="how lengths are measured")
        stop: Stop = 1.0

        @model_validator(mode="before")
        @classmethod
        def _fill(cls, data: Any) -> Any:
            if not isinstance(data, Mapping):
                return data
            return {**PRESETS.get(str(data.get("preset", "sd")), {}), **data}

    def steer(self) -> Steer | None:
        """The formula, unless the scale is 1 or nothing is blended in."""
        config = self.config
        assert isinstance(config, Nag.Config)
        if config.nag_scale == 1 or config.alpha == 0:
            return None
        return NagSteer(
            scale=config.nag_scale, tau=config.tau, alpha=config.alpha, norm=config.norm
        )
