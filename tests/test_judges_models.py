"""Judges that are models: a CLIP, detectors; and what is asked of their regions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tiny_clip import make_clip
from tiny_detectors import make_grounding_dino, make_owlv2

from negbench.errors import ConfigError, MissingError, RecordError
from negbench.judges import Judge, Question, Verdict, build_judge, judges
from negbench.judges.ask import ask
from negbench.judges.kept import KeptJudge, VerdictStore
from negbench.metrics.base import Item
from negbench.metrics.outside import SsimOutside, outside, ssim_map
from negbench.store import pixel_digest
from negbench.types import Case


def picture(seed: int, height: int = 48, width: int = 64):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def question(pixels, concept: str) -> Question:
    return Question(image=pixel_digest(pixels), pixels=pixels, concept=concept)


def test_clip_is_the_softmax_over_the_two_texts(tmp_path):
    import open_clip
    import torch
    from PIL import Image

    folder = make_clip(tmp_path / "clip")
    params = {"clip": f"local-dir:{folder}", "shift": 0.25}
    judge = build_judge("clip", params)
    pixels = picture(0)
    found = ask(judge, [question(pixels, "hat"), question(pixels, " ")], cache=tmp_path)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a photo with hat", "a photo"])
    with torch.no_grad():
        image = model.encode_image(transform(Image.fromarray(pixels))[None], normalize=True)
        texts = model.encode_text(tokens, normalize=True)
        logits = (model.logit_scale.exp() * image @ texts.T)[0].double()
        logits[0] -= 0.25
        wanted = float(logits.softmax(dim=0)[0])
    assert found[0].probability == pytest.approx(wanted, abs=1e-5)
    assert found[1].unscored == "the concept is empty"


def test_clip_texts_are_part_of_the_identity_and_concepts_are_only_text(tmp_path):
    folder = make_clip(tmp_path / "clip")
    spec = f"local-dir:{folder}"
    one = build_judge("clip", {"clip": spec})
    two = build_judge("clip", {"clip": spec, "absent": "a photo without {}"})
    moved = make_clip(tmp_path / "moved")
    three = build_judge("clip", {"clip": f"local-dir:{moved}"})
    assert one.ref().digest() != two.ref().digest()
    assert one.ref().digest() == three.ref().digest()
    assert [text for _, text in two.texts("{0.__class__} {}")] == [
        "a photo with {0.__class__} {}",
        "a photo without {0.__class__} {}",
    ]
    with pytest.raises(ConfigError, match="where the concept goes"):
        build_judge("clip", {"present": "a photo"})
    with pytest.raises(MissingError, match="negbench prefetch clip:ViT-L-14/openai"):
        build_judge("clip", {"clip": "ViT-L-14/openai"})


def test_the_miniatures_clip_as_a_judge_knows_a_drawn_subject():
    from negbench.miniature.draw import draw
    from negbench.miniature.world import Scene

    scenes = [
        Scene("boat", "white", "day", "flat", (), (), 3),
        Scene("cat", "black", "day", "flat"),
    ]
    images = [np.asarray(draw(scene).image) for scene in scenes]
    judge = build_judge("clip")
    assert judge.scale > 1
    found = ask(judge, [question(i, c) for i in images for c in ("boat", "cat")])
    boat, not_cat, not_boat, cat = (v.probability for v in found)
    assert boat > not_cat
    assert cat > not_boat


@pytest.mark.parametrize("make", [make_owlv2, make_grounding_dino])
def test_a_detectors_boxes_are_those_of_transformers(tmp_path, make):
    from PIL import Image

    folder = make(tmp_path / "model")
    judge = build_judge("detector", {"model": str(folder), "threshold": 0.3})
    pixels = picture(1)
    (verdict,) = ask(judge, [question(pixels, "the red hat")], cache=tmp_path)
    model, processor = judge.parts
    grounded = make is make_grounding_dino
    text = "red hat." if grounded else [["a photo of a red hat"]]
    inputs = processor(images=[Image.fromarray(pixels)], text=text, return_tensors="pt")
    outputs = model(**inputs)
    extra = {"input_ids": inputs["input_ids"]} if grounded else {}
    (wanted,) = processor.post_process_grounded_object_detection(
        outputs, threshold=0.3, target_sizes=[pixels.shape[:2]], **extra
    )
    boxes = wanted["boxes"].detach().double().numpy() / np.array([64, 48, 64, 48])
    boxes = np.clip(boxes, 0, 1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    assert len(boxes) == len(verdict.boxes) > 0
    np.testing.assert_allclose(np.array(verdict.boxes), boxes, atol=1e-4)
    best = float(wanted["scores"].max())
    odds = best / (1 - best) / (0.3 / 0.7)
    assert verdict.probability == pytest.approx(odds / (1 + odds), abs=1e-4)
    assert verdict.present == (best > 0.3)


def test_a_detectors_threshold_is_where_the_probability_is_one_half(tmp_path):
    folder = make_owlv2(tmp_path / "model")
    pixels = picture(1)
    scores, _ = build_judge("detector", {"model": str(folder)}).detect(pixels, "hat")
    at = build_judge("detector", {"model": str(folder), "threshold": float(scores.max())})
    (verdict,) = ask(at, [question(pixels, "hat")], cache=tmp_path)
    assert verdict.probability == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("make", [make_owlv2, make_grounding_dino])
def test_a_text_that_the_detector_cannot_read_whole_is_unscored(tmp_path, make):
    judge = build_judge("detector", {"model": str(make(tmp_path / "model"))})
    found = ask(
        judge, [question(picture(0), "hat " * 60), question(picture(0), "")], cache=tmp_path
    )
    assert [v.unscored for v in found] == [
        "the concept is too long for the detector",
        "the concept is empty",
    ]


def test_detectors_are_refused_while_planning(tmp_path):
    with pytest.raises(MissingError, match="negbench prefetch --judge detector -p model=a/b"):
        build_judge("detector", {"model": "a/b"})
    with pytest.raises(ConfigError, match="neither a folder nor a repo"):
        build_judge("detector", {"model": "a/b/c"})
    folder = make_owlv2(tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    before = build_judge("detector", {"model": str(folder)}).ref()
    weights.write_bytes(whole[:-10])
    with pytest.raises(Exception, match="torn"):
        build_judge("detector", {"model": str(folder)})
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(MissingError, match="safetensors only"):
        build_judge("detector", {"model": str(folder)})
    weights.write_bytes(whole[:-4] + b"\0\0\0\1")
    assert build_judge("detector", {"model": str(folder)}).ref() != before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ConfigError, match="is a bert; it has to be one of owlv2"):
        build_judge("detector", {"model": str(folder)})


class Counting(KeptJudge):
    """Answers by the concept's length; breaks on the word break."""

    asked: list[str]
    gives_region = True

    def answers(self, questions):
        for place, item in enumerate(questions):
            if item.concept == "break":
                raise MissingError("gone")
            type(self).asked.append(item.concept)
            if item.concept == "odd":
                yield place, Verdict.missing("refused"), {"spent": 3}
            else:
                box = (0.25, 0.25, 0.5, 0.5)
                yield place, Verdict.of(len(item.concept) / 10, boxes=[box]), {}


@pytest.fixture
def counting():
    Counting.asked = []
    judges.register("counting")(Counting)
    return build_judge("counting")


def test_kept_verdicts_are_asked_once_and_survive_a_break(counting, tmp_path):
    pixels = picture(0)
    words = ["hat", "odd", "hat", "break", "glasses"]
    with pytest.raises(MissingError):
        ask(counting, [question(pixels, word) for word in words], cache=tmp_path)
    assert Counting.asked == ["hat", "odd"]
    again = build_judge("counting")
    found = ask(again, [question(pixels, w) for w in words if w != "break"], cache=tmp_path)
    assert Counting.asked == ["hat", "odd", "glasses"]
    assert [v.probability for v in found] == [0.3, None, 0.3, 0.7]
    assert found[1].unscored == "refused"
    assert found[0].box == (0.25, 0.25, 0.5, 0.5)
    ask(again, [question(picture(1), "hat")], cache=tmp_path)
    assert len(Counting.asked) == 4


def test_a_damaged_verdict_is_an_error_with_its_place(counting, tmp_path):
    counting.prepare(cache=tmp_path)
    store = VerdictStore(tmp_path, counting.ref())
    pixels = picture(0)
    store.put(store.key("present", pixel_digest(pixels), "hat"), {"probability": 7.0})
    with pytest.raises(RecordError, match="damaged verdict"):
        ask(counting, [question(pixels, "hat")], cache=tmp_path)


def test_ssim_outside_reads_nothing_inside_and_is_ssim_without_a_region():
    twin = picture(0)
    image = twin.copy()
    image[10:20, 10:20] = 255 - image[10:20, 10:20]
    region = np.zeros((48, 64), dtype=bool)
    region[10:20, 10:20] = True
    assert outside(image, twin, region).value == pytest.approx(1.0, abs=1e-6)
    image[0, 60] = 255 - image[0, 60]
    assert outside(image, twin, region).value < 1 - 1e-4
    full = ssim_map(image, twin)
    assert outside(image, twin, ~np.ones_like(region)).value == pytest.approx(full.mean())
    kept = [
        full[y, x]
        for y in range(48)
        for x in range(64)
        if not (10 - 5 <= y < 20 + 5 and 10 - 5 <= x < 20 + 5)
    ]
    assert outside(image, twin, region).value == pytest.approx(np.mean(kept), abs=1e-6)
    assert "fills" in str(outside(image, twin, np.ones_like(region)).unscored)
    assert "where" in str(outside(image, twin, None).unscored)


def test_ssim_outside_asks_about_the_twin(counting, tmp_path):
    metric = SsimOutside(SsimOutside.Config(judge="counting"))
    metric.check()
    metric.prepare(device="cpu", cache=tmp_path)
    twin, image = picture(0), picture(0)
    image[14:22, 18:30] = 0

    def item(concept, other):
        case = Case(id="a", prompt="p", concept=concept)
        return Item(pixel_digest(image), image, case, "", other, 1)

    found = metric.score(
        [item("glasses", twin), item("hat", twin), item("odd", twin), item(None, twin),
         item("glasses", None)]
    )  # fmt: skip
    assert found[0].value == pytest.approx(1.0, abs=1e-6)
    assert [score.unscored for score in found[1:]] == [
        "the judge does not see the concept in the twin",
        "refused",
        "the case names no concept",
        "no twin to compare with",
    ]
    with pytest.raises(ConfigError, match="judge miniature does not say where"):
        SsimOutside().check()


def test_verdicts_cannot_be_infinite():
    assert Verdict.of(math.inf).unscored
    assert issubclass(Counting, Judge)
