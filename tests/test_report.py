"""The page of a run: what it holds, how it is kept small, and that nothing of others runs in it."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from hostile import HOSTILE, TOO_LONG, write_prompts
from PIL import Image
from small_runs import Brightness, Sameness, castles, plan_options, use_metrics
from typer.testing import CliRunner

from negbench.cli import app
from negbench.errors import ConfigError, NegbenchError
from negbench.evaluate import evaluate
from negbench.numbers import signed_interval
from negbench.plan import make_plan
from negbench.record import load_record
from negbench.report.gallery import choose, flagged, gather_gallery, image_columns
from negbench.report.page import make_report
from negbench.report.scale import Scale
from negbench.report.text import content_security_policy, script_json, visible
from negbench.store import ImageStore


@pytest.fixture(autouse=True)
def _own_metric(monkeypatch):
    use_metrics(monkeypatch, brightness=Brightness, sameness=Sameness)


def run(tmp_path, *methods, prompts=None, params=None, size=16, **more):
    if prompts is None:
        prompts = tmp_path / "prompts.csv"
        prompts.write_text(castles(6))
    options = {
        "methods": methods,
        "method_params": params or {},
        "metrics": ("brightness", "sameness", "no_op"),
        "prompts": prompts,
        **plan_options(tmp_path, size=size),
    }
    return evaluate(make_plan(**{**options, **more}))


def data_of(html):
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    return json.loads(found)


def pictures_of(html):
    chunks = re.findall(r'<script type="application/json" id="pictures-\d+">(.*?)</script>', html)
    return [picture for chunk in chunks for picture in json.loads(chunk)]


def test_the_page_shows_every_sample_with_its_pictures_and_scores(tmp_path):
    records = run(tmp_path, "human", "s=static", params={"s.text": "ugly"})
    html = make_report(records, cache=tmp_path / "cache").html
    data = data_of(html)
    assert len(data["items"]) == 24
    pictures = pictures_of(html)
    store = ImageStore(tmp_path / "cache")
    samples = [(0, s) for s in records[0].samples()] + [(1, s) for s in records[1].samples()]
    for item, (method, sample) in zip(data["items"], samples, strict=True):
        assert item["m"] == method
        assert data["texts"][item["p"]] == sample.prompt
        for side, image in (("a", sample.treated), ("w", sample.twin)):
            with Image.open(io.BytesIO(base64.b64decode(pictures[item[side]["i"]]))) as shown:
                pixels = np.asarray(shown.convert("RGB"))
            assert (pixels == store.load(store.get(image.key))).all()
        value = item["a"]["v"][[m["name"] for m in data["metrics"]].index("brightness")]
        assert value == pytest.approx(sample.treated.scores["brightness"].value, rel=1e-5)
    assert len(pictures) == len({i for s in samples for i in (s[1].treated.image, s[1].twin.image)})


def test_the_numbers_of_the_record_stand_in_the_page(tmp_path):
    [record] = run(tmp_path, "human")
    html = make_report([record], cache=tmp_path / "cache").html
    paired = next(p for p in record.paired if p.metric == "brightness")
    assert signed_interval(paired.delta, paired.ci95, "grey") in html
    assert f"n {paired.n}" in html
    assert html.count("<title>") >= 1 + 2 * len(record.estimates) - 1


def test_large_pictures_become_thumbnails_unless_asked(tmp_path):
    [record] = run(tmp_path, "human", size=200, limit=1)
    for options, side in (({}, 200), ({"side": 64}, 64), ({"side": None}, 200)):
        html = make_report([record], cache=tmp_path / "cache", **options).html
        with Image.open(io.BytesIO(base64.b64decode(pictures_of(html)[0]))) as shown:
            assert shown.size == (side, side)
            assert shown.format == "WEBP"


def test_pictures_that_are_gone_or_altered_are_told_and_not_shown(tmp_path):
    [record] = run(tmp_path, "human")
    sample = record.samples()[0]
    store = ImageStore(tmp_path / "cache")
    store.png_path(sample.treated.key).unlink()
    other = store.png_path(record.samples()[1].treated.key)
    Image.new("RGB", (16, 16), "red").save(other)
    made = make_report([record], cache=tmp_path / "cache")
    assert "2 pictures are not in" in made.notes[0]
    items = data_of(made.html)["items"]
    assert [item["a"]["i"] for item in items[:2]] == [-1, -1]
    assert items[2]["a"]["i"] >= 0


def test_a_shortened_gallery_keeps_the_extremes_and_is_the_same_every_time(tmp_path):
    records = run(tmp_path, "human", "s=static", params={"s.text": "ugly"})
    samples = [record.samples() for record in records]
    gallery = gather_gallery(records, ["human", "s"], samples, cache=tmp_path / "cache", limit=10)
    assert (gallery.n_shown, gallery.n_all) == (10, 24)
    gains = [
        s.treated.scores["brightness"].value - s.twin.scores["brightness"].value
        for found in samples
        for s in found
    ]
    place = [m["name"] for m in gallery.data["metrics"]].index("brightness")
    kept = [i["a"]["v"][place] - i["w"]["v"][place] for i in gallery.data["items"]]
    assert max(kept) == pytest.approx(max(gains), abs=0.01)
    assert min(kept) == pytest.approx(min(gains), abs=0.01)
    again = gather_gallery(records, ["human", "s"], samples, cache=tmp_path / "cache", limit=10)
    assert again.data == gallery.data


def test_without_a_limit_nothing_is_left_out(tmp_path):
    [record] = run(tmp_path, "human")
    from negbench.report.gallery import Entry

    entries = [Entry(0, sample) for sample in record.samples()]
    columns = image_columns([record], entries)
    assert choose(entries, columns, limit=None) == entries
    assert [c.metric for c in columns] == ["brightness", "sameness", "no_op"]


def test_sensitive_samples_are_flagged_by_prompt_and_tag_and_never_by_the_negative(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(
        "id,prompt,negative\n1,a nude on a sofa,x\n2,a castle,nsfw nude\n3,a schoolgirl nude,x\n"
    )
    [record] = run(tmp_path, "human", prompts=path, replicates=1)
    samples = record.samples()
    assert flagged(samples) == ([True, False, True], [False, False, True])
    tagged = samples[1].model_copy(update={"tags": ("rating:explicit",)})
    assert flagged([tagged]) == ([True], [False])
    items = data_of(make_report([record], cache=tmp_path / "cache").html)["items"]
    assert [item.get("f") for item in items] == [1, None, 1]
    assert items[2]["h"] == 1
    assert (items[2]["a"]["i"], items[2]["w"]["i"]) == (-1, -1)


def test_runs_on_other_cases_stand_apart(tmp_path):
    [a] = run(tmp_path, "human")
    [b] = run(tmp_path, "human", limit=3)
    html = make_report([a, b], cache=tmp_path / "cache").html
    assert html.count('class="group-title') >= 4
    assert a.plan_digest[:6] in html


def test_a_run_that_consists_of_twins_has_values_and_a_gallery(tmp_path):
    html = make_report(run(tmp_path, "none"), cache=tmp_path / "cache").html
    assert "its pictures are their own twins" in html
    assert 'id="differences"' not in html


def test_plots_and_tables_of_the_folder_are_shown(tmp_path):
    [record] = run(tmp_path, "human")
    Image.new("RGB", (40, 30), "blue").save(record.folder / "timing.png")
    (record.folder / "sweep.csv").write_text("window,<b>net</b>\n5-16,0.5\n")
    (record.folder / "broken.png").write_bytes(b"\x89PNG nothing")
    html = make_report([record], cache=tmp_path / "cache").html
    assert "timing.png" in html
    assert "&lt;b&gt;net&lt;/b&gt;" in html
    assert "broken.png" not in html


def test_hostile_texts_are_escaped_everywhere(tmp_path):
    records = run(
        tmp_path,
        "human",
        "static",
        params={"static.text": HOSTILE["script-end"]},
        prompts=write_prompts(tmp_path / "hostile.jsonl"),
        replicates=1,
    )
    records[0].label = HOSTILE["img"]
    records[0].notes.append(HOSTILE["comment"] + HOSTILE["rtl"])
    made = make_report(records, cache=tmp_path / "cache", title=HOSTILE["script"])
    html = made.html
    assert (
        html.count("<script")
        == html.count("</script>")
        == 2 + len(re.findall(r'id="pictures-\d', html))
    )
    for name in ("img", "svg", "iframe", "base", "meta", "form"):
        assert HOSTILE[name] not in html
    assert "{{7*7}}" in html or "{{7*7}}" in json.dumps(data_of(html))
    assert "49 " not in data_of(html)["texts"]
    assert not re.search(
        "[\u202a-\u202e\u2066-\u2069\u2028\u2029\u200b\x00-\x08\x0b-\x1f\x7f]", html
    )


def test_texts_that_are_too_long_are_refused_in_one_line(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": TOO_LONG}) + "\n")
    with pytest.raises(NegbenchError, match="row 1") as caught:
        run(tmp_path, "human", prompts=path)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_visible_text_has_nothing_that_cannot_be_seen(name):
    shown = visible(HOSTILE[name], limit=10**6)
    assert all(c.isprintable() or c in "\n\t\u200c\u200d" for c in shown)
    assert "\u202e" not in shown


def test_visible_text_keeps_what_people_write():
    for text in ("a cat, ((masterpiece)):1.2", "猫が座っている", "קעקוע", "👩‍👩‍👧", "naïve ﬁ"):
        assert visible(text) == text
    assert visible("x" * 50, limit=10) == "x" * 10 + "… ⟨40 more characters⟩"
    assert visible("\x1b[31m\u202ea\ud800") == "␛[31m⟨U+202E⟩a⟨U+D800⟩"


def test_json_in_a_script_element_cannot_leave_it():
    value = {"</script><!--": ["&", "\u2028", "<script>", "\ud83d"]}
    text = script_json(value)
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        script_json(float("nan"))


def test_the_policy_names_this_script_and_no_other():
    one = content_security_policy(style="a", script="b")
    assert one != content_security_policy(style="a", script="c")
    assert "unsafe" not in one
    assert "http" not in one
    assert "default-src 'none'" in one


@pytest.mark.parametrize(
    "values", [(0.0, 1.0), (3.0,), (-5e-7, 2e-7), (1e9, 1.1e9), (0.0,), (-2.0, None, 7.0)]
)
def test_a_scale_holds_its_values_and_round_ticks(values):
    scale = Scale.over(values)
    places = [scale.x(v) for v in values if v is not None]
    assert all(0 <= place <= 100 for place in places)
    assert 2 <= len(scale.ticks()) <= 7
    for tick in scale.ticks():
        shown = float(tick.text.replace("−", "-"))
        assert scale.x(shown) == pytest.approx(tick.x, abs=0.02)


def test_the_command_writes_a_page_and_tells_where(tmp_path):
    run(tmp_path, "human")
    out = tmp_path / "deep" / "page.html"
    command = ["report", str(tmp_path / "runs"), "--out", str(out), "--json"]
    outcome = CliRunner().invoke(app, [*command, "--cache", str(tmp_path / "cache")])
    assert outcome.exit_code == 0, outcome.output
    facts = json.loads(outcome.stdout)
    assert facts["bytes"] == out.stat().st_size
    assert facts["samples_shown"] == 12
    bad = CliRunner().invoke(app, [*command, "--thumbnail", "3"])
    assert isinstance(bad.exception, ConfigError)


def test_a_run_without_samples_is_told(tmp_path):
    [record] = run(tmp_path, "human")
    for path in (record.folder / "samples").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="no samples yet"):
        make_report([load_record(record.folder)], cache=tmp_path / "cache")


def test_sweeps_and_timings_are_shown_with_runs_or_alone(tmp_path):
    run(tmp_path, "human")
    sweep = tmp_path / "runs" / "sweep-window-abc"
    sweep.mkdir()
    (sweep / "sweep.json").write_text("{}")
    (sweep / "curve.csv").write_text("stop,net_removal\n16,0.5\n")
    Image.new("RGB", (60, 30), "blue").save(sweep / "curve.png")
    for place, runs in ((tmp_path / "runs", 1), (sweep, 0)):
        out = tmp_path / "page.html"
        command = ["report", str(place), "--out", str(out), "--cache", str(tmp_path / "cache")]
        outcome = CliRunner().invoke(app, [*command, "--json"])
        assert outcome.exit_code == 0, outcome.exception
        assert json.loads(outcome.stdout)["runs"] == runs
        assert "curve.png" in out.read_text()


def test_methods_are_held_against_each_other_as_compare_does(tmp_path):
    from negbench.compare.compare import compare_runs

    records = run(tmp_path, "human", "s=static", params={"s.text": "ugly"})
    html = make_report(records, cache=tmp_path / "cache").html
    [found] = [c for c in compare_runs(records).comparisons if c.metric == "brightness"]
    assert signed_interval(found.delta, found.ci95, "grey") in html
    assert 'id="between"' in html
    assert 'id="between"' not in make_report(records[:1], cache=tmp_path / "cache").html
