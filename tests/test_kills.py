"""Killed, crowded, damaged and full: the same command goes on, or says why in one line."""

from __future__ import annotations

import builtins
import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import MeanRow, plan_options, use_metrics

from negbench.errors import RecordError, StorageError
from negbench.evaluate import evaluate
from negbench.metrics.base import ImageMetric, Network
from negbench.plan import make_plan
from negbench.types import Ref, Score

HARNESS = Path(__file__).with_name("kill_harness.py")


def killed(tmp_path, *, points, seed):
    out = subprocess.run(
        [sys.executable, HARNESS, tmp_path, str(points), str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    result = json.loads(out.stdout.splitlines()[-1])
    assert result["samples"] == 14
    assert result["operations"] > 100
    assert not result["failures"]


def test_a_run_killed_at_random_points_ends_with_the_same_record(tmp_path):
    killed(tmp_path, points=3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_at_a_hundred_random_points_ends_with_the_same_record(tmp_path):
    killed(tmp_path, points=100, seed=2)


class Colors(Network):
    """Mean colour."""

    def ref(self):
        return Ref(name="colors")

    def check(self):
        pass

    def embed_images(self, images):
        return np.stack([image.mean(axis=(0, 1)) for image in images]).astype(np.float32)


COLORS = Colors()


class Warmth(ImageMetric):
    """Red minus blue."""

    def networks(self):
        return {"colors": COLORS}

    def score(self, items):
        return [Score.of(i.features["colors"][0] - i.features["colors"][2]) for i in items]


@pytest.fixture(autouse=True)
def _own_metrics(monkeypatch):
    use_metrics(monkeypatch, warmth=Warmth, corner=MeanRow)


def plan(folder, **changes):
    prompts = folder / "prompts.txt"
    if not prompts.exists():
        prompts.write_text("".join(f"a castle {n}\n" for n in range(5)))
    options = {
        "methods": ["static"],
        "metrics": ["no_op", "warmth", "corner"],
        "prompts": prompts,
        **plan_options(folder, steps=3),
    }
    return make_plan(**{**options, **changes})


def essence(record):
    return (
        record.model_dump(mode="json", exclude={"provenance"}),
        [sample.model_dump(mode="json") for sample in record.samples()],
    )


def flip(path):
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)


DAMAGES = {
    "a picture cut off": ("images/*/*.png", lambda path: path.write_bytes(path.read_bytes()[:40])),
    "a picture with another byte": ("images/*/*.png", flip),
    "an empty picture": ("images/*/*.png", lambda path: path.write_bytes(b"")),
    "a lost picture": ("images/*/*.png", Path.unlink),
    "lost facts": ("images/*/*.json", Path.unlink),
    "facts that are no JSON": ("images/*/*.json", lambda path: path.write_text("{")),
    "facts of another kind": ("images/*/*.json", lambda path: path.write_text('{"schema": "x"}')),
    "features with another byte": ("features/*/*.bin", flip),
    "features cut off": (
        "features/*/*.bin", lambda path: path.write_bytes(path.read_bytes()[:-7])
    ),
    "a torn score": ("scores/*.jsonl", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    "rates that are no JSON": ("rates.json", lambda path: path.write_text("[")),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_mended(tmp_path, damage):
    [wanted] = evaluate(plan(tmp_path))
    pattern, harm = DAMAGES[damage]
    for path in sorted((tmp_path / "cache").glob(pattern)):
        harm(path)
    # another folder of runs, so that everything is looked up again
    [again] = evaluate(plan(tmp_path, out=tmp_path / "other"))
    assert essence(again) == essence(wanted)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("cache/scores/*.jsonl", b'{"key": "a"\n{}\n'),
        ("cache/scores/*.jsonl", b'{"nothing": 1}\n'),
        ("cache/scores/*.jsonl", b'{"key": "a", "value": 1, "unscored": "b"}\n'),
        ("cache/features/*/network.json", b"{"),
        ("runs/*/*/*/samples/*.jsonl", b'{"case": 1}\n'),
        ("runs/*/*/*/run.json", b"{"),
    ],
)
def test_what_cannot_be_mended_is_named_in_one_line(tmp_path, pattern, text):
    wanted = essence(*evaluate(plan(tmp_path)))
    [path] = tmp_path.glob(pattern)
    path.write_bytes(text)
    with pytest.raises(RecordError) as error:
        evaluate(plan(tmp_path, metrics=["no_op", "warmth", "corner", "evaluations"]))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    # doing what it says is enough
    path.unlink()
    [again] = evaluate(plan(tmp_path))
    assert essence(again) == wanted


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch, number):
    (tmp_path / "whole").mkdir()
    [wanted] = evaluate(plan(tmp_path / "whole"))
    rng = random.Random(number)
    (tmp_path / "full").mkdir()
    plan(tmp_path / "full")
    for count in sorted(rng.sample(range(1, 60), 6)):
        with monkeypatch.context() as patch:
            fail_at(patch, count, number)
            with pytest.raises(
                StorageError, match=r"free some space|choose another folder"
            ) as error:
                evaluate(plan(tmp_path / "full"))
            assert "\n" not in str(error.value)
    [record] = evaluate(plan(tmp_path / "full"))
    assert essence(record) == essence(wanted)


def fail_at(patch, count, number):
    """From the operation with this number on nothing can be written."""
    left = [count]

    def spent():
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(number, os.strerror(number))

    for name in ("write", "fsync", "replace", "mkdir"):
        real = getattr(os, name)
        patch.setattr(os, name, lambda *a, _real=real, **k: (spent(), _real(*a, **k))[1])
    real_open = builtins.open

    def open_(file, mode="r", *arguments, **options):
        if any(sign in mode for sign in "wax+"):
            spent()
        return real_open(file, mode, *arguments, **options)

    patch.setattr(builtins, "open", open_)
    patch.setattr("io.open", open_)


def test_a_disk_that_is_really_full(tmp_path):
    """On a tiny file system of its own, where the kernel lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("may not mount a file system")
    try:
        with pytest.raises(StorageError, match="disk is full"):
            evaluate(plan(tmp_path, cache=disk / "cache"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StorageError, match="read-only"):
            evaluate(plan(tmp_path, cache=disk / "cache", out=tmp_path / "o"))
        subprocess.run(["mount", "-o", "remount,rw,size=9m", str(disk)], check=True)
        [record] = evaluate(plan(tmp_path, cache=disk / "cache"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
    [wanted] = evaluate(plan(tmp_path, out=tmp_path / "fresh", cache=tmp_path / "fresh-cache"))
    assert essence(record) == essence(wanted)
