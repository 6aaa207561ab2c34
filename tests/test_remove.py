"""`negbench remove`: the smallest window, an honest end, files no hostile prompt can steer."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pytest
from command_line import run
from PIL import Image
from tiny_pipelines import make_sd

from negbench.errors import ConfigError, DataError
from negbench.generators.base import RunOptions
from negbench.generators.resolve import resolve
from negbench.judges import Judge, Verdict, build_judge, judges
from negbench.remove.search import _Search, lengths, remove, windows_of_length


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return make_sd(tmp_path_factory.mktemp("pipeline") / "sd")


@pytest.fixture
def generator(pipeline):
    return resolve(
        str(pipeline),
        params={"steps": 12, "scheduler": "ddim", "dtype": "float32", "scale": 5.0},
        options=RunOptions(device="cpu"),
    )


def scripted(says):
    """A judge that answers by the window that drew the picture; None is no verdict."""

    @judges.register("scripted")
    class Scripted(Judge):
        """Scripted."""

        windows: ClassVar = {}

        def judge(self, questions):
            verdicts = []
            for question in questions:
                said = says(self.windows[question.image])
                verdicts.append(Verdict.missing("too dark") if said is None else Verdict.of(said))
            return verdicts

    return Scripted


@pytest.fixture
def asked(monkeypatch):
    """Lets a scripted judge know which window each picture is of."""
    from negbench.store import pixel_digest

    whole = _Search._judged

    def told(self, windows, pixels):
        for window, one in zip(windows, pixels, strict=True):
            type(self.judge).windows[pixel_digest(one)] = window
        return whole(self, windows, pixels)

    monkeypatch.setattr(_Search, "_judged", told)


def search(generator, says, **more):
    scripted(says)
    return remove(
        "a house", concept="tree", generator=generator, judge=build_judge("scripted"), **more
    )


def test_windows_are_tried_from_late_and_short_to_early_and_long():
    assert lengths(25) == [2, 4, 6, 8, 10, 12, 17, 21, 25]
    assert windows_of_length(8, calls=25) == [
        (12, 20), (10, 18), (8, 16), (6, 14), (4, 12), (2, 10), (0, 8),
    ]  # fmt: skip
    assert windows_of_length(25, calls=25) == [(0, 25)]
    assert lengths(1) == [1]
    for calls in (1, 2, 3, 7, 31):
        for length in lengths(calls):
            for start, stop in windows_of_length(length, calls=calls):
                assert 0 <= start < stop <= calls


def test_the_smallest_window_is_found_and_shrunk(generator, asked):
    # the concept goes if the negative acts in calls 2, 3 and 4
    found = search(generator, lambda w: 0.1 if w[0] <= 2 and w[1] >= 5 else 0.9)
    assert found.status == "removed"
    assert found.best.window == (2, 5)
    assert found.tried[0].window == (0, 0)
    assert found.every_call.window == (0, 12)
    assert not any(one.present is False and one.window[1] - one.window[0] < 3
                   for one in found.tried)  # fmt: skip
    # the result is the picture that the generator draws for that window
    shown = found.pixels[found.best.key]
    drawn = {item.key: item.pixels for item in generator.draw([request_of(generator, 2, 5)])}
    assert np.array_equal(shown, drawn[found.best.key])


def request_of(generator, start, stop):
    from negbench.timing.plan import window_rule
    from negbench.types import ImageRequest, Negative, Treatment

    return ImageRequest(
        generator=generator.ref(),
        treatment=Treatment(
            prompt="a house",
            negatives=(Negative(text="tree"),),
            guidance=window_rule(5.0, start, stop),
        ),
        seed=0,
    )


def test_a_longer_window_is_made_shorter_call_by_call(generator, asked):
    # lengths 1, 2, 3 ... are tried at every start, so shorter ones hide at lengths not tried
    found = search(generator, lambda w: 0.2 if w[0] <= 1 and w[1] >= 8 else 0.7)
    assert found.status == "removed"
    assert found.best.window == (1, 8)
    neighbours = {one.window: one.present for one in found.tried}
    assert neighbours[(2, 8)] is True
    assert neighbours[(1, 7)] is True


def test_it_ends_honestly(generator, asked):
    absent = search(generator, lambda w: 0.3)
    assert (absent.status, len(absent.tried), absent.best) == ("not there", 1, None)
    dark = search(generator, lambda w: None)
    assert (dark.status, dark.reason) == ("no verdict", "too dark")
    stays = search(generator, lambda w: 0.95 - w[1] / 100)
    assert stays.status == "not removed"
    assert stays.best.window[1] == 12
    short = search(generator, lambda w: 0.1 if w == (0, 12) else 0.9, budget=10)
    assert short.status == "not removed"
    assert len(short.tried) <= 10
    assert "--budget" in short.note
    enough = search(generator, lambda w: 0.1 if w == (0, 12) else 0.9, budget=1000)
    assert enough.status == "removed"
    assert enough.best.window == (0, 12)


def test_bad_questions_are_refused(generator):
    judge = build_judge("miniature")
    ask = lambda **more: remove(  # noqa: E731
        **{"prompt": "a house", "concept": "tree", "generator": generator, "judge": judge, **more}
    )
    for more in ({"prompt": " "}, {"concept": ""}, {"seed": -1}, {"seed": 2**32}, {"budget": 1},
                 {"scale": 1.0}, {"generator": resolve("fake")}):  # fmt: skip
        with pytest.raises(ConfigError):
            ask(**more)
    with pytest.raises(DataError):
        ask(prompt="x" * 20_001)
    with pytest.raises(DataError):
        ask(concept="\udc80")


HOSTILE = "../../a house\x00 $x^2$ <script>\u202e\N{PILE OF POO}" + "/" * 300


def test_the_command_writes_what_it_found(pipeline, tmp_path, capfd, asked):
    scripted(lambda w: 0.1 if w[0] <= 1 and w[1] >= 3 else 0.9)
    base = ["remove", "--generator", pipeline, "-o", "steps=4", "-o", "scheduler=ddim",
            "--judge", "scripted", "--out", tmp_path / "out", "--device", "cpu"]  # fmt: skip
    code, out, _ = run(capfd, *base, HOSTILE, "--concept", "tree", "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["status"], result["best"]["start"], result["best"]["stop"]) == ("removed", 1, 3)
    (folder,) = (tmp_path / "out").iterdir()
    assert str(folder) == result["folder"]
    assert len(folder.name) < 100
    assert {file.name for file in folder.iterdir()} == {
        "twin.png", "result.png", "side-by-side.png", "remove.json",
    }  # fmt: skip
    with Image.open(folder / "side-by-side.png") as sheet:
        assert sheet.size[0] > 3 * 256
    with Image.open(folder / "twin.png") as twin, Image.open(folder / "result.png") as after:
        assert twin.size == after.size == (16, 16)
        assert twin.tobytes() != after.tobytes()

    scripted(lambda w: 0.9)
    code, out, _ = run(capfd, *base, "a house", "--concept", "tree")
    assert code == 1
    assert out.startswith("not removed")
    scripted(lambda w: 0.1)
    code, out, _ = run(capfd, *base, "a house", "--concept", "tree", "--seed", "1")
    assert code == 0
    assert out.startswith("not there")
    names = sorted(file.name for file in (tmp_path / "out").glob("*/*.png"))
    assert names.count("result.png") == 1
    assert names.count("closest.png") == 1

    code, out, err = run(capfd, "remove", "a house", "--concept", "tree", "--generator", pipeline)
    assert (code, out) == (2, "")
    assert "--judge" in err
