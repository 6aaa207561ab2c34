"""Parameters from the command line into a part's typed Config."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from negbench.errors import ConfigError, UnknownNameError, did_you_mean

_JSON = re.compile(r'\[|\{\s*"')
"""How a JSON list or object begins; a text may begin with a place such as {concept}."""


def check_counts(**counts: int | None) -> None:
    """Refuse a count below one; None stands for "not given".

    Raises:
        ConfigError: names the option.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {count}")


def parse_pairs(pairs: Sequence[str], *, option: str = "-p") -> dict[str, Any]:
    """``["k=10", "list=nag"]`` to a dict; a value that looks like a JSON list or object is read.

    Raises:
        ConfigError: an item has no ``=`` or its key stands twice.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(
                f"{option} {pair!r} is not key=value; write for example {option} k=10"
            )
        if key in values:
            raise ConfigError(f"{option} {key} is given twice; give it once")
        value: Any = text
        if _JSON.match(text):
            try:
                value = json.loads(text)
            except ValueError as error:
                raise ConfigError(f"{option} {key}: not valid JSON: {error}") from error
        values[key] = value
    return values


def build_config(model: type[BaseModel], values: Mapping[str, Any], *, owner: str) -> BaseModel:
    """`values` as `owner`'s typed Config, defaults made explicit.

    Raises:
        UnknownNameError: `owner` has no parameter of that name.
        ConfigError: a value does not fit.
    """
    for key in values:
        if key not in model.model_fields:
            known = list(model.model_fields)
            hint = did_you_mean(key, known) if known else "it takes none"
            raise UnknownNameError(f"{owner} has no parameter {key!r}; {hint}")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its parameters"
        raise ConfigError(
            f"{owner}: {where} = {first.get('input')!r}: {first['msg'].lower()} "
            f"(`negbench show` lists what each parameter takes)"
        ) from error


def describe_config(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Name, type, default and meaning of each parameter, for people and ``--json``."""
    rows = []
    for name, info in model.model_fields.items():
        kind = info.annotation
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        rows.append(
            {
                "name": name,
                "type": getattr(kind, "__name__", str(kind)).replace("typing.", ""),
                "required": info.is_required(),
                "default": default,
                "meaning": info.description or "",
            }
        )
    return rows
