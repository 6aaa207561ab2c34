"""Canonical mode: what else is drawn, in which order and batch, changes no bit of a picture."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tiny_pipelines import make_sd, make_sdxl, request

from negbench.errors import ConfigError, NegbenchError, UnknownNameError
from negbench.generators import fitting, layers
from negbench.generators.base import RunOptions
from negbench.generators.resolve import resolve
from negbench.generators.schedule import SHORT, Schedule
from negbench.types import Guidance, Negative


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {"sd": make_sd(root / "sd"), "sdxl": make_sdxl(root / "sdxl")}


def build(folder, *, batch_size=None, **params):
    return resolve(
        str(folder),
        params={"steps": 4, "dtype": "float32", **params},
        options=RunOptions(device="cpu", batch_size=batch_size),
    )


def mixed(generator):
    """Different prompts, negatives, rules, scales and weights side by side."""
    make = lambda *args, **kinds: request(generator, *args, **kinds)  # noqa: E731
    requests = []
    for seed in range(3):
        requests += [
            make("a house", seed=seed),
            make("a house", "tree", seed=seed),
            make("a house", "tree", "fog", seed=seed),
            make("a house", "tree", seed=seed, kind="window", start=1, stop=3),
            make("a house", "tree", seed=seed, kind="window", start=0.5, unit="fraction"),
            make("professor with glasses", "glasses", seed=seed, scale=2.0),
            make("professor with glasses", seed=seed, scale=1.0),
            make("red", Negative(text="blurry", weight=0.5), "cat", seed=seed),
            make("", "night", seed=seed),
        ]
    return requests


def drawn(generator, requests):
    return {item.key: item for item in generator.draw(requests)}


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_order_companions_and_batch_size_change_no_bit(folders, family):
    generator = build(folders[family], scheduler="euler_a")
    requests = mixed(generator)
    whole = drawn(generator, requests)
    assert len(whole) == len({item.key() for item in requests}) == len(requests)
    shuffled = requests.copy()
    random.Random(1).shuffle(shuffled)
    for part, size in ((shuffled, None), (shuffled[:11], 5), (requests[4:5], 1)):
        other = drawn(build(folders[family], scheduler="euler_a", batch_size=size), part)
        for item in part:
            assert np.array_equal(other[item.key()].pixels, whole[item.key()].pixels)
            assert other[item.key()].evaluations == whole[item.key()].evaluations
    assert len({item.pixels.tobytes() for item in whole.values()}) == len(whole)


@pytest.mark.parametrize("scheduler", sorted(SHORT))
def test_every_scheduler_draws_apart_what_it_draws_together(folders, scheduler):
    generator = build(folders["sd"], scheduler=scheduler)
    requests = mixed(generator)[:5]
    whole = drawn(generator, requests)
    alone = drawn(generator, requests[3:4])
    key = requests[3].key()
    assert np.array_equal(alone[key].pixels, whole[key].pixels)


@pytest.mark.parametrize("scheduler", sorted(SHORT))
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 30])
def test_model_calls_are_known_without_the_scheduler(folders, scheduler, steps):
    own = {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "steps_offset": 1}
    schedule = Schedule.choose(scheduler, own, steps=steps)
    try:
        timesteps = schedule.build().timesteps
    except ConfigError:
        assert steps == 1  # some schedulers refuse a single step
        return
    assert schedule.calls() == len(timesteps)


def test_pndm_of_30_steps_makes_31_calls(folders):
    generator = build(folders["sd"], steps=30)
    assert generator.evaluations(request(generator, "a house", "tree")) == 62


def test_evaluations_are_what_is_spent(folders):
    for family in folders:
        generator = build(folders[family], scheduler="ddim")
        results = drawn(generator, mixed(generator))
        for item in mixed(generator):
            assert results[item.key()].evaluations == generator.evaluations(item)
    sd = build(folders["sd"], scheduler="ddim")
    assert sd.evaluations(request(sd, "a house")) == 8
    assert sd.evaluations(request(sd, "a house", scale=1.0)) == 4
    assert sd.evaluations(request(sd, "tree", "tree")) == 4
    assert sd.evaluations(request(sd, "red", Negative(text="cat", weight=0.5))) == 12


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_windows_at_their_ends(folders, family):
    """An empty window is no negative, a full one is plain guidance, and both to the bit."""
    generator = build(folders[family])
    pairs = [
        (("tree", "window", {"start": 0, "stop": 0}), (None, "cfg", {})),
        (("tree", "window", {"start": 4, "stop": 4}), (None, "cfg", {})),
        ((None, "window", {"start": 1, "stop": 2}), (None, "cfg", {})),
        (("tree", "window", {}), ("tree", "cfg", {})),
        (("tree", "window", {"start": 0, "stop": 5}), ("tree", "cfg", {})),
        (("tree", "window", {"stop": 1, "unit": "fraction"}), ("tree", "cfg", {})),
        (
            ("tree", "window", {"start": 0.2, "stop": 0.6, "unit": "fraction"}),
            ("tree", "window", {"start": 1, "stop": 3}),
        ),
    ]
    for pair in pairs:
        keys = []
        for text, kind, params in pair:
            negatives = [] if text is None else [text]
            keys.append(request(generator, "a house", *negatives, kind=kind, **params))
        pictures = [drawn(generator, [key])[key.key()].pixels for key in keys]
        assert np.array_equal(*pictures), pair


def test_a_weight_of_one_is_plain_and_of_zero_is_none(folders):
    generator = build(folders["sd"])
    make = lambda *negatives: request(generator, "a house", *negatives)  # noqa: E731
    cases = [
        (make(Negative(text="tree", weight=0)), make()),
        (make("tree", "fog"), make("tree, fog")),
        (make("tree", " "), make("tree")),
    ]
    for left, right in cases:
        results = drawn(generator, [left, right])
        assert np.array_equal(results[left.key()].pixels, results[right.key()].pixels)


def test_chunks_equal_truncation_while_the_text_fits(folders):
    for family in folders:
        cut, chunked = build(folders[family]), build(folders[family], long_text="chunk")
        left, right = (request(g, "red hat", "blurry") for g in (cut, chunked))
        assert left.key() != right.key()
        one, other = (next(iter(g.draw([r]))) for g, r in ((cut, left), (chunked, right)))
        assert np.array_equal(one.pixels, other.pixels)
        assert one.facts["truncated_tokens"] == other.facts["truncated_tokens"] == 0


def test_long_texts_are_cut_and_counted_or_chunked(folders):
    long = "a house with snow and fog on the old red car in night"  # 13 words, 10 fit
    cut = build(folders["sd"])
    requests = [
        request(cut, long),
        request(cut, " ".join(long.split()[:10])),
        request(cut, "cat", long, long),
    ]
    results = drawn(cut, requests)
    whole, head, twice = (results[item.key()] for item in requests)
    assert whole.facts["truncated_tokens"] == 3
    assert head.facts["truncated_tokens"] == 0
    assert twice.facts["truncated_tokens"] == 17
    assert np.array_equal(whole.pixels, head.pixels)

    chunked = build(folders["sd"], long_text="chunk")
    requests = [request(chunked, text) for text in (long, " ".join(long.split()[:10]))]
    requests.append(request(chunked, "cat", long))
    together = drawn(chunked, requests)
    assert all(item.facts["truncated_tokens"] == 0 for item in together.values())
    whole, head, _ = (together[item.key()].pixels for item in requests)
    assert not np.array_equal(whole, head)
    for item in requests:
        alone = next(iter(chunked.draw([item])))
        assert np.array_equal(alone.pixels, together[item.key()].pixels)
    network = chunked.load()
    assert network.chunks(long) == 2
    with torch.inference_mode():
        two = network.encode([long, "cat"], chunks=2).context
        parts = network.encode([" ".join(long.split()[:10]), "cat", ""]).context
    assert two.shape[1] == 2 * network.length
    assert torch.equal(two[0, : network.length], parts[0])
    assert torch.equal(two[1, : network.length], parts[1])
    assert torch.equal(two[1, network.length :], parts[2])


def test_fixed_shapes_are_really_fixed(folders):
    generator = build(folders["sd"])
    network = generator.load()
    seen = {"unet": set(), "vae": set(), "text": set()}
    modules = {"unet": network.unet, "vae": network.vae.decoder, "text": network.encoders[0]}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, kinds, name=name: seen[name].add(
                tuple((args[0] if args else kinds["input_ids"]).shape)
            ),
            with_kwargs=True,
        )
        for name, module in modules.items()
    ]
    drawn(generator, mixed(generator))
    drawn(generator, mixed(generator)[:2])
    for handle in handles:
        handle.remove()
    assert {name: len(shapes) for name, shapes in seen.items()} == dict.fromkeys(seen, 1)


def test_out_of_gpu_memory_halves_the_batch_and_loses_nothing(folders, monkeypatch):
    generator = build(folders["sd"])
    requests = mixed(generator)[:7]
    expected = drawn(generator, requests)
    network = generator.load()
    real, sizes, fits = network.predict, [], 8

    def scarce(x, timestep, texts):
        sizes.append(len(x))
        if len(x) > fits:
            raise torch.OutOfMemoryError
        return real(x, timestep, texts)

    monkeypatch.setattr(network, "predict", scarce)
    with pytest.raises(torch.OutOfMemoryError):
        drawn(generator, requests)  # on the CPU there is nothing to give back

    monkeypatch.setattr(fitting, "on_gpu", lambda device: True)
    sizes.clear()
    results = drawn(generator, requests)
    assert sizes[:4] == [32, 16, 8, 8]
    assert set(sizes[3:]) == {8}
    assert results.keys() == expected.keys()
    for key, item in results.items():  # other shapes of calls may round otherwise
        difference = item.pixels.astype(int) - expected[key].pixels
        assert np.abs(difference).max() <= 1
        assert (item.evaluations, item.shared) == (expected[key].evaluations, expected[key].shared)
    assert network.rows.denoiser == 8

    fits = 0
    with pytest.raises(NegbenchError, match="not even one picture"):
        drawn(generator, requests)


@pytest.mark.gpu
def test_on_a_gpu_pictures_are_close_to_the_cpu(folders):
    cpu = build(folders["sdxl"])
    gpu = resolve(
        str(folders["sdxl"]),
        params={"steps": 4, "dtype": "float32"},
        options=RunOptions(device="cuda"),
    )
    assert gpu.ref() == cpu.ref()
    requests = mixed(cpu)
    left, right = drawn(cpu, requests), drawn(gpu, requests)
    for key, item in left.items():
        assert np.abs(item.pixels.astype(int) - right[key].pixels).max() <= 3


def test_requests_of_another_generator_and_wrong_rules_are_refused(folders):
    generator, other = build(folders["sd"]), build(folders["sd"], steps=5)
    with pytest.raises(ConfigError, match="another generator"):
        list(generator.draw([request(other, "a house")]))
    with pytest.raises(UnknownNameError, match="did you mean window"):
        generator.check_guidance(Guidance(kind="windw"))
    with pytest.raises(UnknownNameError, match="no parameter 'strt'; did you mean start"):
        generator.check_guidance(Guidance(kind="window", params={"strt": 1}))
    with pytest.raises(ConfigError, match="after the last of 5 model calls"):
        generator.check_guidance(Guidance(kind="window", params={"start": 5}))
    with pytest.raises(ConfigError, match="version 1 here, but version 2"):
        generator.check_guidance(Guidance(kind="cfg", version=2))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_keys_and_values_of_a_text_are_made_once_and_change_no_bit(folders, kind, monkeypatch):
    projected = []
    plain = layers.project
    monkeypatch.setattr(layers, "project", lambda *args: projected.append(args[0]) or plain(*args))

    def drawn():
        projected.clear()
        generator = build(folders[kind])
        asked = [request(generator, "a house", "a tree", seed=seed) for seed in range(3)]
        items = list(generator.draw(asked))
        calls = items[0].evaluations // 2
        return {item.key: item.pixels for item in items}, len(projected), calls

    kept, once, calls = drawn()
    monkeypatch.setattr(layers, "LARGEST", 0)
    made_again, each_step, _ = drawn()
    assert each_step == calls * once
    assert all(np.array_equal(kept[key], made_again[key]) for key in kept)
