"""Find what a model draws unasked, and make removal cases of it."""

from __future__ import annotations

from negbench.discover.discover import Discovery, discover, write_cases

__all__ = ["Discovery", "discover", "write_cases"]
