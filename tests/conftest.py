"""What all tests share: no ambient plug-ins, no network, a cache of their own."""

from __future__ import annotations

import os
import sys

if "PYTEST_XDIST_WORKER" in os.environ:
    # read once, when torch is imported: workers that spin on each other's cores take far longer
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from browser import chromium, visit  # noqa: F401

from negbench.generators import generators
from negbench.guidance import rules
from negbench.judges import judges
from negbench.methods import methods
from negbench.metrics import metrics


@pytest.fixture(autouse=True)
def _closed_world(tmp_path_factory, monkeypatch):
    for registry in (methods, metrics, rules, generators, judges):
        monkeypatch.setattr(registry, "_local", {})
    monkeypatch.setenv("NEGBENCH_PLUGINS", "")
    monkeypatch.setenv("NEGBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _subnormal_numbers():
    """Training flushes them to zero, for the whole process."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
