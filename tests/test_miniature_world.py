"""The miniature: its world, captions, users and shipped weights."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from negbench import miniature
from negbench.miniature.captions import (
    SYNONYMS,
    caption,
    concepts_in,
    facts,
    with_articles,
    word_list,
)
from negbench.miniature.draw import draw
from negbench.miniature.users import (
    NEAR_DUPLICATE,
    POPULAR_LISTS,
    SPLITS,
    build_db,
    prompt_words,
    true_effect,
    write_pair,
)
from negbench.miniature.world import (
    DEFECTS,
    PARTS,
    PARTS_BY_SUBJECT,
    SUBJECTS,
    Scene,
    aesthetic_truth,
    defect_odds,
    removal_pairs,
    sample_parts,
    scene,
)

needs_weights = pytest.mark.skipif(
    not miniature.pipeline_dir().is_dir(), reason="the weights are not in this checkout"
)


def test_the_world_is_as_large_as_promised() -> None:
    assert len(SUBJECTS) >= 12
    assert len(PARTS) >= 12
    assert len(DEFECTS) >= 8
    assert len(removal_pairs()) >= 60
    # Every part belongs to several subjects: a lone part word is no synonym of a subject.
    owners = Counter(part for _, part, _ in removal_pairs())
    assert set(owners) == set(PARTS)
    assert min(owners.values()) >= 3


def test_equal_scenes_give_equal_pixels() -> None:
    for index in range(30):
        one, two = draw(scene(index, seed=3)), draw(scene(index, seed=3))
        assert one.image.tobytes() == two.image.tobytes()
        assert one.visible == two.visible
        assert one.image.size == (64, 64)
    assert draw(scene(0, seed=3)).image.tobytes() != draw(scene(0, seed=4)).image.tobytes()


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_part_can_be_seen(subject: str) -> None:
    bare = np.asarray(draw(Scene(subject, "blue", "day", "flat", seed=5)).image, dtype=int)
    for part in PARTS_BY_SUBJECT[subject]:
        drawn = draw(Scene(subject, "blue", "day", "flat", (part,), seed=5))
        changed = np.abs(np.asarray(drawn.image, dtype=int) - bare).max(axis=2) > 40
        assert drawn.visible == (part,)
        assert changed.sum() >= 20, part


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_defect_changes_the_picture(defect: str) -> None:
    worlds = [scene(i, seed=8) for i in range(12)]
    change = [
        np.abs(
            np.asarray(draw(_with(s, ())).image, dtype=int)
            - np.asarray(draw(_with(s, ((defect, 0.8),))).image, dtype=int)
        ).mean()
        for s in worlds
    ]
    assert np.median(change) > 4


def _with(one: Scene, defects: tuple[tuple[str, float], ...]) -> Scene:
    return Scene(one.subject, one.color, one.background, one.style, one.parts, defects, one.seed)


def test_a_part_outside_the_frame_is_not_called_visible() -> None:
    lost = 0
    for seed in range(40):
        drawn = draw(Scene("house", "red", "day", "flat", ("tree",), (("cropped", 1.0),), seed))
        lost += "tree" not in drawn.visible
    assert 5 < lost < 40


def test_parts_keep_their_odds() -> None:
    count = 1500
    rng = np.random.default_rng(0)
    for subject in ("professor", "girl", "cup"):
        seen = Counter(p for _ in range(count) for p in sample_parts(rng, subject=subject))
        for part, odds in PARTS_BY_SUBJECT[subject].items():
            assert abs(seen[part] / count - odds) < 4.5 * (odds * (1 - odds) / count) ** 0.5
        assert set(seen) == set(PARTS_BY_SUBJECT[subject])


def test_defect_odds_depend_on_the_scene() -> None:
    for subject in SUBJECTS:
        assert sum(defect_odds(subject, "night").values()) == pytest.approx(1.0)
    assert defect_odds("house", "day")["tilted"] > 2 * defect_odds("house", "night")["blurry"]
    assert defect_odds("cat", "night")["noisy"] > defect_odds("cat", "day")["noisy"]


def test_aesthetic_truth_falls_with_every_defect() -> None:
    assert aesthetic_truth({}) == 9.0
    for defect in DEFECTS:
        assert 1 < aesthetic_truth({defect: 1.0}) < aesthetic_truth({defect: 0.5}) < 9
    assert aesthetic_truth(dict.fromkeys(DEFECTS, 1.0)) > 1


def test_captions_have_1_to_30_words_and_state_facts_only() -> None:
    rng = np.random.default_rng(1)
    lone = 0
    for index in range(800):
        one = scene(index)
        visible = one.parts
        text = caption(one, visible, rng=rng, strange=0.0)
        assert 1 <= len(text.split()) <= 30
        assert set(concepts_in(text)) <= {*facts(one, visible), "flat", "sketch", "painting"}
        lone += len(text.split()) == 1
    assert 100 < lone < 400


def test_every_phrase_is_found_again() -> None:
    for concept, phrases in SYNONYMS.items():
        for phrase in phrases:
            assert concepts_in(f"zebra {phrase}, zebra") == [concept]
    assert with_articles("a apple and a dog") == "an apple and a dog"


def test_users_forbid_what_they_want_at_a_price() -> None:
    truth = {"subject": "cat", "background": "night", "wants": ["cat", "sketch"], "dislikes": []}
    assert true_effect("sketch, dark", **truth) < true_effect("dark", **truth)  # type: ignore[arg-type]
    assert true_effect("", **truth) == 0  # type: ignore[arg-type]
    long, short = POPULAR_LISTS[-1], "noisy, dark, blurry"
    assert true_effect(long, **truth) < true_effect(short, **truth)  # type: ignore[arg-type]
    pairs = [write_pair(i) for i in range(400)]
    effect = {
        k: np.mean([p.effect for p in pairs if p.kind == k])
        for k in ("chooser", "copyist", "muddler")
    }
    assert effect["chooser"] > effect["copyist"] > effect["muddler"]
    assert all(1 <= len(p.prompt.split()) <= 30 for p in pairs)


def test_no_near_duplicate_prompts_across_splits() -> None:
    import polars as pl

    frames = {s: pl.read_parquet(miniature.db_dir() / f"{s}.parquet") for s in SPLITS}
    assert sum(len(f) for f in frames.values()) > 4_000
    assert len(frames["test"]) > 300
    assert len(frames["validation"]) > 300
    ids = [i for f in frames.values() for i in f["id"]]
    assert len(set(ids)) == len(ids)
    sets = {
        s: sorted({prompt_words(p) for p in f["prompt"]}, key=sorted) for s, f in frames.items()
    }
    words = {
        w: i for i, w in enumerate(sorted({w for one in sets.values() for m in one for w in m}))
    }

    def matrix(members: list[frozenset[str]]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        result = np.zeros((len(members), len(words)), np.float32)
        for row, one in enumerate(members):
            result[row, [words[w] for w in one]] = 1
        return result

    tables = {s: matrix(m) for s, m in sets.items()}
    for one, two in (("train", "test"), ("train", "validation"), ("validation", "test")):
        a, b = tables[one], tables[two]
        both = a @ b.T
        index = both / (a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :] - both)
        assert index.max() < NEAR_DUPLICATE


def test_the_shipped_db_is_what_its_users_write() -> None:
    import polars as pl

    built = build_db()
    for split in SPLITS:
        shipped = pl.read_parquet(miniature.db_dir() / f"{split}.parquet")
        assert shipped["id"].to_list() == [p.id for p in built[split]]
        assert shipped["negative"].to_list() == [p.negative for p in built[split]]
        assert shipped["likes"].to_list() == [p.likes for p in built[split]]


def test_tokenizer_round_trip(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from negbench.miniature.data import encode
    from negbench.miniature.text import build_tokenizer, vocabulary

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    vocab = vocabulary()
    assert vocab["[EOS]"] == max(vocab.values())
    text = "a rusty car with tree, blurry, zebra"
    ids = tokenizer(text).input_ids
    assert ids == again(text).input_ids == encode(text, vocab)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a rusty car with tree blurry"
    assert tokenizer("Rusty-CAR!").input_ids == tokenizer("rusty car").input_ids
    for word in word_list():
        assert len(tokenizer(word).input_ids) == 3


def test_weights_stay_small_and_name_no_folder() -> None:
    folder = miniature.weights_dir()
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 25_000_000
    assert not [f for f in folder.rglob("*") if f.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    for file in [*folder.rglob("*.json"), *folder.rglob("*.md")]:
        assert not re.search(r'"(/|~|[A-Z]:)[\w/]{3}', file.read_text(encoding="utf-8")), file


@needs_weights
def test_plain_diffusers_loads_the_pipeline() -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        miniature.pipeline_dir(), torch_dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline(
        "a dog", negative_prompt="hat", num_inference_steps=2, guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]  # fmt: skip
    assert image.size == (64, 64)
    assert pipeline.tokenizer.model_max_length == 48


@needs_weights
def test_open_clip_loads_the_clip_from_any_folder(tmp_path: Path) -> None:
    import open_clip
    import torch

    moved = tmp_path / "elsewhere"
    shutil.copytree(miniature.clip_dir(), moved)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{moved}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{moved}")
    image = preprocess(draw(scene(0)).image)[None]
    assert image.shape == (1, 3, 64, 64)
    with torch.no_grad():
        seen = model.eval().encode_image(image, normalize=True)
        read = model.encode_text(tokenizer(["a dog", "a cat"]), normalize=True)
    assert (seen @ read.T).shape == (1, 2)


@needs_weights
def test_t5_writes_known_words() -> None:
    import torch
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    folder = miniature.negopt_dir()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) < 2_000
    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = tokenizer(["a house at night"], return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(inputs.input_ids, max_new_tokens=40, do_sample=False)
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert concepts_in(text)
    assert " ," not in text


@needs_weights
@pytest.mark.parametrize("part", ["judge", "inception"])
def test_classifiers_know_a_plain_picture(part: str) -> None:
    import torch

    from negbench.miniature.nets import load_classifier

    net = load_classifier(miniature.weights_dir() / part)
    right = 0
    for subject in SUBJECTS:
        image = np.array(draw(Scene(subject, "blue", "day", "flat", seed=9)).image)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            logits = net(x)[0]
        columns = [net.labels.index(s) for s in SUBJECTS]
        right += int(logits[columns].argmax()) == SUBJECTS.index(subject)
    assert right >= len(SUBJECTS) - 1
    assert json.loads((miniature.weights_dir() / part / "config.json").read_text())["labels"]
