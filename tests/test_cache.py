"""The cache: what it holds, what is damaged, what nobody needs."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from negbench.cache.contents import drop_damage, find_damage, find_garbage, sizes
from negbench.cli import app
from negbench.errors import ConfigError
from negbench.evaluate import evaluate
from negbench.plan import make_plan
from negbench.store import FeatureStore, ImageStore
from negbench.types import Ref, sha256_hex


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def run(tmp_path, cache, text):
    path = tmp_path / "p.csv"
    path.write_text("id,prompt\na,a castle\nb,a house\n")
    [record] = evaluate(
        make_plan(
            methods=["static"],
            method_params={"text": text},
            generator="fake",
            generator_params={"size": 16, "steps": 4},
            metrics=["no_op", "evaluations"],
            prompts=path,
            replicates=1,
            out=tmp_path / "runs" / text,
            cache=cache,
        )
    )
    return record


def age(folder, days):
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - days * 86_400,) * 2)


def test_sizes_count_every_file(tmp_path, cache):
    run(tmp_path, cache, "ugly")
    kinds = {kind.name: kind for kind in sizes(cache)}
    assert kinds["images"].files == 2 * 2 * 2
    whole = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    assert sum(kind.bytes for kind in kinds.values()) == whole


def test_each_kind_of_damage_is_found_and_mended_by_drawing_again(tmp_path, cache):
    record = run(tmp_path, cache, "ugly")
    network = Ref(name="n")
    FeatureStore(cache, network).put([sha256_hex(b"x")], np.ones((1, 4), np.float32))
    assert find_damage(cache) == []
    store = ImageStore(cache)
    first, second = record.samples()
    Image.new("RGB", (16, 16)).save(store.png_path(first.treated.key))
    store.png_path(first.twin.key).write_bytes(b"\x89PNG")
    facts = store.png_path(second.treated.key).with_suffix(".json")
    changed = json.loads(facts.read_text())
    changed["request"]["seed"] += 1
    facts.write_text(json.dumps(changed))
    [scores] = (cache / "scores").glob("*.jsonl")
    whole = scores.read_bytes()
    scores.write_bytes(whole + b'{"key": "00", "value": NaN}\n' + b'{"torn')
    [rows] = (cache / "features").rglob("*.bin")
    rows.write_bytes(b"\xff" + rows.read_bytes()[1:])
    found = find_damage(cache)
    assert sorted(d.what for d in found) == [
        "1 rows fail their checksum",
        "cannot be read as a picture",
        "not a score",
        "other pixels than were drawn",
        "the request has another key",
    ]
    drop_damage(cache, found)
    assert find_damage(cache) == []
    assert scores.read_bytes() == whole + b'{"torn'
    for path in (record.folder / "samples").iterdir():
        path.unlink()
    again = run(tmp_path, cache, "ugly")
    assert [s.treated.image for s in again.samples()] == [first.treated.image, second.treated.image]
    assert find_damage(cache) == []


def test_gc_keeps_what_runs_need_and_what_is_young(tmp_path, cache):
    kept = run(tmp_path, cache, "ugly")
    run(tmp_path, cache, "bad")
    (cache / "images" / ".x.part").write_bytes(b"half")
    assert find_garbage(cache, [kept]).files == []
    age(cache, 3)
    garbage = find_garbage(cache, [kept])
    assert (garbage.images, garbage.kept) == (2, 4)  # the twins are shared
    command = ["cache", "gc", str(kept.folder), "--cache", str(cache)]
    outcome = CliRunner().invoke(app, [*command, "--dry-run"])
    assert "2 pictures (5 files" in outcome.stdout
    assert len(list(cache.rglob("*.png"))) == 6
    assert CliRunner().invoke(app, command).exit_code == 0
    assert len(list(cache.rglob("*.png"))) == 4
    assert not list(cache.rglob("*.part"))
    assert find_damage(cache) == []


def test_verify_ends_with_one_where_something_is_damaged(tmp_path, cache):
    record = run(tmp_path, cache, "ugly")
    command = ["cache", "verify", "--cache", str(cache)]
    assert CliRunner().invoke(app, command).exit_code == 0
    ImageStore(cache).png_path(record.samples()[0].treated.key).write_bytes(b"x")
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 1
    assert "1 damaged" in outcome.stdout
    outcome = CliRunner().invoke(app, [*command, "--drop", "--json"])
    assert outcome.exit_code == 0
    missing = CliRunner().invoke(app, ["cache", "check", "--cache", str(tmp_path / "no")])
    assert isinstance(missing.exception, ConfigError)
