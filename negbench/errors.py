"""What can go wrong, as a tree.

NegbenchError             what a user can mend; told in one line, exit code 2
  UnknownNameError        a part, benchmark or parameter that does not exist
  ConfigError             a value that does not fit its parameter
  MissingError            weights, a file, a split or a package that is not at hand
  PluginError             a third party's part that failed or broke its contract
  DataError               input data that cannot be used
  RecordError             a run or cache that is torn, foreign or newer than this version
  StorageError            a folder that cannot be written, a disk that is full

Every message says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NegbenchError(Exception):
    """A problem that the user can mend, told in one line."""

    exit_code = 2

    def __str__(self) -> str:
        return one_line(super().__str__())


class UnknownNameError(NegbenchError):
    """A name that nothing answers to."""


class ConfigError(NegbenchError):
    """A value that does not fit its parameter."""


class MissingError(NegbenchError):
    """Weights, a file, a split or a package that is not at hand."""


class PluginError(NegbenchError):
    """A plug-in that failed or broke its contract."""


class DataError(NegbenchError):
    """Input data that cannot be used."""


class RecordError(NegbenchError):
    """A run, cache or entry on disk that is torn, foreign or newer than this version."""


class StorageError(NegbenchError):
    """A folder that cannot be written, or a disk that is full."""


def one_line(text: str, *, limit: int = 600) -> str:
    """`text` on one line, control characters made visible, bounded to `limit` characters."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A closing half sentence that names the nearest known names, or all of them if few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if len(names) <= 12:
        return f"known: {', '.join(names) or 'none'}"
    return f"known: {', '.join(names[:12])} and {len(names) - 12} more"
