"""Leaving out one tag at a time: tags, runs, differences, verdicts, tables."""

from __future__ import annotations

import csv
import io
import json
import sys

import numpy as np
import pytest
from small_runs import Brightness, MeanRow, use_metrics

from negbench import cli
from negbench.ablate.ablate import ablate, plan_ablation
from negbench.ablate.tables import as_csv, as_text
from negbench.ablate.tags import split_tags
from negbench.errors import ConfigError
from negbench.generators import generators
from negbench.generators.base import Drawn
from negbench.generators.fake import FakeGenerator
from negbench.metrics.base import ImageMetric
from negbench.stats import holm, paired_contrast
from negbench.types import Score


class Darkness(ImageMetric):
    """The same, less is better; very bright pictures have no score."""

    unit = "grey"
    higher_is_better = False

    def score(self, items):
        return [
            Score.missing("too bright")
            if item.pixels.mean() > 250
            else Score.of(item.pixels.mean())
            for item in items
        ]


class Lamp(FakeGenerator):
    """Brighter with the tag bright, darker with dim, both a little different by prompt."""

    def ref(self):
        return super().ref().model_copy(update={"name": "lamp"})

    def draw(self, requests):
        for request in requests:
            text = request.treatment.negative_text()
            spread = int.from_bytes(request.treatment.prompt.encode()[-2:], "big") % 7
            grey = 100 + request.seed % 5 + ("bright" in text) * (30 + spread)
            grey -= ("dim" in text) * (20 + spread)
            pixels = np.full((8, 8, 3), grey, dtype=np.uint8)
            yield Drawn(key=request.key(), pixels=pixels, evaluations=2)


@pytest.fixture(autouse=True)
def _own_parts(monkeypatch):
    use_metrics(monkeypatch, brightness=Brightness, darkness=Darkness, corner=MeanRow)
    monkeypatch.setattr(generators, "_local", {})
    generators.register("lamp")(Lamp)


@pytest.fixture
def options(tmp_path):
    prompts = tmp_path / "p.txt"
    prompts.write_text("".join(f"a castle with {n} towers, {n * 37}\n" for n in range(12)))
    return {
        "generator": "lamp",
        "prompts": prompts,
        "replicates": 2,
        "metrics": ["brightness", "darkness", "corner"],
        "out": tmp_path / "runs",
        "cache": tmp_path / "cache",
    }


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("a, b c ,, d\ne", ["a", "b c", "d", "e"]),
        ("(a, b:1.4), <lora:x,1>, c\\(d, e", ["(a, b:1.4)", "<lora:x,1>", "c\\(d", "e"]),
        ("((a, b), c", ["((a", "b)", "c"]),
        ("a), b", ["a)", "b"]),
        ("blurry", ["blurry"]),
    ],
)
def test_tags(text, tags):
    assert split_tags(text) == tags


@pytest.mark.parametrize("text", ["", " , \n,", ",".join("ab" for _ in range(201))])
def test_lists_that_cannot_be_taken_apart(text):
    with pytest.raises(ConfigError, match="tag"):
        split_tags(text)


def test_each_tag_is_held_against_the_full_list(options):
    resolved, tags = plan_ablation("bright, idle, dim", **options)
    found = ablate(resolved, tags)
    assert found.tags == ["bright", "idle", "dim"]
    verdicts = {(e.metric, e.tag): e.verdict for e in found.effects}
    for metric, tag, verdict in (
        ("brightness", "bright", "helps"), ("brightness", "dim", "harms"),
        ("brightness", "idle", "does nothing"), ("darkness", "bright", "harms"),
        ("darkness", "dim", "helps"), ("corner", "bright", "helps"),
    ):  # fmt: skip
        assert verdicts[metric, tag] == verdict
    idle = next(e for e in found.effects if e.tag == "idle")
    assert (idle.unchanged, idle.effect) == (1.0, 0.0)
    # one number made again by hand, from the runs on disk
    frames = {job.label: None for job in resolved.jobs}
    from negbench import load_record

    for label in frames:
        frames[label] = (
            load_record(found.folders[label]).to_pandas().set_index(["case", "replicate"])
        )
    full, less = frames["full"], frames["without bright"].loc[frames["full"].index]
    contrast = paired_contrast(
        list(full["brightness"]), list(less["brightness"]), list(full["prompt"])
    )
    bright = next(e for e in found.effects if e.tag == "bright" and e.metric == "brightness")
    assert (bright.effect, bright.ci95, bright.p) == (contrast.delta, contrast.ci95, contrast.p)
    assert bright.effect == pytest.approx((full["brightness"] - less["brightness"]).mean())
    assert [e.p_holm for e in found.effects] == holm([e.p for e in found.effects])
    assert found.tests == 9
    whole = {w.metric: w for w in found.whole}
    assert whole["brightness"].effect == pytest.approx(
        (full["brightness"] - full["twin_brightness"]).mean()
    )


def test_images_are_shared_and_a_second_time_nothing_is_drawn(options):
    resolved, tags = plan_ablation("bright, dim", **options)
    first = ablate(resolved, tags)
    # twins, both, each alone: four texts on 24 noises
    assert len(resolved.requests()) == 4 * 24
    again, _ = plan_ablation("bright, dim", **options)
    again.generator.draw = None
    assert ablate(again, tags) == first


def test_a_tag_that_stands_twice_and_a_list_of_one(options):
    resolved, tags = plan_ablation("bright, dim, bright", **options)
    found = ablate(resolved, tags)
    assert found.tags == ["bright", "dim", "bright #2"]
    assert {e.verdict for e in found.effects if e.tag.startswith("bright")} == {"does nothing"}
    resolved, tags = plan_ablation("bright", **options)
    found = ablate(resolved, tags)
    assert found.effects[0].effect == pytest.approx(found.whole[0].effect)


def test_margins_and_unscored_sides(options):
    resolved, tags = plan_ablation("bright, weak", **{**options, "limit": 3})
    found = ablate(resolved, tags, margin=0.0)
    # three prompts cannot give a small p, and the table says so
    bright = found.effects[0]
    assert bright.verdict == "cannot tell"
    assert "cannot fall below" in bright.note
    with pytest.raises(ConfigError, match="margin"):
        ablate(resolved, tags, margin=1.5)


def test_metrics_that_cannot_compare_are_left_out_or_refused(options):
    with pytest.raises(ConfigError, match="cannot compare"):
        plan_ablation("a, b", **{**options, "metrics": ["ssim"]})
    resolved, _ = plan_ablation("a, b", **{**options, "metrics": None})
    assert list(resolved.metrics) == ["inception_score", "clip_alignment", "aesthetic"]


def test_tables(options):
    resolved, tags = plan_ablation("bright, dim", **options)
    found = ablate(resolved, tags)
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(rows) == 6
    assert float(rows[0]["effect"]) == found.effects[0].effect
    text = as_text(found)
    assert "helps" in text
    assert "Holm" in text
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


def test_the_command(capfd, options, monkeypatch):
    arguments = [
        "negbench", "ablate", "bright, dim", "--generator", "lamp", "--prompts",
        str(options["prompts"]), "--metric", "brightness", "--out", str(options["out"]),
        "--cache", str(options["cache"]),
    ]  # fmt: skip

    def run(*more):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        return capfd.readouterr().out

    assert json.loads(run("--dry-run", "--json"))["images_to_draw"] == 4 * 24
    assert "to draw" in run("--dry-run")
    assert not options["out"].exists()
    assert [e["tag"] for e in json.loads(run("--json"))["effects"]] == ["bright", "dim"]
    assert "bright" in run()
    assert run("--csv").startswith("benchmark,metric")
