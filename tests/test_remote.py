"""A cache in object storage: shared, killed, cut off, damaged; memory:// and file:// for it."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from command_line import run
from fsspec.implementations.memory import MemoryFileSystem
from kill_harness import PLUGIN
from PIL import Image
from small_runs import castles

from negbench import remote
from negbench.errors import ConfigError, MissingError, NegbenchError, StorageError
from negbench.evaluate import evaluate
from negbench.files import LineWriter
from negbench.forecast import forecast
from negbench.generators.fake import FakeGenerator
from negbench.plan import make_plan
from negbench.record import load_record
from negbench.registry import load_plugin_file
from negbench.remote import mirror, objects, outbox, remote_of
from negbench.remote.objects import Objects, passes
from negbench.store import FeatureStore, ImageStore, default_cache
from negbench.types import Ref, sha256_hex

URL = "memory://bucket/cache"
METRICS = ("no_op", "evaluations", "warmth", "corner")
PLAIN = ("no_op", "evaluations", "corner")
IMAGES = 16


@pytest.fixture(autouse=True)
def _storage(tmp_path, monkeypatch):
    MemoryFileSystem.store.clear()
    monkeypatch.setattr(remote, "_known", {})
    monkeypatch.setattr(objects, "WAITS", (0.0, 0.0, 0.0))
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "prompts.csv").write_text(castles(4, even=""))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Another machine, or the same one again: a cache folder, nothing known of storage."""

    def start(name, url=URL):
        monkeypatch.setenv("NEGBENCH_CACHE", str(tmp_path / name))
        monkeypatch.setattr(remote, "_known", {})
        return mirror(url)

    load_plugin_file(tmp_path / "plugin.py")
    return start


def draw(tmp_path, cache, *, runs="runs", **changes):
    """A record, its plan and how many pictures were drawn."""
    resolved = make_plan(
        **{
            "methods": ["static"],
            "method_params": {"text": "blurry"},
            "generator": "fake",
            "generator_params": {"size": 16, "steps": 4},
            "metrics": list(METRICS),
            "prompts": tmp_path / "prompts.csv",
            "replicates": 2,
            "out": tmp_path / cache.parent.parent.name / runs,
            "cache": cache,
            **changes,
        }
    )
    [record] = evaluate(resolved)
    return record, record.provenance["sessions"][-1]["images_drawn"]


def essence(record):
    return (
        record.plan_digest,
        record.status,
        [sample.model_dump(mode="json") for sample in record.samples()],
        [item.model_dump(mode="json") for item in (*record.estimates, *record.twin_estimates)],
    )


def shared(folder):
    """Names and bytes of what is shared, of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for kind in ("images", "features", "scores", "treatments")
        for path in (folder / kind).rglob("*")
        if path.is_file()
    }


def in_memory():
    head = "/bucket/cache/"
    found = {k.removeprefix(head): v.getvalue() for k, v in MemoryFileSystem.store.items()}
    return {k: v for k, v in found.items() if "/" in k}


def unsent(cache):
    folder = cache / "unsent"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def break_storage(monkeypatch, fault, *names):
    """Have file system calls ask `fault(call, path)` first; returns a list of the calls made."""
    calls = []
    for name in names or ("put_file", "get_file", "find", "ls", "rm_file"):
        real = getattr(MemoryFileSystem, name)

        def call(self, *args, _name=name, _real=real, **kwargs):
            calls.append((_name, args))
            fault(_name, args)
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, name, call)
    return calls


def test_a_second_machine_draws_and_scores_nothing(tmp_path, machine, monkeypatch):
    first_cache = machine("one")
    first, drawn = draw(tmp_path, first_cache)
    assert drawn == IMAGES
    assert unsent(first_cache) == []
    assert in_memory() == shared(first_cache)
    second_cache = machine("two")
    assert second_cache != first_cache

    def forbidden(*args, **kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr(FakeGenerator, "draw", forbidden)
    monkeypatch.setattr(LineWriter, "append", _only_samples(LineWriter.append))
    second, drawn = draw(tmp_path, second_cache)
    assert drawn == 0
    assert essence(second) == essence(first)
    assert shared(second_cache) == shared(first_cache)


def _only_samples(append):
    def call(self, value):
        assert self.path.parent.name == "samples"
        append(self, value)

    return call


def test_listing_is_all_that_a_forecast_asks_for(tmp_path, machine, monkeypatch):
    draw(tmp_path, machine("one"))
    cache = machine("two")
    resolved = make_plan(
        methods=["static"], method_params={"text": "blurry"}, generator="fake",
        generator_params={"size": 16, "steps": 4}, metrics=list(METRICS), replicates=2,
        prompts=tmp_path / "prompts.csv", cache=cache, dry=True,
    )  # fmt: skip
    calls = break_storage(monkeypatch, lambda *_: None)
    assert forecast(resolved).images_to_draw == 0
    assert {args[0] for name, args in calls if name not in ("find", "ls")} == {
        "/bucket/cache/negbench-cache.json"
    }
    assert not (cache / "images").exists()


def test_a_finished_run_asks_storage_nothing(tmp_path, machine, monkeypatch):
    first, _ = draw(tmp_path, machine("one"))
    cache = machine("one")
    calls = break_storage(monkeypatch, lambda *_: None)
    again, _ = draw(tmp_path, cache)
    assert essence(again) == essence(first)
    assert calls == []


def test_what_one_kill_left_the_next_run_sends(tmp_path, machine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(outbox.Outbox, "_start", lambda self: None)
        patch.setattr(remote.Remote, "finish", lambda self, **_: None)
        cache = machine("one")
        first, _ = draw(tmp_path, cache)
    assert in_memory() == {}
    assert unsent(cache)
    assert machine("one") == cache
    assert remote_of(cache).waiting() == len(shared(cache))
    again, _ = draw(tmp_path, machine("one"))
    assert essence(again) == essence(first)
    assert in_memory() == shared(cache)
    assert unsent(cache) == []
    assert remote_of(cache).waiting() == 0


def test_faults_that_pass_change_nothing(tmp_path, machine, monkeypatch):
    chance = random.Random(7)
    seen = set()

    def fault(name, args):
        if (name, str(args)) not in seen and chance.random() < 0.5:
            seen.add((name, str(args)))
            raise ConnectionResetError("reset by peer")

    calm, _ = draw(tmp_path, tmp_path / "plain" / "x" / "y")
    break_storage(monkeypatch, fault)
    for name, expected in (("one", IMAGES), ("two", 0)):
        record, drawn = draw(tmp_path, machine(name))
        assert essence(record) == essence(calm)
        assert drawn == expected
    assert len(seen) > 20


def test_storage_that_dies_in_the_middle_costs_a_warning(tmp_path, machine, monkeypatch, capfd):
    count = 0

    def fault(name, args):
        nonlocal count
        count += name == "put_file"
        if count > 6:
            raise TimeoutError("no answer")

    cache = machine("one")
    with monkeypatch.context() as patch:
        calls = break_storage(patch, fault)
        record, drawn = draw(tmp_path, cache)
        assert (record.status, drawn) == ("complete", IMAGES)
        assert len(calls) < 100
        [line] = capfd.readouterr().err.splitlines()
        waiting = len(shared(cache)) - len(in_memory())
        said = int(line.split()[1])
        assert waiting <= said <= waiting + 3  # a picture that came without its facts goes again
        assert "files were not sent" in line
        assert "no answer" in line
        assert "the next run sends them" in line
    cache = machine("one")
    again, drawn = draw(tmp_path, cache)
    assert essence(again) == essence(record)
    assert in_memory() == shared(cache)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError("Access Denied"), "permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "it is full"),
    ],
)
def test_storage_that_takes_nothing_is_read(tmp_path, machine, monkeypatch, capfd, error, said):
    first, _ = draw(tmp_path, machine("one"), metrics=["no_op"])

    def fault(name, args):
        raise error

    calls = break_storage(monkeypatch, fault, "put_file")
    cache = machine("two")
    record, drawn = draw(tmp_path, cache)
    assert drawn == 0
    assert [s.treated.image for s in record.samples()] == [s.treated.image for s in first.samples()]
    [line] = capfd.readouterr().err.splitlines()
    assert said in line
    assert len(calls) <= outbox.SENDERS


def test_storage_that_cannot_be_reached_at_the_start_is_one_line(
    tmp_path, machine, monkeypatch, capfd
):
    machine("one")

    def fault(name, args):
        raise ConnectionError("name resolution failed")

    calls = break_storage(monkeypatch, fault)
    code, out, err = run(
        capfd, "evaluate", "-m", "static", "-p", "text=x", "--generator", "fake", "--metric",
        "no_op", "--prompts", tmp_path / "prompts.csv", "--out", tmp_path / "r", "--cache", URL,
    )  # fmt: skip
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith(f"negbench: cannot read {URL}: no connection (name resolution failed)")
    assert len(calls) == len(objects.WAITS) + 1


def test_a_mistake_in_the_url_is_one_line(machine, monkeypatch, capfd):
    for url, said in (
        ("nope://bucket/x", "Protocol not known"),
        ("s3://", "names no bucket"),
        ("s3:/bucket/x", "write s3://bucket/x, or ./s3:/bucket/x"),
        ("ftp://me:secret@host/x", "holds a password"),
    ):
        code, _, err = run(capfd, "cache", "sync", "--cache", url)
        assert code == 2
        [line] = err.splitlines()
        assert said in line
        assert "secret" not in line

    def absent(url, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(MissingError, match=r"pip install 'negbench\[s3\]'"):
        Objects("s3://bucket/x")
    with pytest.raises(MissingError, match=r"pip install 'negbench\[gcs\]'"):
        Objects("gs://bucket/x")


def test_no_cache_of_a_newer_version_is_read(tmp_path, machine):
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/cache/negbench-cache.json", b'{"schema": 2}')
    with pytest.raises(NegbenchError, match="upgrade negbench"):
        draw(tmp_path, machine("one"))


def test_pictures_damaged_there_are_drawn_again_and_replaced(tmp_path, machine):
    first, _ = draw(tmp_path, machine("one"))
    whole = in_memory()
    fs = fsspec.filesystem("memory")
    pngs = sorted(name for name in whole if name.endswith(".png"))
    fs.pipe_file(f"/bucket/cache/{pngs[0]}", whole[pngs[0]][:-20])
    fs.pipe_file(f"/bucket/cache/{pngs[1]}", whole[pngs[2]])  # a picture, but another one
    fs.pipe_file(f"/bucket/cache/{pngs[3][:-3]}json", b"[]")
    fs.rm_file(f"/bucket/cache/{pngs[4]}")
    cache = machine("two")
    second, drawn = draw(tmp_path, cache)
    assert essence(second) == essence(first)
    assert drawn == 4
    assert {k: v for k, v in in_memory().items() if k.endswith(".png")} == {
        name: whole[name] for name in pngs
    }


def test_damaged_scores_and_features_there_are_made_again(tmp_path, machine, capfd):
    first, _ = draw(tmp_path, machine("one"))
    fs = fsspec.filesystem("memory")
    for name, data in in_memory().items():
        if name.startswith("scores/"):
            fs.pipe_file(f"/bucket/cache/{name}", b'{"key": 1}\n' + data)
        elif name.endswith(".bin"):
            fs.pipe_file(f"/bucket/cache/{name}", b"\xff" + data[1:])
    second, drawn = draw(tmp_path, machine("two"))
    assert essence(second) == essence(first)
    assert drawn == 0
    assert "1 damaged files" in capfd.readouterr().err


def test_names_that_lead_out_of_the_folder_are_not_fetched(tmp_path, machine):
    fs = fsspec.filesystem("memory")
    for name in ("scores/../../../evil.jsonl", "scores/..", "scores/.hidden.jsonl", "other/x.json"):
        MemoryFileSystem.store[f"/bucket/cache/{name}"] = fs.open(
            "/t", "wb", data=b"{}\n"
        ).__class__(fs, f"/bucket/cache/{name}", b'{"key": "x"}\n')
    MemoryFileSystem.store.pop("/t", None)
    cache = machine("one")
    before = sorted(tmp_path.rglob("*"))
    assert remote_of(cache).sync().fetched == 0
    remote_of(cache).pull(cache / "scores")
    after = set(tmp_path.rglob("*")) - set(before)
    assert {path.name for path in after} <= {"negbench-cache.json"}


def test_a_run_folder_from_elsewhere_connects_to_nothing(tmp_path, machine):
    machine(tmp_path / "here")
    mirrored = mirror("memory://bucket/shared")
    assert remote_of(mirrored).url == "memory://bucket/shared"
    shutil.copytree(mirrored, tmp_path / "run")
    assert (tmp_path / "run" / "remote.json").is_file()
    assert remote_of(tmp_path / "run") is None


def test_appended_files_are_sent_once_a_minute_each_time_a_new_one(tmp_path, machine, monkeypatch):
    monkeypatch.setattr(outbox, "INTERVAL", 0.0)
    cache = machine("one")
    store = FeatureStore(cache, Ref(name="n"))
    calls = break_storage(monkeypatch, lambda *_: None, "put_file")
    for n in range(5):
        store.put([sha256_hex(str(n).encode())], np.full((1, 4), n, np.float32))
        remote_of(cache)._outbox.empty(limit_s=None)
    files = [Path(args[0]).name for _, args in calls]
    bins = [name for name in files if name.endswith(".bin")]
    assert len(bins) == len(set(bins)) == 5
    assert in_memory() == shared(cache)
    machine("two")
    again = FeatureStore(mirror(URL), Ref(name="n"))
    assert not again.missing(sha256_hex(str(n).encode()) for n in range(5))
    # within a minute nothing is sent
    monkeypatch.setattr(outbox, "INTERVAL", 60.0)
    before = len(calls)
    other = FeatureStore(mirror(URL), Ref(name="n"))
    for n in range(5, 9):
        other.put([sha256_hex(str(n).encode())], np.full((1, 4), n, np.float32))
    assert len(calls) == before


def test_slow_storage_is_not_waited_for_longer_than_there_is_time():
    gate = threading.Event()
    box = outbox.Outbox(lambda name: gate.wait(20) and None)
    names = [f"scores/{n}.jsonl" for n in range(20)]
    for name in names:
        box.add(name, now=True)
    start = time.monotonic()
    assert sorted(box.empty(limit_s=0.1)) == sorted(names)
    assert time.monotonic() - start < 5
    gate.set()
    assert box.empty(limit_s=None) == []


def test_sync_goes_both_ways_and_check_says_what_waits(tmp_path, machine, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "finish", lambda self, **_: None)
        patch.setattr(outbox.Outbox, "_start", lambda self: None)
        cache = machine("one")
        draw(tmp_path, cache)
    machine("one")
    code, out, _ = run(capfd, "cache", "check", "--cache", URL, "--json")
    files = len(shared(cache))
    assert json.loads(out)["remote"] == {"url": URL, "waiting": files}
    assert in_memory() == {}
    code, out, _ = run(capfd, "cache", "check", "--cache", URL)
    assert f"{URL}: {files} files wait to be sent" in out
    code, out, _ = run(capfd, "cache", "sync", "--cache", URL, "--json")
    assert (code, json.loads(out)["sent"], json.loads(out)["fetched"]) == (0, files, 0)
    assert in_memory() == shared(cache)
    other = machine("two")
    code, out, _ = run(capfd, "cache", "sync", "--cache", URL)
    assert out == f"{URL}: {files} files fetched, 0 sent\n"
    assert shared(other) == shared(cache)
    code, out, _ = run(capfd, "cache", "sync", "--cache", URL)
    assert out == f"{URL}: 0 files fetched, 0 sent\n"
    code, _, err = run(capfd, "cache", "sync", "--cache", tmp_path / "two")
    assert code == 2
    assert "belongs to no object storage" in err


def test_what_storage_lost_sync_sends_again(tmp_path, machine):
    cache = machine("one")
    draw(tmp_path, cache)
    for name in list(MemoryFileSystem.store)[::3]:
        del MemoryFileSystem.store[name]
    machine("one")
    remote_of(cache).sync()
    assert in_memory() == shared(cache)


def test_a_report_fetches_the_pictures_it_shows(tmp_path, machine, capfd):
    record, _ = draw(tmp_path, machine("one"))
    machine("two")
    out = tmp_path / "report.html"
    code, _, _ = run(capfd, "report", record.folder, "--out", out, "--cache", URL)
    assert code == 0
    assert len(list(mirror(URL).rglob("*.png"))) == IMAGES


def test_verify_drops_what_lies_here_only(tmp_path, machine, capfd):
    record, _ = draw(tmp_path, machine("one"))
    cache = machine("one")
    Image.new("RGB", (16, 16)).save(ImageStore(cache).png_path(record.samples()[0].treated.key))
    before = in_memory()
    assert run(capfd, "cache", "verify", "--drop", "--cache", URL)[0] == 0
    assert in_memory() == before
    _, drawn = draw(tmp_path, machine("one"), runs="again")
    assert drawn == 0


def test_the_variable_takes_a_url_and_weights_stay_with_the_machine(tmp_path, machine, monkeypatch):
    from negbench.metrics.weights import weights_dir

    here = machine("one")
    assert weights_dir() == tmp_path / "one" / "weights"
    monkeypatch.delenv("NEGBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    weights = weights_dir()
    monkeypatch.setenv("NEGBENCH_CACHE", URL + "/")
    assert default_cache() == tmp_path / "xdg" / "negbench" / "remotes" / here.name
    assert weights_dir() == weights
    monkeypatch.setenv("NEGBENCH_CACHE", str(tmp_path / "plain"))
    assert default_cache() == tmp_path / "plain"


def test_what_passes_and_what_does_not():
    assert passes(ConnectionResetError())
    assert passes(OSError(errno.EBUSY, "slow down"))
    assert passes(TimeoutError())
    for error in (PermissionError(), OSError(errno.ENOSPC, ""), ValueError("x"), ConfigError("x")):
        assert passes(error) == isinstance(error, ConfigError)
    no_keys = type("NoCredentialsError", (Exception,), {})("Unable to locate credentials")
    assert not passes(no_keys)
    assert "AWS_PROFILE" in objects.reason(no_keys)


def test_storage_of_a_folder_shows_no_half_file(tmp_path, monkeypatch):
    place = Objects(f"file://{tmp_path}/there")
    (tmp_path / "x.json").write_bytes(b"{}" * 1000)

    def torn(source, target):
        Path(target).write_bytes(b"{}")
        raise OSError(errno.EIO, "torn")

    place.put(tmp_path / "x.json", "scores/x.json")
    monkeypatch.setattr(shutil, "copyfile", torn)
    for name in ("scores/x.json", "scores/y.json"):
        with pytest.raises(StorageError, match="torn"):
            place.put(tmp_path / "x.json", name)
    assert place.names("scores") == {"scores/x.json": 2000}
    assert [path.name for path in (tmp_path / "there" / "scores").iterdir()] == ["x.json"]


def command(tmp_path, name, *more):
    arguments = (
        "evaluate -m static -p text=blurry --generator fake -o size=16 -o steps=4 --replicates 2 "
        + " ".join(f"--metric {metric}" for metric in PLAIN)
    ).split()
    paths = ["--plugin", tmp_path / "plugin.py", "--prompts", tmp_path / "prompts.csv",
             "--out", tmp_path / name / "runs", "--cache", f"file://{tmp_path}/there"]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "negbench", *arguments, *map(str, paths), *more],
        env={**os.environ, "NEGBENCH_CACHE": str(tmp_path / name)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once_then_a_third_machine_draws_nothing(tmp_path, machine):
    both = [command(tmp_path, f"m{k}", "--shard", f"{k}/2") for k in (1, 2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    alone, _ = draw(tmp_path, tmp_path / "plain" / "x" / "y", metrics=PLAIN)
    record, drawn = draw(tmp_path, machine("m3", f"file://{tmp_path}/there"), metrics=PLAIN)
    assert drawn == 0
    assert essence(record) == essence(alone)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_stopped_leaves_nothing_unsent_for_long(tmp_path, machine, number):
    process = command(tmp_path, "one", "-o", "delay=0.1")
    there = tmp_path / "there"
    end = time.monotonic() + 100
    while len(list(there.glob("images/*/*.json"))) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=60)
    cache = tmp_path / "one" / "remotes" / machine("one", f"file://{there}").name
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert unsent(cache) == []
        assert all((there / name).is_file() for name in shared(cache) if name.endswith(".json"))
    else:
        assert process.returncode == -number
        assert unsent(cache)
    record, drawn = draw(tmp_path, cache, metrics=PLAIN)
    assert 0 < drawn < IMAGES
    alone, _ = draw(tmp_path, tmp_path / "plain" / "x" / "y", metrics=PLAIN)
    assert essence(record) == essence(alone)
    images = {k: v for k, v in shared(cache).items() if k.endswith(".json")}
    assert {k: (there / k).read_bytes() for k in images} == images
    assert load_record(record.folder).status == "complete"
