"""Names to parts: one lazy registry a kind.

A built-in is a line ``name -> "module:Class"``, so listing imports nothing. Third parties add
entry points in the group ``negbench.<kind>`` or call ``@registry.register("name")`` in a file that
``--plugin`` loads. A collision is an error that names both origins. ``NEGBENCH_PLUGINS=""`` turns
installed plug-ins off.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from negbench.errors import NegbenchError, PluginError, UnknownNameError, did_you_mean, one_line

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One registered name: where it comes from and how to load it."""

    name: str
    origin: str
    summary: str
    target: str | EntryPoint | type[Any]


class Registry(Generic[T]):
    """Lazy mapping from names to classes of one kind.

    Args:
        kind: singular noun for messages, for example ``method``.
        group: entry-point group of installed plug-ins.
        base: ``"module:Class"`` that every member has to subclass.
        builtins: name -> (``"module:Class"``, one line of what it does).
    """

    def __init__(
        self, kind: str, *, group: str, base: str, builtins: dict[str, tuple[str, str]]
    ) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._builtins = {
            name: Entry(name, f"negbench ({target})", summary, target)
            for name, (target, summary) in builtins.items()
        }
        self._local: dict[str, Entry] = {}
        self._installed: dict[str, Entry] | None = None

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator for local plug-ins; refuses a name that is taken."""

        def decorate(cls: type[T]) -> type[T]:
            module = sys.modules.get(cls.__module__)
            origin = str(getattr(module, "__file__", None) or cls.__module__)
            taken = self._find(name)
            if taken is not None and taken.origin != origin:
                raise PluginError(
                    f"{self.kind} {name!r} is defined twice: by {taken.origin} and by {origin}; "
                    "rename one of them"
                )
            summary = (cls.__doc__ or "").strip().splitlines()
            self._local[name] = Entry(name, origin, summary[0] if summary else "", cls)
            return cls

        return decorate

    def names(self) -> list[str]:
        """All known names, sorted; imports nothing."""
        return sorted({*self._builtins, *self._local, *self._plugins()})

    def entries(self) -> Iterator[Entry]:
        """All entries in order of their names; imports nothing."""
        for name in self.names():
            entry = self._find(name)
            if entry is not None:
                yield entry

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def get(self, name: str) -> type[T]:
        """The class behind `name`.

        Raises:
            UnknownNameError: nothing has this name.
            PluginError: the part cannot be imported, or is not of this kind.
        """
        entry = self._find(name)
        if entry is None:
            hint = did_you_mean(name, self.names())
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}; {hint} (`negbench list {self.kind}s` shows all)"
            )
        if isinstance(entry.target, type):
            cls: Any = entry.target
        else:
            try:
                if isinstance(entry.target, EntryPoint):
                    cls = entry.target.load()
                else:
                    cls = _load(entry.target)
            except NegbenchError:
                raise
            except (Exception, SystemExit) as error:
                raise PluginError(
                    f"{self.kind} {name!r} from {entry.origin} cannot be imported: "
                    f"{type(error).__name__}: {one_line(str(error), limit=300)}"
                ) from error
        base = _load(self._base)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise PluginError(
                f"{self.kind} {name!r} from {entry.origin} is not a subclass of "
                f"{self._base.replace(':', '.')}"
            )
        return cls

    def _find(self, name: str) -> Entry | None:
        for table in (self._local, self._builtins):
            if name in table:
                return table[name]
        return self._plugins().get(name)

    def _plugins(self) -> dict[str, Entry]:
        if self._installed is None:
            self._installed = {}
            if os.environ.get("NEGBENCH_PLUGINS", "on") != "":
                for point in entry_points(group=self.group):
                    self._add_installed(point)
        return self._installed

    def _add_installed(self, point: EntryPoint) -> None:
        assert self._installed is not None
        package = point.dist.name if point.dist is not None else point.value
        origin = f"package {package} ({point.value})"
        taken = self._builtins.get(point.name) or self._installed.get(point.name)
        if taken is not None:
            if taken.origin == origin:
                return
            raise PluginError(
                f"{self.kind} {point.name!r} is defined twice: by {taken.origin} and by {origin}; "
                'uninstall one, or set NEGBENCH_PLUGINS="" to leave installed plug-ins out'
            )
        self._installed[point.name] = Entry(point.name, origin, "installed plug-in", point)


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_plugin_file(path: str | Path) -> None:
    """Run a Python file so that its ``@register`` decorators take effect (``--plugin file.py``).

    Raises:
        PluginError: the file does not exist or fails while it is imported.
    """
    file = Path(path)
    if not file.is_file():
        raise PluginError(f"plug-in file {file} does not exist; give the path of a .py file")
    name = f"negbench_plugin_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"plug-in file {file} is not Python; give the path of a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except NegbenchError:
        raise
    except (Exception, SystemExit) as error:
        line = getattr(error.__traceback__, "tb_lineno", "?")
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(file):
                line = trace.tb_lineno
            trace = trace.tb_next
        raise PluginError(
            f"plug-in file {file} failed at line {line}: {type(error).__name__}: {error}"
        ) from error
