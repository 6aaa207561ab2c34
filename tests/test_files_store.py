"""Files that a kill cannot tear, and the stores built on them."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

from negbench.errors import RecordError, StorageError
from negbench.files import (
    LineWriter,
    read_json,
    read_lines,
    storage_error,
    write_atomic,
    write_json,
)
from negbench.generators.base import Drawn
from negbench.store import FeatureStore, ImageStore, ScoreStore, pixel_digest, text_key
from negbench.types import Guidance, ImageRequest, Ref, Score, Treatment


def request(seed: int = 0) -> ImageRequest:
    return ImageRequest(
        generator=Ref(name="fake"),
        treatment=Treatment(prompt="a", guidance=Guidance()),
        seed=seed,
    )


def drawn(seed: int = 0) -> Drawn:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    return Drawn(key=request(seed).key(), pixels=pixels, evaluations=50, facts={"a": 1})


def test_lines_survive_truncation_at_every_byte(tmp_path):
    writer = LineWriter(tmp_path)
    for n in range(3):
        writer.append({"n": n, "text": "ü\n\u2028"})
    writer.close()
    data = writer.path.read_bytes()
    whole = [n for n, byte in enumerate(data, start=1) if byte == 10]
    for cut in range(len(data) + 1):
        part = tmp_path / "part.jsonl"
        part.write_bytes(data[:cut])
        assert [line["n"] for line in read_lines(part)] == list(range(sum(e <= cut for e in whole)))


def test_a_damaged_line_is_an_error_with_file_and_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"n":1}\n{"n":\n{"n":3}\n')
    with pytest.raises(RecordError, match=r"a\.jsonl:2"):
        list(read_lines(path))


def test_deeply_nested_json_is_an_error_not_a_crash(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(RecordError):
        list(read_lines(path))


def test_writers_never_share_a_file(tmp_path):
    writers = [LineWriter(tmp_path) for _ in range(5)]
    assert len({writer.path for writer in writers}) == 5
    assert not any(writer.path.exists() for writer in writers), "no file before the first line"


def test_atomic_write_leaves_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})


def test_a_file_in_the_way_is_one_clear_line(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match=r"a part of the path is a file|in the way"):
        write_atomic(tmp_path / "f" / "x", b"")


def test_storage_error_names_path_and_remedy(tmp_path):
    text = str(storage_error(OSError(errno.EROFS, ""), tmp_path))
    assert str(tmp_path) in text
    assert "read-only" in text


def test_image_store_round_trip(tmp_path):
    store = ImageStore(tmp_path)
    image = drawn()
    assert store.get(image.key) is None
    stored = store.put(image, request(), provenance={"device": "cpu"})
    again = ImageStore(tmp_path).get(image.key)
    assert again == stored
    assert again.image == pixel_digest(image.pixels)
    np.testing.assert_array_equal(store.load(again), image.pixels)
    facts = json.loads((store.root / image.key[:2] / f"{image.key}.json").read_text())
    assert ImageRequest.model_validate(facts["request"]).key() == image.key


def test_half_written_and_altered_images_do_not_count(tmp_path):
    store = ImageStore(tmp_path)
    stored = store.put(drawn(), request(), provenance={})
    png = store.png_path(stored.key)
    kept = png.read_bytes()
    png.write_bytes(kept[:40])
    assert store.load(stored) is None
    other = store.put(drawn(1), request(1), provenance={})
    png.write_bytes(store.png_path(other.key).read_bytes())
    assert store.load(stored) is None
    png.unlink()
    assert store.get(stored.key) is None
    sidecar = png.with_suffix(".json")
    png.write_bytes(kept)
    sidecar.write_text('{"schema": 1')
    assert store.get(stored.key) is None


def test_an_image_of_a_newer_version_says_upgrade(tmp_path):
    store = ImageStore(tmp_path)
    stored = store.put(drawn(), request(), provenance={})
    sidecar = store.png_path(stored.key).with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"schema": 99}))
    with pytest.raises(RecordError, match="upgrade negbench"):
        store.get(stored.key)


def test_pixel_digest_knows_the_shape():
    flat = np.zeros((2, 6, 3), dtype=np.uint8)
    assert pixel_digest(flat) != pixel_digest(flat.reshape(6, 2, 3))


def test_features_survive_truncation_and_bit_rot(tmp_path):
    network = Ref(name="net", params={"sha": "x"})
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    keys = [text_key(str(n)) for n in range(3)]
    store = FeatureStore(tmp_path, network)
    store.put(keys, rows)
    path = next(store.folder.glob("*.bin"))
    data = path.read_bytes()
    size = len(data) // 3
    path.write_bytes(data[: 2 * size + 5])
    again = FeatureStore(tmp_path, network)
    assert again.missing(keys) == [keys[2]]
    np.testing.assert_array_equal(again[keys[1]], rows[1])
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert FeatureStore(tmp_path, network).missing(keys) == [keys[0]]


def test_features_of_another_network_are_refused(tmp_path):
    store = FeatureStore(tmp_path, Ref(name="net"))
    store.put([text_key("a")], np.zeros((1, 2), dtype=np.float32))
    write_json(store.folder / "network.json", {"network": {"name": "other"}, "width": 2})
    with pytest.raises(RecordError, match="another network"):
        FeatureStore(tmp_path, Ref(name="net"))


def test_scores_are_shared_between_processes(tmp_path):
    key = ScoreStore.key("m", "i", None, "p", "n")
    assert key != ScoreStore.key("m", "i", "", "pn", "")
    ScoreStore(tmp_path).put(key, Score.of(0.25))
    other = ScoreStore.key("m", "j", "t", "p", "n")
    ScoreStore(tmp_path).put(other, Score.missing("no twin"))
    store = ScoreStore(tmp_path)
    assert store.get(key) == Score(value=0.25)
    assert store.get(other) == Score(unscored="no twin")
