"""The page of a run: one file that works offline, shows everything and runs nothing of others'."""

from __future__ import annotations
