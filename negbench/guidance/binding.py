"""From a guidance spec, which is data, to a rule that can be asked."""

from __future__ import annotations

from collections.abc import Sequence

from negbench.errors import ConfigError
from negbench.guidance import rules
from negbench.guidance.base import Rule
from negbench.params import build_config
from negbench.types import Guidance, Negative


def bind(guidance: Guidance, negatives: Sequence[Negative]) -> tuple[Rule, tuple[Negative, ...]]:
    """The rule behind `guidance`, and the negatives as it takes them.

    Raises:
        UnknownNameError: no rule, or no parameter, of that name.
        ConfigError: a value does not fit, or the spec is of another version of the rule.
    """
    cls = rules.get(guidance.kind)
    if guidance.version != cls.version:
        raise ConfigError(
            f"guidance rule {guidance.kind} is version {cls.version} here, but version "
            f"{guidance.version} is asked for; use the release of negbench that has it"
        )
    config = build_config(cls.Config, guidance.params, owner=f"guidance rule {guidance.kind}")
    taken = cls.read(negatives)
    rule = cls(config, scale=guidance.scale, weights=[item.weight for item in taken])
    return rule, taken
