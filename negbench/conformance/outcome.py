"""The result of one check, and how checks are run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from negbench.errors import NegbenchError, one_line


@dataclass(frozen=True)
class Outcome:
    """One check.

    Attributes:
        check: its name.
        passed: whether it held; True also for what was left out, and `message` says why.
        message: what was found, in words.
    """

    check: str
    passed: bool
    message: str


class BrokenError(Exception):
    """A contract that does not hold; the message says what is wrong."""


def require(holds: object, message: str) -> None:
    """Break off the check with `message` unless `holds`.

    Raises:
        BrokenError: always then.
    """
    if not holds:
        raise BrokenError(message)


def run(check: str, body: Callable[[], str]) -> Outcome:
    """Run a check that returns what it found, or raises.

    Whatever the part raises becomes a failed check with the error's class and text.
    """
    try:
        return Outcome(check, passed=True, message=body())
    except BrokenError as broken:
        return Outcome(check, passed=False, message=one_line(str(broken)))
    except NegbenchError as error:
        return Outcome(check, passed=False, message=f"refused: {error}")
    except Exception as error:
        text = one_line(f"raised {type(error).__name__}: {error}", limit=400)
        return Outcome(check, passed=False, message=text)
