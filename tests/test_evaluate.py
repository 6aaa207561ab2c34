"""The whole path on the fake generator: command to record, killed, continued, sharded, broken."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from small_runs import Brightness, MeanRow, castles, plan_options, use_metrics

from negbench.errors import NegbenchError, PluginError, RecordError, StorageError
from negbench.evaluate import evaluate
from negbench.metrics import metrics
from negbench.metrics.base import ImageMetric
from negbench.plan import in_shard, make_plan, parse_shard
from negbench.record import find_runs, load_record, read_samples, run_folder
from negbench.store import ImageStore
from negbench.tables import as_text_table
from negbench.types import Score

PLAIN = ("ssim", "no_op", "evaluations")


@pytest.fixture(autouse=True)
def _own_metrics(monkeypatch):
    use_metrics(monkeypatch, brightness=Brightness, mean_row=MeanRow)


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text(castles(8, even=""))
    return path


def plan(tmp_path, prompts, **changes):
    options = {
        "methods": ["static"],
        "method_params": {"text": "blurry, noisy"},
        "metrics": [*PLAIN, "brightness", "mean_row"],
        "prompts": prompts,
        **plan_options(tmp_path),
    }
    return make_plan(**{**options, **changes})


def essence(record):
    """What must not depend on how a run came about."""
    return (
        record.plan_digest,
        record.status,
        [sample.model_dump(mode="json") for sample in record.samples()],
        [item.model_dump(mode="json") for item in (*record.estimates, *record.twin_estimates)],
        [item.model_dump(mode="json") for item in record.paired],
    )


def test_a_run_ends_with_a_record_on_disk(tmp_path, prompts):
    [record] = evaluate(plan(tmp_path, prompts))
    assert record.status == "complete"
    assert record.n_samples == record.n_expected == 16
    assert [e.metric for e in record.estimates] == list(record.metrics)
    assert {p.metric for p in record.paired} == {"brightness", "mean_row", "evaluations"}
    again = load_record(record.folder)
    assert essence(again) == essence(record)
    frame = again.to_pandas()
    assert len(frame) == 16
    assert frame["brightness"].mean() == pytest.approx(record.estimates[3].value)
    delta = (frame["brightness"] - frame["twin_brightness"]).mean()
    assert record.paired[1].delta == pytest.approx(delta) or record.paired[
        0
    ].delta == pytest.approx(delta)


def test_the_same_command_again_draws_nothing_and_touches_no_generator(tmp_path, prompts):
    [first] = evaluate(plan(tmp_path, prompts))
    again = plan(tmp_path, prompts)

    def forbidden(requests):
        raise AssertionError("drawn again")

    again.generator.draw = forbidden
    stamp = (first.folder / "run.json").stat().st_mtime_ns
    [second] = evaluate(again)
    assert essence(second) == essence(first)
    assert (first.folder / "run.json").stat().st_mtime_ns == stamp


def test_the_same_command_again_prints_the_same_table(tmp_path, prompts):
    first = as_text_table(evaluate(plan(tmp_path, prompts)))
    assert as_text_table(evaluate(plan(tmp_path, prompts))) == first


def test_a_metric_that_joins_later_draws_no_image_again(tmp_path, prompts):
    evaluate(plan(tmp_path, prompts, metrics=list(PLAIN)))
    later = plan(tmp_path, prompts)
    later.generator.draw = None
    [record] = evaluate(later)
    [fresh] = evaluate(plan(tmp_path, prompts, out=tmp_path / "other", cache=tmp_path / "c2"))
    assert essence(record)[3:] == essence(fresh)[3:]
    assert [s["images_drawn"] for s in record.provenance["sessions"]] == [32, 0]


def test_a_run_with_fewer_metrics_keeps_the_other_columns(tmp_path, prompts):
    [whole] = evaluate(plan(tmp_path, prompts))
    (whole.folder / "run.json").unlink()
    evaluate(plan(tmp_path, prompts))
    [few] = evaluate(plan(tmp_path, prompts, metrics=["ssim"]))
    assert set(few.metrics) == set(whole.metrics)
    assert essence(few)[3:] == essence(whole)[3:]


def test_methods_share_twins_and_equal_requests(tmp_path, prompts):
    resolved = plan(
        tmp_path,
        prompts,
        methods=["a=static", "b=static", "none", "human"],
        method_params={"a.text": "blurry", "b.text": "noisy"},
    )
    # 8 prompts x 2 noises: twins, a, b; human equals a on the 4 prompts with a negative
    assert len(resolved.requests()) == 16 * 3
    records = evaluate(resolved)
    assert len({record.folder for record in records}) == 4
    none = records[2]
    assert none.paired == []
    assert "its own twin" in " ".join(none.notes)


def test_seeds_do_not_depend_on_the_method_or_the_order(tmp_path, prompts):
    one = plan(tmp_path, prompts)
    other = plan(tmp_path, prompts, methods=["human"], method_params={})
    seeds = [w.seed for w in one.jobs[0].wanted]
    assert seeds == [w.seed for w in other.jobs[0].wanted]
    assert len(set(seeds)) == 16


def test_limit_takes_a_part_of_the_same_cases(tmp_path, prompts):
    few = plan(tmp_path, prompts, limit=3)
    assert [c.id for c in few.cases] == [c.id for c in plan(tmp_path, prompts).cases][:3]
    assert few.jobs[0].plan.digest() != plan(tmp_path, prompts).jobs[0].plan.digest()


def test_shards_together_equal_the_whole(tmp_path, prompts):
    [whole] = evaluate(plan(tmp_path, prompts))
    states = []
    for k in (1, 2, 3):
        [record] = evaluate(
            plan(tmp_path, prompts, shard=(k, 3), out=tmp_path / "s", cache=tmp_path / "c")
        )
        states.append(record.status)
    assert states == ["partial", "partial", "complete"]
    assert essence(record)[2:] == essence(whole)[2:]


def test_every_case_falls_to_exactly_one_shard():
    for n in range(200):
        assert sum(in_shard(f"case{n}", (k, 7)) for k in range(1, 8)) == 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_a_bad_shard_is_refused(text):
    with pytest.raises(NegbenchError, match="k/N"):
        parse_shard(text)


def test_a_corrupt_image_is_drawn_again(tmp_path, prompts):
    resolved = plan(tmp_path, prompts, metrics=list(PLAIN))
    [first] = evaluate(resolved)
    key = resolved.jobs[0].wanted[0].treated_key
    ImageStore(tmp_path / "cache").png_path(key).write_bytes(b"not a picture")
    [record] = evaluate(plan(tmp_path, prompts))
    assert [s.treated.image for s in record.samples()] == [s.treated.image for s in first.samples()]


def test_images_lost_from_the_cache_are_drawn_again(tmp_path, prompts):
    [first] = evaluate(plan(tmp_path, prompts))
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(first.folder / "samples")
    [second] = evaluate(plan(tmp_path, prompts))
    assert essence(second) == essence(first)


def test_a_failing_generator_loses_nothing(tmp_path, prompts):
    broken = plan(tmp_path, prompts, generator_params={"size": 16, "steps": 4, "fail_at": 9})
    with pytest.raises(NegbenchError, match="image 9"):
        evaluate(broken)
    mended = plan(tmp_path, prompts)
    drawn = []
    draw = mended.generator.draw
    mended.generator.draw = lambda requests: drawn.append(len(requests)) or draw(requests)
    [record] = evaluate(mended)
    assert drawn == [32 - 9]
    [fresh] = evaluate(plan(tmp_path, prompts, out=tmp_path / "o", cache=tmp_path / "c"))
    assert essence(record) == essence(fresh)


class Raises(ImageMetric):
    """Breaks."""

    def score(self, items):
        raise RuntimeError("no such luck\nsecond line")


class TooFew(ImageMetric):
    """Forgets one."""

    def score(self, items):
        return [Score.of(1.0)] * (len(items) - 1)


@pytest.mark.parametrize(("cls", "match"), [(Raises, "no such luck"), (TooFew, "in order")])
def test_a_metric_that_breaks_is_named(tmp_path, prompts, cls, match):
    metrics.register("broken")(cls)
    with pytest.raises(PluginError, match=match) as caught:
        evaluate(plan(tmp_path, prompts, metrics=["broken"]))
    assert "broken" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_foreign_run_json_is_told(tmp_path, prompts):
    [record] = evaluate(plan(tmp_path, prompts))
    header = record.folder / "run.json"
    data = json.loads(header.read_text())
    header.write_text(json.dumps(data | {"schema_version": 99}))
    with pytest.raises(RecordError, match="upgrade negbench"):
        load_record(record.folder)
    data["plan"]["replicates"] = 5
    header.write_text(json.dumps(data))
    with pytest.raises(RecordError, match="edited"):
        load_record(record.folder)
    header.write_text("{")
    with pytest.raises(RecordError, match="not valid JSON"):
        load_record(record.folder)
    with pytest.raises(RecordError, match="no run"):
        load_record(tmp_path)


def test_a_damaged_sample_line_names_file_and_line(tmp_path, prompts):
    [record] = evaluate(plan(tmp_path, prompts))
    path = next((record.folder / "samples").glob("*.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b'{"case": 1}\n', *lines[3:]]))
    with pytest.raises(RecordError, match=rf"{path.name}:4"):
        evaluate(plan(tmp_path, prompts))


def test_a_torn_last_sample_is_made_again(tmp_path, prompts):
    [first] = evaluate(plan(tmp_path, prompts))
    path = next((first.folder / "samples").glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-20])
    [second] = evaluate(plan(tmp_path, prompts))
    assert essence(second) == essence(first)


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.isdir("/proc"), reason="needs /proc")
def test_an_unwritable_folder_is_one_line(tmp_path, prompts):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another folder"):
        evaluate(plan(tmp_path, prompts, out=tmp_path / "file" / "runs"))


def test_find_runs_looks_below(tmp_path, prompts):
    records = evaluate(plan(tmp_path, prompts, methods=["none", "human"], method_params={}))
    assert find_runs([tmp_path / "runs"]) == sorted(record.folder for record in records)
    with pytest.raises(RecordError, match="holds no run"):
        find_runs([tmp_path / "cache"])


def test_run_folder_is_named_by_benchmark_method_and_plan(tmp_path, prompts):
    resolved = plan(tmp_path, prompts)
    folder = run_folder(tmp_path, resolved.jobs[0].plan)
    digest = resolved.jobs[0].plan.digest()
    assert folder.relative_to(tmp_path).parts == (
        "miniature-quality+prompts@1",
        "static",
        digest[:12],
    )


COMMAND = [
    sys.executable, "-m", "negbench", "evaluate", "-m", "static", "-p", "text=blurry",
    "--generator", "fake", "-o", "size=16", "-o", "steps=4", "-o", "delay=0.02",
    "--metric", "no_op", "--metric", "evaluations", "--replicates", "4", "--json",
]  # fmt: skip


def run_command(tmp_path, prompts, name, *, kill_after=None):
    command = [
        *COMMAND, "--prompts", str(prompts), "--out", str(tmp_path / name),
        "--cache", str(tmp_path / f"{name}-cache"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.slow
def test_killed_at_random_moments_and_continued_it_ends_the_same(tmp_path, prompts):
    code, out, err = run_command(tmp_path, prompts, "whole")
    assert code == 0, err
    whole = json.loads(out)
    rng = random.Random(7)
    for _ in range(12):
        run_command(tmp_path, prompts, "killed", kill_after=rng.uniform(0.3, 2.5))
    code, out, err = run_command(tmp_path, prompts, "killed")
    assert code == 0, err
    killed = json.loads(out)
    for key in ("plan", "plan_digest", "status", "estimates", "twin_estimates", "paired"):
        assert killed[key] == whole[key]
    one, two = (read_samples(load_record(r["folder"]).folder) for r in (whole, killed))
    assert one == two
