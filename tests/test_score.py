"""Pictures that exist already: exported and scored again, found, paired, refused, drawn beside."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from small_runs import Brightness, plan_options, use_metrics

from negbench import load_record
from negbench.errors import ConfigError, DataError, MissingError
from negbench.evaluate import evaluate
from negbench.plan import make_plan
from negbench.score.export import export_run
from negbench.score.marks import MAX_MARK
from negbench.score.score import score_pictures
from negbench.score.sheet import draw_sheet
from negbench.store import pixel_digest

PROMPTS = "id,prompt,negative\n" + "".join(
    f'c{n},"a castle, number {n}",{"blurry, noisy" if n % 3 else ""}\n' for n in range(11)
)


@pytest.fixture(autouse=True)
def _own_metrics(monkeypatch):
    use_metrics(monkeypatch, brightness=Brightness)


def run(tmp_path, **changes):
    prompts = tmp_path / "prompts.csv"
    prompts.write_text(PROMPTS)
    options = {
        **plan_options(tmp_path, size=64),
        "methods": ["human"],
        "prompts": prompts,
        "replicates": 3,
    }
    [record] = evaluate(make_plan(**{**options, **changes}))
    return record


def numbers(record):
    """Every number of a record, and every score by sample."""
    return (
        [e.model_dump() for e in record.estimates],
        [e.model_dump() for e in record.twin_estimates],
        [p.model_dump() for p in record.paired],
        [
            (s.id, s.seed, s.prompt, s.treated.image, s.twin.image, s.treated.scores, s.twin.scores)
            for s in record.samples()
        ],
    )


def test_an_exported_run_scores_as_evaluate_did_to_the_last_bit(tmp_path):
    record = run(tmp_path)
    assert {"inception_score", "clip_alignment", "aesthetic", "ssim"} <= set(record.metrics)
    written = export_run(record.folder, tmp_path / "out", cache=tmp_path / "cache")
    table = tmp_path / "out" / "pictures.csv"
    assert written[-1] == table
    for place in (tmp_path / "out", table):
        outcome = score_pictures(
            place,
            metrics_of="miniature-quality",
            out=tmp_path / f"again-{place.name}",
            cache=tmp_path / f"cache-{place.name}",
        )
        [again] = outcome.records
        assert numbers(again) == numbers(record)
        assert not outcome.unscored
        loaded = load_record(again.folder)
        assert numbers(loaded) == numbers(record)
        assert loaded.provenance["generator"]["drawn_by_negbench"] is False
        assert any("not drawn by this run" in note for note in loaded.notes)
    # without a word the metrics are those of the benchmark that the pictures come from
    [chosen] = score_pictures(tmp_path / "out", out=tmp_path / "o", cache=tmp_path / "c").records
    assert list(chosen.metrics) == list(record.metrics)


def test_scoring_again_reads_the_record_and_a_new_metric_joins(tmp_path):
    record = run(tmp_path, metrics=["no_op"])
    export_run(record.folder, tmp_path / "out", cache=tmp_path / "cache")
    options = {"out": tmp_path / "again", "cache": tmp_path / "c"}
    [first] = score_pictures(tmp_path / "out", metrics=["no_op"], **options).records
    stamp = (first.folder / "run.json").stat().st_mtime_ns
    [same] = score_pictures(tmp_path / "out", metrics=["no_op"], **options).records
    assert (same.folder / "run.json").stat().st_mtime_ns == stamp
    [more] = score_pictures(tmp_path / "out", metrics=["brightness"], **options).records
    assert more.folder == first.folder
    assert {e.metric for e in more.estimates} == {"no_op", "brightness"}


def picture(path, *, prompt, negative="", seed=None, shade=100, model="m", size=(24, 16)):
    """A PNG as A1111 writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    settings = f"Steps: 20, Sampler: Euler a, CFG scale: 7, Size: {size[0]}x{size[1]}"
    if seed is not None:
        settings += f", Seed: {seed}"
    settings += f", Model: {model}"
    lines = [prompt, *([f"Negative prompt: {negative}"] if negative else []), settings]
    info.add_itxt("parameters", "\n".join(lines))
    pixels = np.full((size[1], size[0], 3), shade, dtype=np.uint8)
    Image.fromarray(pixels).save(path, pnginfo=info)


def test_pictures_find_their_twins_by_prompt_seed_and_settings(tmp_path):
    folder = tmp_path / "pictures"
    picture(folder / "a.png", prompt="a dog", negative="blurry", seed=1, shade=110)
    picture(folder / "a-other.png", prompt="a dog", negative="ugly", seed=1, shade=120)
    picture(folder / "twin" / "a.png", prompt="a dog", seed=1, shade=100)
    picture(folder / "seed.png", prompt="a dog", negative="blurry", seed=2, shade=130)
    picture(folder / "model.png", prompt="a dog", negative="x", seed=1, model="n")
    picture(folder / "unknown.png", prompt="a dog", negative="blurry", shade=140)
    picture(folder / "plain.png", prompt="a cat", seed=1, shade=50)
    picture(folder / "larger.png", prompt="a dog", negative="x", seed=1, size=(32, 16))
    outcome = score_pictures(
        folder, metrics=["brightness", "ssim", "no_op"], out=tmp_path / "r", cache=tmp_path / "c"
    )
    by_label = {record.label: record for record in outcome.records}
    paired = by_label["pictures"]
    assert [(s.treated.scores["brightness"].value, s.twin.scores["brightness"].value)
            for s in paired.samples()] == [(120, 100), (110, 100)]  # fmt: skip
    assert len({s.id for s in paired.samples()}) == 2
    assert paired.samples()[0].seed == 1
    [difference] = paired.paired
    assert difference.delta == pytest.approx(15)
    lonely = by_label["pictures (no twin)"]
    assert lonely.n_samples == 4
    assert not lonely.paired
    assert not lonely.twin_estimates
    assert set(lonely.metrics) == {"brightness"}
    assert by_label["pictures (no negative)"].estimates[0].value == 50
    assert sum(outcome.reasons.values()) == 4
    # a second time it is read, not made
    again = score_pictures(
        folder, metrics=["brightness", "ssim", "no_op"], out=tmp_path / "r", cache=tmp_path / "c"
    )
    assert [numbers(r) for r in again.records] == [numbers(r) for r in outcome.records]


def test_what_cannot_be_scored_is_listed_with_its_reason(tmp_path):
    folder = tmp_path / "pictures"
    picture(folder / "good.png", prompt="a dog", seed=1)
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[:-30])
    (folder / "empty.png").write_bytes(b"")
    (folder / "note.txt").write_text("hello")
    Image.new("RGB", (8, 8)).save(folder / "bare.png")
    head = bytearray(whole)
    head[16:24] = (60_000).to_bytes(4, "big") * 2
    (folder / "bomb.png").write_bytes(head)
    (folder / "away.png").symlink_to("/etc/hostname")
    outcome = score_pictures(
        folder, metrics=["brightness"], out=tmp_path / "r", cache=tmp_path / "c"
    )
    reasons = {item.id: item.reason for item in outcome.unscored}
    assert set(reasons) == {
        "cut.png", "empty.png", "note.txt", "bare.png", "bomb.png", "away.png"
    }  # fmt: skip
    assert "decoded" in reasons["cut.png"]
    assert "pixels" in reasons["bomb.png"]
    assert outcome.as_json()["unscored"]["count"] == 6
    [record] = outcome.records
    with (record.folder / "unscored.csv").open() as file:
        assert {row["path"] for row in csv.DictReader(file)} == set(reasons)
    json.dumps(outcome.as_json(), allow_nan=False)


def test_hostile_metadata_stay_text_and_within_bounds(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    forged = {
        "schema": 1,
        "benchmark": "x",
        "case": "../../etc",
        "replicate": 0,
        "seed": 3,
        "prompt": "a",
        "treatment": {"prompt": "a", "negatives": [{"text": "b"}]},
        "reference": {},
        "twin": "../../etc/passwd",
        "generator": "0",
        "evaluations": 1,
    }
    texts = {
        "forged": json.dumps(forged),
        "bare": json.dumps({"prompt": "x", "seed": 1})[1:],
        "nan": '{"schema": 1, "evaluations": NaN}',
        "deep": "[" * 100_000,
        "long": "x" * (MAX_MARK + 1),
    }
    for name, text in texts.items():
        info = PngInfo()
        info.add_itxt("parameters", f"<script>{name}</script>\nNegative prompt: {{7*7}}\nSteps: 2")
        info.add_itxt("negbench", f"mark/1 {text}")
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png", pnginfo=info)
    picture(folder / "seed.png", prompt="a", negative="b", seed=2**63 - 1)
    picture(folder / "prompt.png", prompt="a" * 30_000, negative="b", seed=1)
    outcome = score_pictures(
        folder, metrics=["brightness"], out=tmp_path / "r", cache=tmp_path / "c"
    )
    [record] = outcome.records
    assert record.n_samples == 6
    assert {item.id for item in outcome.unscored} == {"prompt.png"}
    assert record.folder.is_relative_to(tmp_path / "r")
    assert "twin that it names" in json.dumps(outcome.reasons)


def test_a_table_of_paths(tmp_path):
    for name, shade in (("a", 110), ("b", 100), ("c", 90)):
        Image.new("RGB", (9, 7), (shade,) * 3).save(tmp_path / f"{name}.webp", lossless=True)
    table = tmp_path / "t.jsonl"
    rows = [
        {"file_name": "a.webp", "caption": "a dog", "negative": "ugly", "seed": 5},
        {"file_name": "b.webp", "caption": "a dog", "negative": None, "seed": 5},
        {"file_name": "c.webp", "caption": "a dog", "negative": "ugly", "seed": 5, "model": "x"},
        {"file_name": "nowhere.png", "caption": "a dog", "negative": "ugly"},
        {"file_name": "a.webp", "caption": "again", "negative": "ugly"},
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    outcome = score_pictures(
        table,
        metrics=["brightness"],
        mapping={"prompt": "caption"},
        out=tmp_path / "r",
        cache=tmp_path / "c",
    )
    assert [record.n_samples for record in outcome.records] == [1, 1]
    assert outcome.records[0].paired[0].delta == pytest.approx(10)
    assert {item.reason for item in outcome.unscored} >= {"no such file", "the path stands twice"}
    assert len(outcome.unscored) == 3
    named = tmp_path / "named.csv"
    named.write_text("path,prompt,negative,twin\na.webp,p,n,c.webp\nc.webp,q,,\n")
    [pair] = score_pictures(
        named, metrics=["brightness"], out=tmp_path / "r", cache=tmp_path / "c"
    ).records
    assert pair.paired[0].delta == pytest.approx(20)


@pytest.mark.parametrize(
    ("text", "said"),
    [("prompt,negative\na,b\n", "no column of paths"), ("path,prompt\nx.png,a\n", "none of 1")],
)
def test_tables_that_cannot_be_used(tmp_path, text, said):
    table = tmp_path / "t.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=said):
        score_pictures(table, metrics=["brightness"], out=tmp_path / "r")


def test_missing_twins_are_drawn(tmp_path):
    record = run(tmp_path, metrics=["brightness", "no_op"], methods=["static"])
    export_run(record.folder, tmp_path / "out", cache=tmp_path / "cache")
    for twin in (tmp_path / "out" / "twins").iterdir():
        twin.unlink()
    options = {"metrics": ["brightness", "no_op"], "out": tmp_path / "r", "cache": tmp_path / "c"}
    [alone] = score_pictures(tmp_path / "out", **options).records
    assert not alone.paired
    [exact] = score_pictures(
        tmp_path / "out",
        draw_twins=True,
        generator="fake",
        generator_params={"size": 64, "steps": 4},
        **options,
    ).records
    assert numbers(exact) == numbers(record)
    # pictures of other software: no distances to a twin with another noise
    folder = tmp_path / "pictures"
    picture(folder / "a.png", prompt="a dog", negative="blurry", seed=1, size=(64, 64))
    picture(folder / "b.png", prompt="a dog", negative="blurry", seed=1, size=(64, 32))
    outcome = score_pictures(
        folder, draw_twins=True, generator="fake", generator_params={"size": 64}, **options
    )
    redrawn, lonely = outcome.records
    assert set(redrawn.metrics) == {"brightness"}
    assert redrawn.n_samples == lonely.n_samples == 1
    assert any("other software" in note for note in redrawn.notes)
    assert any("another size" in reason for reason in outcome.reasons)


def test_what_is_refused(tmp_path):
    picture(tmp_path / "p" / "a.png", prompt="a dog", seed=1)
    with pytest.raises(MissingError, match="miniature's own"):
        score_pictures(tmp_path / "p", out=tmp_path / "r")
    with pytest.raises(MissingError, match="does not exist"):
        score_pictures(tmp_path / "q", out=tmp_path / "r")
    with pytest.raises(ConfigError, match="--generator"):
        score_pictures(tmp_path / "p", draw_twins=True)
    with pytest.raises(ConfigError, match="--draw-twins"):
        score_pictures(tmp_path / "p", generator="fake")
    with pytest.raises(ConfigError, match="limit"):
        score_pictures(tmp_path / "p", limit=0)
    [record] = score_pictures(
        tmp_path / "p", metrics_of="miniature-quality", metrics=["aesthetic"],
        out=tmp_path / "r", cache=tmp_path / "c",
    ).records  # fmt: skip
    assert any("drawn world only" in note for note in record.notes)


def test_exported_files_read_well_elsewhere(tmp_path):
    from negbench.database.sources import open_source

    record = run(tmp_path, metrics=["no_op"])
    written = export_run(record.folder, tmp_path / "out", cache=tmp_path / "cache", limit=4)
    read = {item.source_id: item for item in open_source(f"images:{tmp_path / 'out'}").read()}
    samples = sorted(record.samples(), key=lambda s: (int(s.case[1:]), s.replicate))
    for number, sample in enumerate(samples[:4]):
        [name] = [key for key in read if key.startswith(f"{number:06d}-")]
        assert read[name].prompt == sample.prompt
        assert (read[name].negative or "").strip() == sample.treatment.negative_text()
        assert (read[name].seed, read[name].steps) == (sample.seed, 4)
        with Image.open(tmp_path / "out" / name) as file:
            assert pixel_digest(np.asarray(file)) == sample.treated.image
    draw_sheet(record.folder, tmp_path / "sheet.png", cache=tmp_path / "cache", limit=4)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (4 * (2 * 64 + 4 + 16) - 16, 64)
    assert written[-1].name == "pictures.csv"
    with pytest.raises(MissingError, match="not in the cache"):
        export_run(record.folder, tmp_path / "other", cache=tmp_path / "empty")


def test_two_folders_of_one_model_can_be_compared(tmp_path):
    from negbench.compare.compare import compare_runs
    from negbench.report.page import make_report

    records = []
    for name, shift in (("soft", 5), ("hard", 25)):
        for seed in range(8):
            shade = 90 + 3 * seed
            picture(tmp_path / name / f"{seed}.png", prompt=f"a dog {seed % 4}", negative=name,
                    seed=seed, shade=shade + shift + seed % 2)  # fmt: skip
            picture(tmp_path / name / f"twin-{seed}.png", prompt=f"a dog {seed % 4}", seed=seed,
                    shade=shade)  # fmt: skip
        records += score_pictures(
            tmp_path / name, metrics=["brightness"], out=tmp_path / "r", cache=tmp_path / "c"
        ).records
    [found] = compare_runs(records).comparisons
    assert abs(found.delta) == pytest.approx(20)
    page = make_report(records, cache=tmp_path / "c")
    assert (page.n_runs, page.n_all) == (2, 16)
    assert "not drawn by this run" in page.html
