"""What draws: generators by name."""

from __future__ import annotations

from negbench.generators.base import Drawn, Generator, RunOptions
from negbench.registry import Registry

generators: Registry[Generator] = Registry(
    "generator",
    group="negbench.generators",
    base="negbench.generators.base:Generator",
    builtins={
        "fake": ("negbench.generators.fake:FakeGenerator", "pixels from the digest, for tests"),
        "diffusers": (
            "negbench.generators.diffusers:DiffusersGenerator",
            "Stable Diffusion 1, 2, XL, 3 or FLUX.1 from a folder, a hub repo or a checkpoint",
        ),
    },
)

__all__ = ["Drawn", "Generator", "RunOptions", "generators"]
