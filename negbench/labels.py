"""Several parts of one kind in one command: their labels, and which parameters are whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from negbench.errors import ConfigError


def read_labels(given: Sequence[str], *, kind: str) -> list[tuple[str, str]]:
    """Label and name of each, from ``LABEL=NAME``, or ``NAME`` which is its own label.

    Args:
        given: what the user wrote.
        kind: what it is, for example ``method``; the option is named after it.

    Raises:
        ConfigError: two have one label.
    """
    named = []
    for text in given:
        label, equals, name = text.partition("=")
        named.append((label, name) if equals else (text, text))
    labels = [label for label, _ in named]
    double = next((label for label in labels if labels.count(label) > 1), None)
    if double is not None:
        raise ConfigError(
            f"{kind} {double!r} is given twice; label them apart, for example --{kind} a={double} "
            f"--{kind} b={double} -p a.key=value"
        )
    return named


def split_params(
    params: Mapping[str, Any], labels: Sequence[str], *, kind: str
) -> dict[str, dict[str, Any]]:
    """The parameters of each label: ``label.key``, or plain ``key`` where there is one label.

    Raises:
        ConfigError: there are several labels and a parameter belongs to none.
    """
    split: dict[str, dict[str, Any]] = {label: {} for label in labels}
    for key, value in params.items():
        label, dot, rest = key.partition(".")
        if dot and label in split:
            split[label][rest] = value
        elif len(labels) == 1:
            split[labels[0]][key] = value
        else:
            raise ConfigError(
                f"-p {key}: several {kind}s are given, so say which: -p "
                f"{labels[0]}.{rest or key}=..."
            )
    return split
