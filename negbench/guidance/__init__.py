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
    },
)

__all__ = ["Rule", "rules"]
