"""The contract of a method's answer, checked in one place, whoever wrote the method."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from negbench.errors import NegbenchError, PluginError, one_line
from negbench.methods.base import Method
from negbench.methods.texts import treatment
from negbench.types import MAX_TEXT, Case, Treatment

MAX_NEGATIVES = 64
"""Most negatives of one treatment."""


def treat_checked(
    method: Method, name: str, cases: Sequence[Case], *, seed: int
) -> list[Treatment]:
    """What `method` decides for `cases`: one valid treatment a case.

    A plain string in the answer becomes a treatment of the case's prompt with that negative.

    Raises:
        PluginError: the method raised, or its answer is not one treatment a case; the message
            names the method, the case and, for an exception, the line.
        NegbenchError: what the method itself refused.
    """
    try:
        answer: Any = method.treat(list(cases), seed=seed)
    except NegbenchError:
        raise
    except (Exception, SystemExit) as error:
        said = one_line(str(error), limit=300)
        raise PluginError(
            f"method {name} failed{_place(method, error.__traceback__)}: {type(error).__name__}"
            f"{': ' if said else ''}{said}"
        ) from error
    if not isinstance(answer, list | tuple):
        raise PluginError(
            f"method {name} returned {_kind(answer)}, not a list of treatments; return one a case"
        )
    if len(answer) != len(cases):
        raise PluginError(
            f"method {name} returned {len(answer)} treatments for {len(cases)} cases; return "
            "exactly one a case, in the order of the cases"
        )
    return [_checked(item, name, case) for item, case in zip(answer, cases, strict=True)]


def _checked(item: Any, name: str, case: Case) -> Treatment:
    where = f"method {name}, case {case.id!r}"
    if isinstance(item, str):
        if len(item) > MAX_TEXT:
            raise PluginError(_too_long(where, "negative prompt", len(item)))
        try:
            return treatment(case, item)
        except ValidationError as error:
            raise PluginError(f"{where}: {error.errors()[0]['msg']}") from error
    if not isinstance(item, Treatment):
        raise PluginError(
            f"{where}: returned {_kind(item)}; return a Treatment, or a negative prompt as a string"
        )
    negatives: Any = item.negatives
    if isinstance(negatives, list | tuple):
        if len(negatives) > MAX_NEGATIVES:
            raise PluginError(f"{where}: {len(negatives)} negatives; at most {MAX_NEGATIVES}")
        for negative in negatives:
            text = getattr(negative, "text", None)
            if not isinstance(text, str):
                raise PluginError(f"{where}: a negative prompt is {_kind(text)}, not a string")
            if len(text) > MAX_TEXT:
                raise PluginError(_too_long(where, "negative prompt", len(text)))
    if isinstance(item.prompt, str) and len(item.prompt) > MAX_TEXT:
        raise PluginError(_too_long(where, "prompt", len(item.prompt)))
    try:
        # objects made with model_construct skipped the checks of their type
        return Treatment.model_validate(item.model_dump(warnings="error"))
    except Exception as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise PluginError(
            f"{where}: not a valid Treatment: {one_line(first, limit=200)}"
        ) from error


def _too_long(where: str, what: str, length: int) -> str:
    return f"{where}: the {what} has {length} characters; at most {MAX_TEXT} are taken"


def _kind(value: Any) -> str:
    return "nothing (None)" if value is None else f"a value of type {type(value).__name__}"


def _place(method: Method, trace: TracebackType | None) -> str:
    """`` at file.py:12``: the innermost line in the file that defines the method."""
    file = getattr(sys.modules.get(type(method).__module__), "__file__", None)
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" at {file}:{line}" if line is not None else ""
