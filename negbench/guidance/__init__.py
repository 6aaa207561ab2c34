"""HOW a negative prompt acts: guidance rules by name."""

from __future__ import annotations

from negbench.guidance.base import Rule
from negbench.registry import Registry

rules: Registry[Rule] = Registry(
    "guidance rule",
    group="negbench.guidance",
    base="negbench.guidance.base:Rule",
    builtins={
        "cfg": ("negbench.guidance.cfg:Cfg", "classifier-free guidance away from the negative"),
        "window": (
            "negbench.guidance.window:Window",
            "the negative in model calls [start, stop), the empty prompt outside",
        ),
        "composable_not": (
            "negbench.guidance.composable_not:ComposableNot",
            "the negative's own direction, signed, from the empty prompt (2206.01714)",
        ),
        "perp_neg": (
            "negbench.guidance.perp_neg:PerpNeg",
            "only the part of the negative perpendicular to the prompt (2304.04968)",
        ),
        "sld": (
            "negbench.guidance.sld:Sld",
            "safe latent diffusion: near the concept only, with momentum (2211.05105)",
        ),
        "ccfg": (
            "negbench.guidance.ccfg:Ccfg",
            "contrastive guidance: weaker the farther from the negative (2411.17077)",
        ),
        "nag": (
            "negbench.guidance.nag:Nag",
            "normalized attention guidance, inside cross-attention (2505.21179)",
        ),
        "nasa": (
            "negbench.guidance.nasa:Nasa",
            "the negative's attention subtracted from the prompt's (2412.02687)",
        ),
        "vsf": (
            "negbench.guidance.vsf:Vsf",
            "one attention over both texts, the negative's values flipped (2508.10931)",
        ),
    },
)

__all__ = ["Rule", "rules"]
