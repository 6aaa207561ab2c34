"""What is drawn once for several requests, against the same requests drawn apart."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from tiny_pipelines import lanes_of, make_sd, make_sdxl, request

from negbench.generators import history
from negbench.generators.base import RunOptions
from negbench.generators.loop import Denoiser, join
from negbench.generators.resolve import resolve
from negbench.generators.schedule import HISTORY, SHORT
from negbench.generators.sharing import Node, count_together, parcels
from negbench.guidance import rules
from negbench.guidance.base import EMPTY, POSITIVE, Plain, Step, negative
from negbench.guidance.binding import bind
from negbench.types import Guidance, Negative

STEPS = 6


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {"sd": make_sd(root / "sd"), "sdxl": make_sdxl(root / "sdxl")}


def build(folder, *, batch_size=None, **params):
    return resolve(
        str(folder),
        params={"steps": STEPS, "dtype": "float32", "scheduler": "ddim", **params},
        options=RunOptions(device="cpu", batch_size=batch_size),
    )


def grid(generator, prompt="a house", text="tree", seed=0, calls=STEPS):
    """The twin and the negative in every window."""
    windows = [
        request(generator, prompt, text, seed=seed, kind="window", start=start, stop=stop)
        for start, stop in itertools.combinations(range(calls + 1), 2)
    ]
    return [request(generator, prompt, seed=seed), *windows]


def varied(generator):
    """Rules whose pictures begin alike for a while, or never do."""
    make = lambda *args, **kinds: request(generator, "a house", *args, **kinds)  # noqa: E731
    requests = grid(generator, calls=4)
    requests += [
        make("tree"),
        make("fog"),
        make("fog", kind="window", start=2),
        make("fog", kind="window", start=2, scale=2.0),
        make("tree", scale=1.0),
        make("tree", kind="window", start=3, scale=1.0),
        make("tree", kind="perp_neg"),
        make("tree", kind="ccfg"),
        make("tree", kind="composable_not"),
        make("tree", kind="composable_not", weight=0),
        make("tree", kind="sld", preset="weak", warmup=3),
        make("tree", kind="sld", warmup=2),
        make("tree", "fog", kind="sld", preset="weak", warmup=3, strength=30),
        make("tree", kind="nag", stop=0.5),
        make("tree", kind="nag", stop=0.7),
        make("tree", kind="vsf"),
        make(Negative(text="tree", weight=0.5)),
        make(Negative(text="tree", weight=0.5), kind="window", start=0, stop=3),
        request(generator, "red car", "tree"),
        request(generator, "red car", seed=1),
        request(generator, "a house", "tree", seed=1, kind="window", start=5),
    ]
    return requests


def drawn(generator, requests):
    return {item.key: item for item in generator.draw(requests)}


def apart(generator, requests):
    return {key: item for one in requests for key, item in drawn(generator, [one]).items()}


# The same pictures, for less -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "scheduler"), [("sd", "ddim"), ("sd", "pndm"), ("sdxl", "euler_a")]
)
def test_shared_pictures_are_the_same_to_the_bit(folders, family, scheduler):
    generator = build(folders[family], scheduler=scheduler)
    requests = varied(generator)
    alone = apart(generator, requests)
    together = drawn(generator, requests)
    assert together.keys() == alone.keys()
    for key, item in together.items():
        assert np.array_equal(item.pixels, alone[key].pixels)
        assert item.evaluations == alone[key].evaluations
        assert alone[key].shared == 0
    made = sum(item.evaluations - item.shared for item in together.values())
    assert made == generator.needed(requests) < sum(item.evaluations for item in alone.values())


def test_order_and_batch_size_change_no_bit_of_shared_pictures(folders):
    generator = build(folders["sd"], scheduler="dpm++2m")
    requests = varied(generator)
    whole = drawn(generator, requests)
    for number, size in enumerate((1, 3, 50)):
        shuffled = random.Random(number).sample(requests, len(requests))
        other = drawn(build(folders["sd"], scheduler="dpm++2m", batch_size=size), shuffled)
        assert other.keys() == whole.keys()
        assert all(np.array_equal(other[key].pixels, whole[key].pixels) for key in whole)
        made = sum(item.evaluations - item.shared for item in other.values())
        assert made == generator.needed(requests)


def test_predictions_are_made_as_often_as_said(folders, monkeypatch):
    generator = build(folders["sd"])
    seen = []
    real = Denoiser._predict
    monkeypatch.setattr(
        Denoiser,
        "_predict",
        lambda self, x, t, jobs, texts: (seen.append(len(jobs)), real(self, x, t, jobs, texts))[1],
    )
    requests = varied(generator)
    results = drawn(generator, requests)
    assert sum(seen) == generator.needed(requests)
    assert sum(item.evaluations - item.shared for item in results.values()) == sum(seen)


def test_a_grid_of_30_steps_needs_a_third():
    """Counted on requests alone; the formula is worked out apart."""
    generator = resolve("miniature", params={"steps": 30, "scheduler": "ddim"})
    requests = grid(generator, calls=30)
    naive = sum(generator.evaluations(one) for one in requests)
    assert naive == (465 + 1) * 60
    trunk = 30
    inside = sum(30 - start for start in range(30))
    after = sum(30 - stop for start in range(30) for stop in range(start + 1, 30))
    parted = 2 * (trunk + inside + after)
    # where a picture parts from another, both still see the same latent under the same prompt
    shared_prompts = 30 + sum(1 for start in range(30) for stop in range(start + 1, 30))
    assert generator.needed(requests) == parted - shared_prompts
    assert parted / naive < 0.36
    assert generator.needed(requests) / naive < 0.40


def test_batches_stay_full_across_prompts(folders):
    generator = build(folders["sd"])
    network = generator.load()
    rows = network.rows.denoiser
    calls = []
    handle = network.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    requests = [one for seed in range(12) for one in grid(generator, seed=seed)]
    needed = generator.needed(requests)
    drawn(generator, requests)
    handle.remove()
    assert len(calls) * rows <= needed * 1.15


def test_each_text_is_encoded_once(folders):
    generator = build(folders["sd"])
    network = generator.load()
    seen = []
    real = network._encode_block
    network._encode_block = lambda block, *rest: (seen.extend(block), real(block, *rest))[1]
    drawn(generator, varied(generator))
    assert sorted(map(str, seen)) == sorted({str(text) for text in seen})
    assert {"a house", "tree", "fog", "red car", ""} <= set(seen)


def test_few_states_wait_while_much_is_drawn(folders, monkeypatch):
    from negbench.generators import waves

    generator = build(folders["sd"], batch_size=4)
    most = 0
    real = waves.Waves.turn

    def turn(self):
        nonlocal most
        result = real(self)
        most = max(most, sum(len(c.nodes) for chunks in self._waiting.values() for c in chunks))
        return result

    monkeypatch.setattr(waves.Waves, "turn", turn)
    requests = [request(generator, "a house", "fog", seed=seed) for seed in range(40)]
    requests += [one for seed in range(4) for one in grid(generator, seed=seed, calls=4)]
    free = drawn(generator, requests)
    assert most <= 2 * 4 * STEPS
    monkeypatch.setattr(waves, "KEPT", 1)
    tight = drawn(generator, requests)
    assert all(np.array_equal(tight[key].pixels, free[key].pixels) for key in free)


def test_a_scheduler_that_is_not_known_shares_nothing(folders, monkeypatch):
    requests = varied(build(folders["sd"]))
    expected = drawn(build(folders["sd"]), requests)
    monkeypatch.delitem(HISTORY, "DDIMScheduler")
    generator = build(folders["sd"])
    assert generator.needed(requests) == sum(generator.evaluations(one) for one in requests)
    results = drawn(generator, requests)
    assert all(item.shared == 0 for item in results.values())
    assert all(np.array_equal(results[key].pixels, expected[key].pixels) for key in expected)


# States ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", sorted(SHORT))
def test_a_run_goes_on_from_every_state(folders, scheduler):
    """Cloned, cut out, cut apart and joined again, at every call: the same to the bit."""
    generator = build(folders["sd"], scheduler=scheduler, steps=4)
    network = generator.load()
    requests = [
        request(generator, "a house", "tree", seed=3),
        request(generator, "a house", "tree", seed=4, kind="sld", warmup=1),
        request(generator, "red", seed=5, kind="window", start=1),
    ]
    with torch.inference_mode():
        lanes, texts = lanes_of(generator, network, requests)
        denoiser = Denoiser(network, generator.schedule)
        whole = denoiser.run(lanes, texts)
        state = denoiser.begin(lanes)
        while state.index < len(denoiser.steps):
            swapped = state.clone()
            parts = [state.take([2, 0]), state.take([1])]
            alone = state.take([1])
            for part, rows in ((swapped, [0, 1, 2]), (join(parts), [2, 0, 1]), (alone, [1])):
                while part.index < len(denoiser.steps):
                    denoiser.advance(part, [lanes[row] for row in rows], texts)
                assert torch.equal(part.latents, whole.latents[rows])
                assert part.spent == [whole.spent[row] for row in rows]
            denoiser.advance(state, lanes, texts)
            known = HISTORY[type(state.scheduler).__name__]
            for name, value in vars(state.scheduler).items():
                items = value if isinstance(value, list) else [value]
                rowed = [i for i in items if isinstance(i, torch.Tensor) and i.ndim == 4]
                assert not rowed or name in known
        assert torch.equal(state.latents, whole.latents)


def test_one_state_can_go_on_in_several_ways(folders):
    generator = build(folders["sd"], scheduler="euler_a")
    network = generator.load()
    requests = [request(generator, "a house", text, seed=3) for text in ("tree", "fog")]
    with torch.inference_mode():
        lanes, texts = lanes_of(generator, network, requests)
        denoiser = Denoiser(network, generator.schedule)
        expected = denoiser.run(lanes, texts)
        state = denoiser.begin(lanes[:1])
        denoiser.advance(state, lanes, texts, [0, 0])
        assert state.spent == [2, 2]
        assert state.paid == [2, 1]
        while state.index < len(denoiser.steps):
            denoiser.advance(state, lanes, texts)
    assert torch.equal(state.latents, expected.latents)


def test_what_rules_keep_is_cut_and_joined_by_rows():
    import dataclasses
    from typing import NamedTuple

    class Pair(NamedTuple):
        a: torch.Tensor
        b: int

    @dataclasses.dataclass(frozen=True)
    class Kept:
        v: torch.Tensor
        more: dict

    whole = {
        "v": torch.arange(12.0).view(3, 2, 2),
        "pair": Pair(torch.arange(3), 7),
        "deep": [Kept(torch.arange(6).view(3, 2), {"x": (torch.ones(3), None)})],
        "count": torch.tensor(4),
    }
    rows = [history.row_of(whole, row, copied=True) for row in range(3)]
    again = history.stack_rows([rows[2], rows[0]])
    assert torch.equal(again["v"], whole["v"][[2, 0]])
    assert torch.equal(again["pair"].a, torch.tensor([2, 0]))
    assert again["pair"].b == 7
    assert torch.equal(again["deep"][0].v, whole["deep"][0].v[[2, 0]])
    assert again["deep"][0].more["x"][1] is None
    assert again["count"] == 4
    assert history.row_of(None, 0) is None


# What rules say of themselves --------------------------------------------------------------------


@pytest.mark.parametrize("kind", rules.names())
def test_rules_in_the_plain_phase_are_plain_to_the_bit(kind):
    settings = {
        "window": {"start": 2, "stop": 4},
        "sld": {"preset": "weak", "warmup": 3},
        "composable_not": {"weight": 0},
    }
    shape = (2, 4, 3, 3)
    made = {branch: torch.randn(shape) for branch in (EMPTY, POSITIVE, negative(0))}
    phases = set()
    for params, scale, texts in itertools.product(
        ({}, settings.get(kind, {})), (0.0, 1.0, 4.0), ((), ("tree",))
    ):
        rule, _ = bind(
            Guidance(kind=kind, scale=scale, params=params), [Negative(text=t) for t in texts]
        )
        kept = None
        for index in range(5):
            step = Step(index, 5, 500.0, 1.0)
            assert rule.phase(step) == rule.phase(Step(index, 5, 0.0, 0.0))
            hash(rule.phase(step))
            needs = rule.needs(step)
            found = {branch: made[branch._replace(steer=None)] for branch in needs}
            result, after = rule.combine(found, made[EMPTY], step, kept)
            if isinstance(rule.phase(step), Plain):
                base, *prompt = found.values()
                expected = base + scale * (prompt[0] - base) if prompt else base
                assert rule.phase(step).scale == scale
                assert torch.equal(result, expected)
                assert after is kept
            phases.add(rule.phase(step))
            kept = after
    if kind not in ("perp_neg", "ccfg"):
        assert any(isinstance(phase, Plain) for phase in phases)


def test_windows_share_with_plain_guidance_and_other_scales_do_not(folders):
    generator = build(folders["sd"])
    calls = STEPS
    track = generator.reader.track

    def together(*requests):
        return count_together(Node([track(one) for one in requests]), calls=calls)

    twin = request(generator, "a house")
    full = request(generator, "a house", "tree")
    for k in range(1, calls):
        late = request(generator, "a house", "tree", kind="window", start=k)
        early = request(generator, "a house", "tree", kind="window", stop=k)
        alone = 2 * calls
        # two predictions in common before the parting, then the prompt's once at the parting
        assert together(twin, late) == 2 * alone - 2 * k - 1
        assert together(full, early) == 2 * alone - 2 * k - 1
        assert together(twin, early) == 2 * alone - 1
    other = request(generator, "a house", scale=4.0)
    assert together(twin, other) == 2 * 2 * calls - 2
    half = request(generator, "a house", "tree", kind="window", start=0.5, unit="fraction")
    whole = request(generator, "a house", "tree", kind="window", start=calls // 2)
    assert together(half, whole) == 2 * calls


def test_workers_get_what_belongs_together():
    generator = resolve("fake")
    requests = [one for seed in range(3) for one in grid(generator, seed=seed, calls=3)]
    requests += [request(generator, f"prompt {i}", seed=i) for i in range(9)]
    shuffled = random.Random(0).sample(requests, len(requests))
    made = parcels(shuffled, size=5)
    assert sorted(one.key() for parcel in made for one in parcel) == sorted(
        one.key() for one in requests
    )
    assert all(len(parcel) >= 5 for parcel in made[:-1])
    for seed in range(3):
        holding = [p for p in made if any(o.seed == seed and o.treatment.prompt == "a house"
                                          for o in p)]  # fmt: skip
        assert len(holding) == 1
    assert parcels([], size=5) == []
