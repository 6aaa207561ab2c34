"""Learned embeddings as negatives: their files, what they stand for, and diffusers' own answer."""

from __future__ import annotations

import functools
import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_pipelines import CONTEXT, make_sd, make_sd3, make_sdxl

from negbench.conformance.methods import check_method
from negbench.embedding import Embedding, read_embedding
from negbench.errors import ConfigError, DataError, MissingError, NegbenchError
from negbench.generators.base import RunOptions
from negbench.generators.loading import quiet
from negbench.generators.resolve import resolve
from negbench.generators.sharing import Embedded
from negbench.methods.embedding import LearnedEmbedding
from negbench.metrics.clip import ClipToNegative
from negbench.params import build_config, parse_pairs
from negbench.plan import make_plan
from negbench.types import (
    Case,
    Guidance,
    ImageRequest,
    Negative,
    Ref,
    Treatment,
    embedding_place,
    holds_embedding,
    join_negatives,
)

CPU = RunOptions(device="cpu", batch_size=2)
SEEDS = [3, 2**31]


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def write(path, **tensors):
    save_file({key.replace("__", "<bad>"): item for key, item in tensors.items()}, path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture(scope="module")
def folders(root):
    return {"sd": make_sd(root / "sd"), "sdxl": make_sdxl(root / "sdxl")}


# The field of a negative --------------------------------------------------------------------


def test_without_an_embedding_nothing_changes_in_any_identity():
    treatment = Treatment(
        prompt="a", negatives=(Negative(text="b", weight=0.5),), guidance=Guidance(scale=4.0)
    )
    guidance = '"guidance":{"kind":"cfg","params":{},"scale":4.0,"version":1}'
    inner = f'{{{guidance},"negatives":[{{"text":"b","weight":0.5}}],"prompt":"a"}}'
    assert treatment.canonical().decode() == inner
    request = ImageRequest(generator=Ref(name="fake"), treatment=treatment, seed=7)
    whole = (
        '{"generator":{"name":"fake","params":{},"version":1},"schema_":1,"seed":7,'
        f'"treatment":{inner}}}'
    )
    assert request.canonical().decode() == whole
    assert json.loads(request.model_dump_json()) == json.loads(whole)
    assert ImageRequest.model_validate_json(whole) == request


def test_an_embedding_is_part_of_the_identity_and_is_read_back():
    digest = "3fa9c1d2" + "0" * 56
    negative = Negative(text=f"{embedding_place(digest)}, blurry", embedding=digest)
    assert json.loads(negative.canonical())["embedding"] == digest
    assert Negative.model_validate_json(negative.model_dump_json()) == negative
    assert negative.digest() != Negative(text=negative.text).digest()
    treatment = Treatment(prompt="a", negatives=(negative,))
    assert treatment.negative_text() == "<embedding:3fa9c1d2>, blurry"
    assert holds_embedding(treatment.negative_text())
    assert not holds_embedding("<lora:x:1>, embedding")
    with pytest.raises(ValueError, match="holds its place, <embedding:3fa9c1d2>"):
        Negative(text="blurry", embedding=digest)
    with pytest.raises(ValueError):
        Negative(text="x", embedding="3FA9")


def test_negatives_that_are_joined_keep_their_embedding():
    one, other = "1" * 64, "2" * 64
    learned = Negative(text=embedding_place(one), embedding=one)
    joined = join_negatives([learned, Negative(text="fog")])
    assert joined == Negative(text="<embedding:11111111>, fog", embedding=one)
    assert join_negatives([Negative(text="a"), Negative(text="b")]) == Negative(text="a, b")
    with pytest.raises(ConfigError, match="a text holds one"):
        join_negatives([learned, Negative(text=embedding_place(other), embedding=other)])


# Files --------------------------------------------------------------------------------------


def test_the_digest_is_of_the_vectors_not_of_the_file(tmp_path):
    values = drawn(3, 16).half()
    first = read_embedding(write(tmp_path / "a.safetensors", emb_params=values))
    renamed = read_embedding(write(tmp_path / "b.safetensors", __=values.float()))
    assert first.digest == renamed.digest
    assert not first.whole
    assert first.vectors == 3
    assert first.describe() == "a textual inversion of 3 vectors, 16 wide"
    exact = values.bfloat16()
    kept = read_embedding(write(tmp_path / "c.safetensors", emb_params=exact))
    assert np.array_equal(kept.tensors["tokens"], exact.float().numpy())
    assert kept.digest != first.digest
    whole = read_embedding(write(tmp_path / "d.safetensors", emb_params=values[None]))
    assert whole.whole
    assert whole.digest != first.digest
    assert whole.describe() == "a whole conditioning of 3 positions, 16 wide"
    single = read_embedding(write(tmp_path / "e.safetensors", __=values[0]))
    assert single.tensors["tokens"].shape == (1, 16)
    assert read_embedding(write(tmp_path / "f.safetensors", x=drawn(77, 8))).whole
    pair = write(
        tmp_path / "g.safetensors",
        negative_prompt_embeds=drawn(1, 5, 8),
        negative_pooled_prompt_embeds=drawn(1, 4),
    )
    assert list(read_embedding(pair).tensors) == ["context", "pooled"]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no tensors"),
        ({"a": drawn(2, 4), "b": drawn(2, 4)}, "holds 2 tensors ('a', 'b'); known are"),
        ({"a": torch.full((2, 4), float("nan"))}, "8 of 8 values of 'a' are not finite"),
        ({"a": drawn(2, 4) / 0}, "are not finite"),
        ({"a": torch.zeros(0, 4)}, "has shape (0, 4); expected (d,) or (k, d)"),
        ({"a": drawn(2, 3, 4)}, "has shape (2, 3, 4)"),
        ({"a": torch.tensor(1.0)}, "has shape ()"),
        ({"a": torch.zeros(1025, 2)}, "has shape (1025, 2)"),
        ({"a": torch.zeros(2, 4, dtype=torch.int64)}, "'a' has dtype I64"),
        ({"clip_l": drawn(2, 4), "clip_g": drawn(3, 6)}, "has 2 and 3 vectors for the two"),
    ],
)
def test_files_that_are_no_embedding(tmp_path, tensors, message):
    path = write(tmp_path / "bad.safetensors", **tensors)
    with pytest.raises(NegbenchError) as error:
        read_embedding(path, source="bad.safetensors")
    assert message in str(error.value)
    assert str(error.value).startswith("embedding bad.safetensors")


def test_pickles_are_refused_unread(tmp_path):
    for name in ("bad.pt", "bad.bin"):
        (tmp_path / name).write_bytes(pickle.dumps({"string_to_param": {}}))
        with pytest.raises(ConfigError, match=r"is a pickle, .* convert it"):
            read_embedding(tmp_path / name)
    (tmp_path / "lie.safetensors").write_bytes(pickle.dumps(list(range(100))))
    with pytest.raises(DataError, match="not a safetensors file"):
        read_embedding(tmp_path / "lie.safetensors")
    with pytest.raises(MissingError, match="no such file"):
        read_embedding(tmp_path / "gone.safetensors")
    torn = write(tmp_path / "torn.safetensors", x=drawn(4, 8))
    torn.write_bytes(torn.read_bytes()[:-7])
    with pytest.raises(DataError, match="torn"):
        read_embedding(torn)
    with (tmp_path / "large.safetensors").open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(ConfigError, match="has 17 MiB"):
        read_embedding(tmp_path / "large.safetensors")


# The method ---------------------------------------------------------------------------------


def method(path, **params):
    config = build_config(
        LearnedEmbedding.Config, {"file": str(path), **params}, owner="method embedding"
    )
    built = LearnedEmbedding(config)
    built.check()
    return built


def test_method_puts_the_place_into_the_text(tmp_path):
    path = write(tmp_path / "bad.safetensors", emb_params=drawn(2, 16))
    found = read_embedding(path)
    case = Case(id="1", prompt="a house")
    [plain] = method(path).treat([case], seed=0)
    assert plain.negatives == (Negative(text=found.place, embedding=found.digest),)
    [words] = method(path, text="{}, blurry").treat([case], seed=0)
    assert words.negative_text() == f"{found.place}, blurry"
    ref = method(path).ref("embedding")
    assert ref.params == {"text": "{}", "sha256:embedding": found.digest}
    assert str(tmp_path) not in ref.model_dump_json()
    [note] = method(path).notes([case])
    assert note == f"embedding: {found.place} is {path}, a textual inversion of 2 vectors, 16 wide"
    assert parse_pairs(['text={}, blurry', 'template={concept}']) == {
        "text": "{}, blurry", "template": "{concept}",
    }  # fmt: skip
    assert parse_pairs(['a={"b": 1}', "c=[1]"]) == {"a": {"b": 1}, "c": [1]}


def test_method_keeps_its_promises(tmp_path):
    path = write(tmp_path / "bad.safetensors", emb_params=drawn(2, 16))
    outcomes = check_method(LearnedEmbedding, name="embedding", params={"file": str(path)})
    assert [item.message for item in outcomes if not item.passed] == []


def test_method_refuses_texts_without_a_place(tmp_path):
    path = write(tmp_path / "bad.safetensors", emb_params=drawn(2, 16))
    for text in ("blurry", "{}, {}"):
        with pytest.raises(ConfigError, match=r"has to hold {} once"):
            method(path, text=text)
    whole = write(tmp_path / "whole.safetensors", x=drawn(1, CONTEXT, 16))
    with pytest.raises(ConfigError, match="takes the place of all words; leave text= out"):
        method(whole, text="{}, blurry")


def test_no_text_metric_reads_the_place():
    metric = ClipToNegative()
    case = Case(id="1", prompt="a house")
    assert metric.texts(case, "<embedding:3fa9c1d2>, blurry") == ()
    assert "learned embedding" in metric._why_none("<embedding:3fa9c1d2>")
    assert len(metric.texts(case, "blurry")) == 1


# Against diffusers --------------------------------------------------------------------------


@functools.cache
def theirs(folder):
    import diffusers

    name = "StableDiffusionXLPipeline" if "sdxl" in folder.name else "StableDiffusionPipeline"
    pipe = getattr(diffusers, name).from_pretrained(str(folder), low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def their_pictures(pipe, prompts, *, steps, scale, **given):
    noise = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
    pictures = pipe(
        prompts, guidance_scale=scale, num_inference_steps=steps, generator=noise,
        output_type="np", **given,
    ).images  # fmt: skip
    return np.stack([(picture * 255).round().astype(np.uint8) for picture in pictures])


def our_pictures(folder, prompts, embedding, text, *, steps, scale, mode="reference", **params):
    generator = resolve(
        str(folder), params={"steps": steps, "dtype": "float32", **params}, options=CPU, mode=mode
    )
    generator.take_embedding(embedding)
    requests = [
        ImageRequest(
            generator=generator.ref(),
            treatment=Treatment(
                prompt=prompt,
                negatives=(Negative(text=text, embedding=embedding.digest),),
                guidance=Guidance(scale=scale),
            ),
            seed=seed,
        )
        for prompt, seed in zip(prompts, SEEDS, strict=True)
    ]
    made = {item.key: item for item in generator.draw(requests)}
    return generator, np.stack([made[item.key()].pixels for item in requests]), made


PROMPTS = ["a house in fog", "red cat"]


@pytest.mark.parametrize("name", ["sd", "sdxl"])
@pytest.mark.parametrize("count", [1, 4])
def test_textual_inversion_equals_diffusers_to_the_bit(tmp_path, folders, name, count):
    token = f"<bad{count}>"
    if name == "sd":
        tensors = {token: drawn(count, 16)}
    else:
        tensors = {"clip_l": drawn(count, 16), "clip_g": drawn(count, 24, seed=2)}
    save_file(tensors, tmp_path / "bad.safetensors")
    embedding = read_embedding(tmp_path / "bad.safetensors")
    with quiet():
        pipe = theirs(folders[name])
        if name == "sd":
            pipe.load_textual_inversion(tensors)
        else:
            pipe.load_textual_inversion(tensors["clip_l"], token=token)
            pipe.load_textual_inversion(
                tensors["clip_g"], token=token,
                text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2,
            )  # fmt: skip
        for text in ("{}", "fog , {} , tree", "a a a a a a a {} , dog"):
            negative = text.replace("{}", token)
            wanted = their_pictures(
                pipe, PROMPTS, steps=3, scale=5.0, negative_prompt=[negative] * 2
            )
            own = text.replace("{}", embedding.place)
            generator, pixels, _ = our_pictures(
                folders[name], PROMPTS, embedding, own, steps=3, scale=5.0
            )
            assert np.array_equal(pixels, wanted), text
            network = generator.load()
            with torch.inference_mode():
                encoding = network.encode([Embedded(own, embedding.digest)])
                found = pipe.encode_prompt(
                    prompt=negative, device="cpu", num_images_per_prompt=1,
                    do_classifier_free_guidance=False,
                )  # fmt: skip
            assert torch.equal(encoding.context, found[0]), text
            if name == "sdxl":
                assert torch.equal(encoding.pooled, found[2]), text


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_whole_conditioning_equals_diffusers_to_the_bit(tmp_path, folders, name):
    context = drawn(1, CONTEXT, 16 if name == "sd" else 40)
    given = {"negative_prompt_embeds": context}
    if name == "sdxl":
        given["negative_pooled_prompt_embeds"] = drawn(1, 24, seed=2)
    save_file(given, tmp_path / "whole.safetensors")
    embedding = read_embedding(tmp_path / "whole.safetensors")
    pipe = theirs(folders[name])
    both = {key: torch.cat([item, item]) for key, item in given.items()}
    with quiet(), torch.inference_mode():
        positive = pipe.encode_prompt(
            prompt=PROMPTS, device="cpu", num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )  # fmt: skip
        both["prompt_embeds"] = positive[0]
        if name == "sdxl":
            both["pooled_prompt_embeds"] = positive[2]
        wanted = their_pictures(pipe, None, steps=3, scale=5.0, **both)
    generator, pixels, _ = our_pictures(
        folders[name], PROMPTS, embedding, embedding.place, steps=3, scale=5.0
    )
    assert np.array_equal(pixels, wanted)
    assert generator.load().truncated(Embedded(embedding.place, embedding.digest)) == 0


def test_an_embedding_changes_nothing_for_other_texts(tmp_path, folders):
    embedding = read_embedding(write(tmp_path / "x.safetensors", x=drawn(3, 16)))
    plain = resolve(str(folders["sd"]), params={"steps": 2}, options=CPU)
    with torch.inference_mode():
        network = plain.load()
        before = network.encode(["a house , blurry", ""])
        network._kept.clear()
        plain.take_embedding(embedding)
        network.encode([Embedded(embedding.place, embedding.digest)])
        after = network.encode(["a house , blurry", ""])
    assert torch.equal(before.context, after.context)


def test_long_texts_are_cut_or_read_in_chunks(tmp_path, folders):
    values = drawn(4, 16)
    embedding = read_embedding(write(tmp_path / "x.safetensors", x=values))
    generator = resolve(str(folders["sd"]), params={"steps": 2}, options=CPU)
    generator.take_embedding(embedding)
    network = generator.load()
    text = Embedded(f"a a a a a a a a {embedding.place} dog", embedding.digest)
    assert network.tokens(text) == 2 + 8 + 4 + 1
    assert network.truncated(text) == 15 - CONTEXT
    assert network.chunks(text) == 2
    tokenizer = network.tokenizers[0]
    with torch.inference_mode():
        ids = [network._chunk_ids(0, [text], number)["input_ids"][0] for number in range(2)]
        vectors = network.encoders[0].get_input_embeddings()(torch.stack(ids))
        both = network.encode([text], chunks=2)
    room = CONTEXT - 2
    first = [int(i) for i in ids[0][1:-1]] + [int(i) for i in ids[1][1:]]
    learned = [row for row in first if row >= len(tokenizer) - 4]
    assert len(learned) == 4
    assert torch.equal(vectors[0, 1 + 8 : 1 + room], values[:2])
    assert torch.equal(vectors[1, 1:3], values[2:])
    assert both.context.shape == (1, 2 * CONTEXT, 16)


def test_a_whole_conditioning_in_chunks_is_followed_by_empty_ones(tmp_path, folders):
    values = drawn(1, CONTEXT, 16)
    embedding = read_embedding(write(tmp_path / "x.safetensors", x=values))
    generator = resolve(str(folders["sd"]), params={"steps": 2}, options=CPU)
    generator.take_embedding(embedding)
    network = generator.load()
    with torch.inference_mode():
        found = network.encode([Embedded(embedding.place, embedding.digest), ""], chunks=2)
    assert torch.equal(found.context[0, :CONTEXT], values[0])
    assert torch.equal(found.context[0, CONTEXT:], found.context[1, CONTEXT:])


@pytest.mark.parametrize("kind", ["perp_neg", "nag", "sld", "composable_not"])
def test_canonical_pictures_under_other_rules(tmp_path, folders, kind):
    embedding = read_embedding(write(tmp_path / "x.safetensors", x=5 * drawn(2, 16)))
    generator = resolve(str(folders["sd"]), params={"steps": 3}, options=CPU)
    generator.take_embedding(embedding)
    from negbench.plan import resolve_guidance

    rule = resolve_guidance(kind, {}, base=Guidance(scale=5.0))
    if kind == "sld":
        rule = resolve_guidance(kind, {"warmup": 0}, base=Guidance(scale=5.0))
    learned = Negative(text=f"{embedding.place} , fog", embedding=embedding.digest)

    def draw(negatives):
        request = ImageRequest(
            generator=generator.ref(),
            treatment=Treatment(prompt="a house", negatives=negatives, guidance=rule),
            seed=1,
        )
        [made] = generator.draw([request])
        return made.pixels

    assert not np.array_equal(draw((learned,)), draw((Negative(text="fog"),)))


# While planning -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        ("sd", {"x": drawn(2, 24)}, "has vectors 24 wide, and text_encoder of generator .* 16"),
        ("sd", {"x": drawn(11, 16)}, r"has 11 vectors, and the text encoder .* room for 10"),
        ("sd", {"clip_l": drawn(1, 16), "clip_g": drawn(1, 24)}, "vectors for 2 text encoders"),
        ("sd", {"x": drawn(1, 9, 16)}, r"shape \(9, 16\), and that of generator .* \(12, 16\)"),
        ("sdxl", {"x": drawn(2, 16)}, r"for one text encoder, 16 wide.* 2 .*clip_l and clip_g"),
        ("sdxl", {"clip_l": drawn(1, 24), "clip_g": drawn(1, 16)}, "24 wide, and text_encoder of"),
        ("sdxl", {"x": drawn(1, 12, 40)}, "has no pooled text, and generator .* takes one 24"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(tmp_path, folders, name, tensors, message):
    embedding = read_embedding(write(tmp_path / "x.safetensors", **tensors), source="x")
    generator = resolve(str(folders[name]), options=CPU)
    with pytest.raises(ConfigError, match=message):
        generator.take_embedding(embedding)


def test_families_without_embeddings_and_embeddings_not_given(tmp_path, folders):
    embedding = read_embedding(write(tmp_path / "x.safetensors", x=drawn(2, 16)))
    flow = resolve(str(make_sd3(tmp_path / "sd3")), options=CPU)
    with pytest.raises(ConfigError, match=r"1.x, 2.x and XL; generator .* is of family sd3"):
        flow.take_embedding(embedding)
    generator = resolve(str(folders["sd"]), options=CPU)
    named = Negative(text=embedding.place, embedding=embedding.digest)
    with pytest.raises(MissingError, match="was not given the embedding <embedding:"):
        generator.refuse_ignored(Guidance(scale=5.0), [named])
    whole = Embedding.of({"context": np.ones((CONTEXT, 16), np.float32)}, whole=True, source="w")
    generator.take_embedding(whole)
    joined = [Negative(text=whole.place, embedding=whole.digest), Negative(text="fog")]
    with pytest.raises(ConfigError, match="joins other words to it"):
        generator.refuse_ignored(Guidance(scale=5.0), joined)


def test_a_generator_that_holds_embeddings_can_be_sent_to_a_worker(tmp_path, folders):
    embedding = read_embedding(write(tmp_path / "x.safetensors", x=drawn(2, 16)))
    for array in embedding.tensors.values():
        array.flags.writeable = False  # as arrays are that Ray has shared
    _, pixels, made = our_pictures(
        folders["sd"], PROMPTS, embedding, embedding.place, steps=2, scale=5.0, mode="canonical"
    )
    fresh = resolve(str(folders["sd"]), params={"steps": 2, "dtype": "float32"}, options=CPU)
    fresh.take_embedding(embedding)
    again = pickle.loads(pickle.dumps(fresh))
    request = ImageRequest(
        generator=again.ref(),
        treatment=Treatment(
            prompt=PROMPTS[0],
            negatives=(Negative(text=embedding.place, embedding=embedding.digest),),
            guidance=Guidance(scale=5.0),
        ),
        seed=SEEDS[0],
    )
    assert request.key() in made
    [one] = again.draw([request])
    assert np.array_equal(one.pixels, pixels[0])


def test_a_plan_checks_the_embedding_and_draws_it(tmp_path):
    from negbench.evaluate import evaluate

    path = write(tmp_path / "bad.safetensors", emb_params=drawn(2, 96) / 10)
    common = {
        "methods": ["embedding"], "limit": 2, "replicates": 1, "out": tmp_path / "runs",
        "cache": tmp_path / "cache", "metrics": ["clip_to_negative"],
        "generator_params": {"steps": 4}, "options": RunOptions(device="cpu"),
    }  # fmt: skip
    wide = write(tmp_path / "wide.safetensors", emb_params=drawn(2, 768))
    with pytest.raises(ConfigError, match=r"768 wide, and text_encoder of generator .* takes 96"):
        make_plan(method_params={"file": str(wide)}, **common)
    resolved = make_plan(method_params={"file": str(path), "text": "{}, blurry"}, **common)
    plan = resolved.jobs[0].plan
    own = {k: v for k, v in plan.method.params.items() if not k.startswith("sha256:")}
    moved = write(tmp_path / "moved.safetensors", __=drawn(2, 96) / 10)
    again = make_plan(method_params={**own, "file": str(moved)}, **common)
    assert again.jobs[0].plan == plan
    [record] = evaluate(resolved)
    found = read_embedding(path)
    samples = record.samples()
    assert len(samples) == 2
    for sample in samples:
        assert sample.treatment.negatives[0].embedding == found.digest
        score = sample.treated.scores["clip_to_negative"]
        assert score.value is None
        assert "learned embedding" in score.unscored
    assert any(found.place in note for note in record.notes)
