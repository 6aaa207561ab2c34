"""How large a call is on a GPU, and compiled denoisers: played through without one."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from tiny_pipelines import make_sd

from negbench.errors import NegbenchError
from negbench.generators import fitting
from negbench.generators.base import RunOptions
from negbench.generators.resolve import resolve
from negbench.types import Guidance, ImageRequest, Negative, Treatment


def card(*, fits, fixed, each, busy_from=None):
    """Seconds of a call on a made-up GPU: a fixed part, and one for every row that has to wait."""
    tried = []

    def attempt(rows):
        tried.append(rows)
        if rows > fits:
            raise torch.OutOfMemoryError
        waves = rows if busy_from is None else max(rows, busy_from)
        return fixed + each * waves

    return attempt, tried


@pytest.mark.parametrize(
    ("kind", "expected", "tried"),
    [
        # every doubling pays until the fixed part no longer counts
        ({"fits": 999, "fixed": 1.0, "each": 0.1}, 256, [8, 16, 32, 64, 128, 256]),
        ({"fits": 999, "fixed": 0.0, "each": 0.1, "busy_from": 32}, 32, [8, 16, 32, 64]),
        ({"fits": 40, "fixed": 1.0, "each": 0.01}, 32, [8, 16, 32, 64]),
        ({"fits": 3, "fixed": 1.0, "each": 0.01}, 2, [8, 4, 2]),
        ({"fits": 1, "fixed": 1.0, "each": 0.01}, 1, [8, 4, 2, 1]),
    ],
)
def test_rows_are_doubled_while_it_pays_and_fits(kind, expected, tried):
    attempt, seen = card(**kind)
    assert fitting.fastest_rows(attempt, start=8, most=256) == expected
    assert seen == tried


def test_where_one_row_does_not_fit_it_is_said():
    attempt, _ = card(fits=0, fixed=1.0, each=1.0)
    with pytest.raises(torch.OutOfMemoryError):
        fitting.fastest_rows(attempt, start=8, most=256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sd(tmp_path_factory.mktemp("pipelines") / "sd")


def build(folder, **options):
    return resolve(
        str(folder),
        params={"steps": 2, "dtype": "float32", "scheduler": "ddim"},
        options=RunOptions(device="cpu", **options),
    )


def request(generator, kind="cfg"):
    return ImageRequest(
        generator=generator.ref(),
        treatment=Treatment(
            prompt="a house", negatives=(Negative(text="tree"),), guidance=Guidance(kind=kind)
        ),
        seed=1,
    )


def test_a_gpu_is_tried_out_when_the_networks_are_loaded(folder, monkeypatch):
    monkeypatch.setattr(fitting, "on_gpu", lambda device: True)
    attempt, tried = card(fits=20, fixed=1.0, each=0.01)
    monkeypatch.setattr(fitting, "time_call", lambda network, rows: attempt(rows))
    rows = build(folder).load().rows
    assert (rows.denoiser, rows.decoder) == (16, 2)
    assert tried == [8, 16, 32]
    assert build(folder, batch_size=5).load().rows.denoiser == 32
    assert len(tried) == 3

    attempt, _ = card(fits=0, fixed=1.0, each=0.01)
    with pytest.raises(NegbenchError, match="not even one picture fits"):
        build(folder).load()


def test_a_call_can_be_timed(folder):
    network = build(folder).load()
    assert fitting.time_call(network, 3) > 0


def test_compiled_is_another_way_to_the_same_picture(folder, monkeypatch):
    calls = []

    def compiled(module, *, dynamic, options):
        assert dynamic is False

        def run(*args, **kinds):
            calls.append(1)
            return module(*args, **kinds)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    plain, fast = build(folder), build(folder, compile=True)
    assert plain.ref() == fast.ref()
    for kind, expected in (("cfg", 2), ("nag", 2)):
        calls.clear()
        (left,), (right,) = (list(g.draw([request(g, kind)])) for g in (plain, fast))
        assert np.array_equal(left.pixels, right.pixels)
        assert len(calls) == expected  # calls whose layers are steered are not compiled
    assert fast.describe()["compiled"] is True
    assert "compiled" not in plain.describe()
    network = fast.load()
    with contextlib.suppress(ValueError), network.uncompiled():
        assert network.denoise is network.unet
        raise ValueError
    assert network.denoise is not network.unet


def test_a_denoiser_that_cannot_be_compiled_is_one_line(folder, monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def compiled(module, *, dynamic, options):
        def run(*args, **kinds):
            raise BackendCompilerFailed(print, RuntimeError("no working C++ compiler"), None)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    generator = build(folder, compile=True)
    with pytest.raises(NegbenchError, match=r"^--compile: .* no working C\+\+ compiler.*g\+\+"):
        list(generator.draw([request(generator, "cfg")]))


@pytest.mark.slow
def test_what_the_compiler_makes_differs_by_rounding(folder):
    plain, fast = build(folder), build(folder, compile=True)
    for kind in ("cfg", "nag", "window"):
        (left,), (right,) = (list(g.draw([request(g, kind)])) for g in (plain, fast))
        difference = np.abs(left.pixels.astype(int) - right.pixels.astype(int))
        assert difference.max() <= 1
