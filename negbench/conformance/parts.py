"""Which parts a name or a file stands for, and which checks they get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from negbench.conformance.outcome import Outcome
from negbench.errors import ConfigError, PluginError, UnknownNameError, did_you_mean
from negbench.params import build_config
from negbench.registry import Registry, load_plugin_file

KINDS: Mapping[str, tuple[str, str]] = {
    "guidance": ("negbench.guidance:rules", "negbench.conformance.rules:check_rule"),
    "method": ("negbench.methods:methods", "negbench.conformance.methods:check_method"),
    "metric": ("negbench.metrics:metrics", "negbench.conformance.metrics:check_metric"),
    "generator": (
        "negbench.generators:generators",
        "negbench.conformance.generators:check_generator",
    ),
}
"""Kind -> its registry and its checks."""


@dataclass(frozen=True)
class Part:
    """A part by kind and name, and where it comes from."""

    kind: str
    name: str
    origin: str


def find_parts(target: str, *, kind: str | None = None) -> list[Part]:
    """The parts that `target` stands for.

    Args:
        target: a registered name, or a Python file, all of whose parts are meant.
        kind: one of `KINDS`, where a name means several parts or a file holds several kinds.

    Raises:
        UnknownNameError: nothing has this name, or there is no such kind.
        ConfigError: several kinds have a part of this name.
        PluginError: the file cannot be loaded, or registers nothing.
    """
    if kind is not None and kind not in KINDS:
        raise UnknownNameError(f"unknown kind {kind!r}; {did_you_mean(kind, KINDS)}")
    registries = {key: _registry(key) for key in KINDS if kind in (None, key)}
    if target.endswith(".py"):
        return _in_file(target, registries)
    found = [
        Part(key, entry.name, entry.origin)
        for key, registry in registries.items()
        for entry in registry.entries()
        if entry.name == target
    ]
    if not found:
        known = {name for registry in registries.values() for name in registry.names()}
        what = f"{kind} " if kind else "plug-in "
        raise UnknownNameError(
            f"unknown {what}{target!r}; {did_you_mean(target, known)}; or give a .py file"
        )
    if len(found) > 1:
        kinds = ", ".join(part.kind for part in found)
        raise ConfigError(f"{target!r} names several parts; choose one with --kind: {kinds}")
    return found


def _in_file(target: str, registries: Mapping[str, Registry[Any]]) -> list[Part]:
    load_plugin_file(target)
    file = Path(target).resolve()
    found = [
        Part(key, entry.name, entry.origin)
        for key, registry in registries.items()
        for entry in registry.entries()
        if Path(entry.origin).resolve() == file
    ]
    if not found:
        kinds = ", ".join(registries)
        raise PluginError(
            f"plug-in file {target} registers nothing of kind {kinds}; decorate its class, for "
            'example with @rules.register("name")'
        )
    return found


def check_part(part: Part, *, params: Mapping[str, Any] | None = None) -> list[Outcome]:
    """Run the checks of a part's kind.

    Raises:
        NegbenchError: the part cannot be loaded, or needs what is not at hand.
    """
    cls = _registry(part.kind).get(part.name)
    if part.kind == "generator" and part.name == "diffusers":
        raise ConfigError("generator diffusers stands for many models and is no plug-in")
    if params:
        build_config(cls.Config, params, owner=f"{part.kind} {part.name}")
    module, _, name = KINDS[part.kind][1].partition(":")
    outcomes: list[Outcome] = getattr(import_module(module), name)(
        cls, name=part.name, params=params
    )
    return outcomes


def _registry(kind: str) -> Registry[Any]:
    module, _, name = KINDS[kind][0].partition(":")
    registry: Registry[Any] = getattr(import_module(module), name)
    return registry
