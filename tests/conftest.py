"""What all tests share: no ambient plug-ins, no network, a cache of their own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _closed_world(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NEGBENCH_PLUGINS", "")
    monkeypatch.setenv("NEGBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
