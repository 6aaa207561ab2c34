"""What a batch carries from call to call, cut and joined by rows: schedulers and rules' states.

Rows of one schedule that stand before the same call differ in tensors alone; a scheduler's numbers
(step index, order, counters) depend on the call only. So rows of several batches can go on in one.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from negbench.generators.schedule import HISTORY


def divisible(scheduler: Any) -> bool:
    """Whether batches under this scheduler can be cut and joined."""
    return type(scheduler).__name__ in HISTORY


def fork(scheduler: Any) -> Any:
    """A copy that can step on without the other: tensors are shared, lists are not.

    Schedulers put new tensors into their attributes and lists; they change none in place.
    """
    twin = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if isinstance(value, list):
            setattr(twin, name, list(value))
    return twin


def take(scheduler: Any, rows: torch.Tensor) -> Any:
    """A scheduler with those rows of the history, repeated where `rows` repeats.

    Raises:
        KeyError: a scheduler that is not `divisible`.
    """
    twin = fork(scheduler)
    for name in _set(scheduler):
        setattr(twin, name, _each(getattr(scheduler, name), lambda value: value[rows]))
    return twin


def join(schedulers: Sequence[Any]) -> Any:
    """Schedulers that stand before the same call as one, their rows one after another.

    Raises:
        KeyError: a scheduler that is not `divisible`.
    """
    whole = fork(schedulers[0])
    for name in _set(whole):
        values = [getattr(scheduler, name) for scheduler in schedulers]
        if isinstance(values[0], list):
            setattr(whole, name, [_cat(entry) for entry in zip(*values, strict=True)])
        else:
            setattr(whole, name, _cat(values))
    return whole


def nbytes(scheduler: Any) -> int:
    """Bytes of the history."""
    total = 0
    for name in _set(scheduler) if divisible(scheduler) else ():
        value = getattr(scheduler, name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, torch.Tensor):
                total += item.numel() * item.element_size()
    return total


def _set(scheduler: Any) -> list[str]:
    """The attributes with an entry a row that are set by now."""
    return [name for name in HISTORY[type(scheduler).__name__] if name in vars(scheduler)]


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    return change(value) if isinstance(value, torch.Tensor) and value.ndim else value


def _cat(values: Sequence[Any]) -> Any:
    first = values[0]
    return torch.cat(list(values)) if isinstance(first, torch.Tensor) and first.ndim else first


# What a rule keeps ----------------------------------------------------------------------------


def row_of(state: Any, row: int, *, copied: bool = False) -> Any:
    """One row of a rule's state: every tensor in it cut to (1, ...), in containers of any depth.

    Args:
        state: None, tensors, numbers, and lists, tuples, dicts and dataclasses of these.
        row: which.
        copied: give tensors of their own, not views.
    """

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 0:
            return tensor
        part = tensor[row : row + 1]
        return part.clone() if copied else part

    return _walk([state], lambda tensors: cut(tensors[0]))


def stack_rows(states: Sequence[Any]) -> Any:
    """States of single rows as one state with an entry a row; the opposite of `row_of`."""

    def glue(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(tensors)) if tensors[0].ndim else tensors[0]

    return _walk(states, glue)


def _walk(states: Sequence[Any], merge: Callable[[Sequence[torch.Tensor]], torch.Tensor]) -> Any:
    first = states[0]
    if isinstance(first, torch.Tensor):
        return merge(states)
    if isinstance(first, Mapping):
        return {key: _walk([state[key] for state in states], merge) for key in first}
    if isinstance(first, list | tuple):
        items = [_walk(parts, merge) for parts in zip(*states, strict=True)]
        if isinstance(first, list):
            return items
        named = hasattr(first, "_fields")
        return type(first)(*items) if named else tuple(items)
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        whole = copy.copy(first)
        for field in dataclasses.fields(first):
            values = [getattr(state, field.name) for state in states]
            object.__setattr__(whole, field.name, _walk(values, merge))
        return whole
    return first
