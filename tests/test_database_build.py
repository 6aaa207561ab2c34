"""`build-db` from sources to a data set: sums, splits that leak nothing, growth, checks."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from negbench.database.build import build_db
from negbench.database.card import card_text
from negbench.database.check import check_card, check_db
from negbench.database.commands import db_app
from negbench.database.config import BuildConfig, CleanConfig, SplitConfig, load_config
from negbench.database.load import load_db
from negbench.database.push import push_db
from negbench.errors import ConfigError, DataError, MissingError, RecordError, StorageError

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "validation", "test")


def rows(count: int, *, seed: int = 0, start: int = 0) -> list[dict[str, Any]]:
    """Pairs with exact and near duplicates, universal negatives and rows without a negative."""
    rng = random.Random(seed)
    words = [f"{a}{b}" for a, b in product("bcdfghklmn", ["ab", "er", "in", "ol", "un", "ase"])]
    lists = ["blurry, lowres", "bad anatomy, watermark, text", "ugly"]
    found: list[dict[str, Any]] = []
    for number in range(start, start + count):
        draw = rng.random()
        if found and draw < 0.3:
            prompt = rng.choice(found)["prompt"].split(" ")
            if draw < 0.2:
                prompt[rng.randrange(len(prompt))] = rng.choice(words)
            text = " ".join(prompt)
        else:
            text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 24)))
        negative: str | None = rng.choice(lists) if draw < 0.7 else f"{rng.choice(words)}, {number}"
        if draw > 0.97:
            negative = None
        found.append(
            {"id": f"r{number}", "prompt": text, "negative": negative,
             "created_at": f"{2022 + number % 3}-01-01", "likes": number % 5}
        )  # fmt: skip
    return found


def table(path: Path, data: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    return path


def build(out: Path, *sources: str, **options: Any) -> dict[str, Any]:
    config = BuildConfig(sources=sources, out=out, license="cc0-1.0", **options)
    return build_db(config, workers=1).manifest


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("db")
    table(folder / "rows.jsonl", rows(900))
    build(folder / "out", f"files:{folder}/rows.jsonl", name="sample")
    return folder / "out"


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = text.lower().split()
    return frozenset(tuple(words[i : i + 3]) for i in range(len(words) - 2))


def test_no_near_duplicate_stands_in_two_splits(db: Path) -> None:
    """Brute force, with plain Python sets of word 3-shingles."""
    frame = load_db(db)
    groups = [
        [(text, shingles(text)) for text in frame.filter(split=name)["prompt"].to_list()]
        for name in SPLITS
    ]
    for left, right in ((0, 1), (0, 2), (1, 2)):
        for (a, x), (b, y) in product(groups[left], groups[right]):
            assert a != b
            if x and y:
                assert len(x & y) < 0.8 * len(x | y), (a, b)


def test_sums_and_columns(db: Path) -> None:
    manifest = json.loads((db / "manifest.json").read_text())
    frame = load_db(db)
    excluded = pl.read_parquet(db / "excluded.parquet")
    assert len(frame) + len(excluded) == 900
    assert frame["id"].is_unique().all()
    reasons = {reason: n for step in manifest["funnel"] for reason, n in step["excluded"].items()}
    assert reasons == dict(excluded["reason"].value_counts().rows())
    assert reasons["no negative prompt"] > 5
    assert reasons["exact duplicate"] > 5
    assert set(excluded.filter(reason="exact duplicate")["near"]) <= set(frame["id"]) | set(
        excluded["id"]
    )
    counts = frame.group_by("negative").len()
    joined = frame.join(counts, on="negative")
    assert (joined["same_negative"] == joined["len"]).all()
    shares = {name: n / len(frame) for name, n in manifest["rows"].items()}
    assert 0.6 < shares["train"] < 0.97
    assert min(shares.values()) > 0.02
    assert not list(db.glob(".work"))


def test_other_programs_read_it(db: Path, tmp_path: Path) -> None:
    import datasets
    import pandas as pd

    frame = load_db(db, split="test")
    loaded = datasets.load_dataset(str(db), cache_dir=str(tmp_path))
    assert set(loaded) == set(SPLITS)
    assert loaded["test"]["prompt"][:] == frame["prompt"].to_list()
    assert loaded["test"][0]["prompt_tags"] == frame["prompt_tags"].to_list()[0]
    file = next((db / "data").glob("test-*"))
    assert len(pd.read_parquet(file)) == len(frame)
    lists = json.loads((db / "evaluation/v1.json").read_text())
    assert set(load_db(db, split="quality-1k")["id"]) == set(lists["quality-1k"])
    assert set(lists["quality-1k"]) <= set(lists["quality-5k"]) <= set(lists["test"])
    with pytest.raises(ConfigError, match="quality-1k"):
        load_db(db, split="tset")


def test_same_inputs_same_bytes_in_any_order(tmp_path: Path) -> None:
    data = rows(300)
    table(tmp_path / "a.jsonl", data[:150])
    table(tmp_path / "b.jsonl", data[150:])
    a, b = f"files:{tmp_path}/a.jsonl", f"files:{tmp_path}/b.jsonl"
    build(tmp_path / "x", a, b, name="same")
    build(tmp_path / "y", b, a, name="same")
    assert digests(tmp_path / "x") == digests(tmp_path / "y")
    data.reverse()
    table(tmp_path / "a.jsonl", [r for r in data if int(r["id"][1:]) < 150])
    build(tmp_path / "z", a, b, name="same")
    assert digests(tmp_path / "x" / "data") == digests(tmp_path / "z" / "data")
    build(tmp_path / "x", a, b, name="same")  # over the old one
    assert digests(tmp_path / "x") == digests(tmp_path / "z")


def splits_of(folder: Path) -> dict[str, str]:
    return dict(load_db(folder).select("id", "split").rows())


def test_a_data_set_grown_in_three_steps_keeps_every_split(tmp_path: Path) -> None:
    data = rows(900, seed=4)
    before: dict[str, str] = {}
    lists = b""
    for step in range(3):
        path = table(tmp_path / f"part{step}.jsonl", data[300 * step : 300 * (step + 1)])
        sources = [f"files:{path}"]
        if step == 1:
            sources.append(f"files:{tmp_path}/part0.jsonl")  # read again: taken from before
        previous = tmp_path / f"db{step - 1}" if step else None
        out = tmp_path / f"db{step}"
        manifest = build(out, *sources, previous=previous, name="grown")
        assert check_db(out) == []
        now = splits_of(out)
        assert {key: now[key] for key in before} == before
        if step:
            assert (out / "evaluation/v1.json").read_bytes() == lists
            assert sum(split != "train" for split in now.values()) == sum(
                split != "train" for split in before.values()
            )
            assert manifest["evaluation"]["frozen"]
        if step == 1:
            assert manifest["funnel"][5]["matched"] > 200
        lists = (out / "evaluation/v1.json").read_bytes()
        before = now
    test_no_near_duplicate_stands_in_two_splits(tmp_path / "db2")


def test_evaluation_may_grow_as_a_new_version(tmp_path: Path) -> None:
    data = rows(700, seed=5)
    table(tmp_path / "a.jsonl", data[:350])
    table(tmp_path / "b.jsonl", data[350:])
    build(tmp_path / "one", f"files:{tmp_path}/a.jsonl", name="v")
    before = splits_of(tmp_path / "one")
    manifest = build(
        tmp_path / "two", f"files:{tmp_path}/b.jsonl", name="v", previous=tmp_path / "one",
        new_evaluation=True,
    )  # fmt: skip
    now = splits_of(tmp_path / "two")
    assert {key: now[key] for key in before} == before
    assert manifest["evaluation"]["version"] == 2
    assert sum(s == "test" for s in now.values()) > sum(s == "test" for s in before.values())
    assert (tmp_path / "two/evaluation/v1.json").read_bytes() == (
        tmp_path / "one/evaluation/v1.json"
    ).read_bytes()
    assert check_db(tmp_path / "two") == []
    test_no_near_duplicate_stands_in_two_splits(tmp_path / "two")


def test_a_list_of_ids_brings_the_splits_back(tmp_path: Path, db: Path) -> None:
    """What can be shipped for a data set without a licence: ids, no text."""
    table(tmp_path / "rows.jsonl", rows(900))
    lists = db / "evaluation/v1.json"
    assert not any(word in lists.read_text() for word in ("blurry", "ugly"))
    build(tmp_path / "out", f"files:{tmp_path}/rows.jsonl", name="again", evaluation=lists)
    again, before = splits_of(tmp_path / "out"), splits_of(db)
    held = {key for key, split in before.items() if split != "train"}
    assert {key for key, split in again.items() if split != "train"} == held
    assert again == before
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(RecordError, match="evaluation ids"):
        build(tmp_path / "x", f"files:{tmp_path}/rows.jsonl", evaluation=tmp_path / "bad.json")


def test_the_cap_on_universal_negatives(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(3000)]
    data = [
        {"prompt": " ".join(words[6 * i : 6 * i + 6]), "negative": "blurry, bad"}
        for i in range(500)
    ]
    table(tmp_path / "x.jsonl", data)
    manifest = build(tmp_path / "out", f"files:{tmp_path}/x.jsonl", split=SplitConfig(cap_rows=4))
    assert manifest["rows"]["validation"] == manifest["rows"]["test"] == 4
    assert manifest["rows"]["train"] > 350


def test_large_clusters_go_to_training(tmp_path: Path) -> None:
    data = [{"prompt": "one two three four five six", "negative": f"bad {i}"} for i in range(30)]
    data += [{"prompt": f"only{i} here{i} now{i}", "negative": f"x{i}"} for i in range(200)]
    table(tmp_path / "x.jsonl", data)
    manifest = build(tmp_path / "out", f"files:{tmp_path}/x.jsonl")
    frame = load_db(tmp_path / "out").filter(pl.col("prompt").str.starts_with("one two"))
    assert set(frame["split"]) == {"train"}
    assert manifest["clusters"]["above_large_share"] == 1


def test_hostile_rows_are_counted_and_never_end_a_build(tmp_path: Path) -> None:
    data: list[dict[str, Any]] = [
        {"prompt": "a" * 1_000_000, "negative": "bad"},
        {"prompt": "nul \x00 byte cat", "negative": "bad\x07"},
        {"prompt": "naked child", "negative": "bad"},
        {"prompt": "a nude statue", "negative": "bad"},
        {"prompt": "=cmd|' /C calc'!A0 <script>alert(1)</script> | x", "negative": "![](http://x)"},
        {"prompt": "<lora:x:1>", "negative": "bad"},
        {"prompt": "unknown", "negative": "unknown"},
        {"prompt": "same words", "negative": "Same, words!"},
        {"prompt": "write me@x.org", "negative": "by @somebody"},
        *({"prompt": f"word{i} and{i} more{i}", "negative": "bad"} for i in range(40)),
    ]
    table(tmp_path / "x.jsonl", data)
    manifest = build(tmp_path / "out", f"files:{tmp_path}/x.jsonl", name="hostile")
    reasons = {r: n for step in manifest["funnel"] for r, n in step["excluded"].items()}
    assert reasons["text longer than N characters"] == 1
    assert reasons["sexual terms with terms for minors"] == 1
    assert reasons["prompt is empty after cleaning"] == 1
    assert reasons["a placeholder instead of a prompt"] == 1
    assert reasons["prompt and negative prompt are the same"] == 1
    excluded = pl.read_parquet(tmp_path / "out/excluded.parquet")
    withheld = excluded.filter(reason="sexual terms with terms for minors")
    assert withheld["prompt_raw"].to_list() == [None]
    assert excluded["prompt_raw"].str.len_chars().max() <= 2000
    everything = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*.md"))
    assert b"<script>" not in everything
    frame = load_db(tmp_path / "out")
    assert "me@x.org" not in str(frame["prompt_raw"].to_list())
    assert frame.filter(pl.col("prompt").str.contains("nude"))["nsfw"].to_list() == [True]
    assert check_db(tmp_path / "out") == []
    clean = CleanConfig(nsfw="exclude", languages=("en",))
    manifest = build(tmp_path / "safe", f"files:{tmp_path}/x.jsonl", clean=clean)
    reasons = {r: n for step in manifest["funnel"] for r, n in step["excluded"].items()}
    assert reasons["not safe for work"] == 1


def test_check_finds_what_was_changed(db: Path, tmp_path: Path) -> None:
    shutil.copytree(db, tmp_path / "db")
    assert check_db(tmp_path / "db") == []
    card = tmp_path / "db/data_cards/sample.md"
    card.write_text(card.read_text().replace("train", "trian"))
    assert check_db(tmp_path / "db") == ["data_cards/sample.md differs from the manifest (sha256)"]
    shutil.copytree(db, tmp_path / "db2")
    file = next((tmp_path / "db2/data").glob("test-*"))
    pl.read_parquet(file).head(3).write_parquet(file)
    (tmp_path / "db2/data/test-00001-of-00002.parquet").write_bytes(file.read_bytes())
    problems = check_db(tmp_path / "db2")
    assert any("differs" in p for p in problems)
    assert any("is not in the manifest" in p for p in problems)
    with pytest.raises(RecordError, match="is not whole"):
        build(tmp_path / "x", "miniature", previous=tmp_path / "db2")
    result = CliRunner().invoke(db_app, ["check", str(tmp_path / "db2"), "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stdout)["problems"]


class Api:
    def __init__(self) -> None:
        self.paths: list[str] = []

    def create_repo(self, repo: str, **options: Any) -> None:
        assert (repo, options["repo_type"]) == ("org/name", "dataset")

    def create_commit(self, *, operations: list[Any], **options: Any) -> Any:
        self.paths = sorted(operation.path_in_repo for operation in operations)
        return type("Commit", (), {"commit_url": "https://hub/commit"})


def test_push_publishes_what_licences_allow(db: Path, tmp_path: Path) -> None:
    api = Api()
    assert push_db(db, repo="org/name", api=api) == "https://hub/commit"
    assert {"README.md", "manifest.json", "excluded.parquet", "sample/tags.png"} <= set(api.paths)
    with pytest.raises(ConfigError, match="org/name"):
        push_db(db, repo="name", api=api)
    for number, licence in enumerate((None, "cc-by-nd-4.0", "unknown")):
        table(tmp_path / "rows.jsonl", rows(60))
        out = tmp_path / f"out{number}"
        build_db(BuildConfig(sources=(f"files:{tmp_path}/rows.jsonl",), out=out, license=licence))
        with pytest.raises(DataError, match="may not be published"):
            push_db(out, repo="org/name", api=Api())
        assert "must not be published" in next((out / "data_cards").glob("*.md")).read_text()


def test_what_a_user_can_mend_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "things").mkdir()
    (tmp_path / "things/mine.txt").write_text("x")
    with pytest.raises(StorageError, match="holds other things"):
        build(tmp_path / "things", "miniature")
    with pytest.raises(MissingError, match="no file at"):
        build(tmp_path / "out", f"files:{tmp_path}/none.csv")
    assert not (tmp_path / "out/.work").exists()
    table(tmp_path / "x.jsonl", [{"prompt": "a cat", "negative": None}] * 3)
    with pytest.raises(DataError, match=r"no row is left of 3 read: no negative prompt \(3\)"):
        build(tmp_path / "out", f"files:{tmp_path}/x.jsonl")
    with pytest.raises(MissingError, match="build one with"):
        load_db(tmp_path / "nowhere")
    (tmp_path / "c.toml").write_text('sources = ["miniature"]\nsuorces = 3\n')
    with pytest.raises(ConfigError, match="suorces"):
        load_config(tmp_path / "c.toml", {})
    (tmp_path / "c.toml").write_text('sources = ["miniature"]\n[clean]\nnsfw = "exclude"\n')
    assert load_config(tmp_path / "c.toml", {"name": "x"}).clean.nsfw == "exclude"


def test_a_build_that_fails_leaves_the_old_data_set(tmp_path: Path) -> None:
    table(tmp_path / "x.jsonl", rows(80))
    build(tmp_path / "out", f"files:{tmp_path}/x.jsonl")
    before = digests(tmp_path / "out")
    (tmp_path / "x.jsonl").write_text("nothing")
    with pytest.raises(DataError):
        build(tmp_path / "out", f"files:{tmp_path}/x.jsonl")
    assert digests(tmp_path / "out") == before


def test_the_commands(tmp_path: Path) -> None:
    table(tmp_path / "x.jsonl", [*rows(2), {"prompt": 3, "negative": "x"}])
    runner = CliRunner()
    result = runner.invoke(db_app, ["read", f"files:{tmp_path}/x.jsonl", "--jsonl"])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [sorted(line) for line in lines[1:]] == [
        ["negative", "prompt", "settings", "source", "source_id"], ["reason", "source", "source_id"],  # noqa: E501
    ]  # fmt: skip
    assert "2 records" in result.stderr


def test_the_miniature_builds_with_its_shipped_splits(tmp_path: Path) -> None:
    manifest = build_db(BuildConfig(out=tmp_path / "db")).manifest
    assert manifest["name"] == "miniature"
    assert check_db(tmp_path / "db") == []
    shipped = load_db("miniature")
    built = load_db(tmp_path / "db").join(
        shipped.select("id", pl.col("split").alias("shipped")), left_on="source_id", right_on="id"
    )
    assert len(built) == sum(manifest["rows"].values())
    assert (built["split"] == built["shipped"]).all()
    committed = ROOT / "data_cards"
    assert (committed / "miniature.md").read_bytes() == (
        tmp_path / "db/data_cards/miniature.md"
    ).read_bytes(), "run benchmarks/write_cards.py: the miniature's card is not up to date"


def test_cards_in_the_repository_say_what_their_manifests_say() -> None:
    folder = ROOT / "data_cards"
    manifest = json.loads((folder / "miniature.manifest.json").read_text(encoding="utf-8"))
    assert check_card(folder, manifest) == []
    stats = json.loads((folder / "miniature.stats.json").read_text(encoding="utf-8"))
    stats["flags"]["nsfw"]["rows"] += 1
    assert card_text(manifest, stats) != (folder / "miniature.md").read_text(encoding="utf-8")
    for name in ("lengths", "tags", "years"):
        assert (folder / f"miniature/{name}.png").stat().st_size > 1000
    from negbench.database.known_cards import known_card, read_known

    assert known_card(read_known("npdb")) == (folder / "npdb.md").read_text(encoding="utf-8")
