"""Judges: verdicts, the miniature's judge, and the metric that asks one."""

from __future__ import annotations

import numpy as np
import pytest

from negbench.errors import PluginError, UnknownNameError
from negbench.judges import Judge, Question, Verdict, build_judge, judges
from negbench.judges.ask import ask
from negbench.metrics import metrics
from negbench.metrics.base import Item
from negbench.params import build_config
from negbench.store import FeatureStore, pixel_digest
from negbench.types import Case


def picture(seed: int, side: int = 64):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def question(pixels, concept: str) -> Question:
    return Question(image=pixel_digest(pixels), pixels=pixels, concept=concept)


def test_a_verdict_is_a_probability_or_a_reason():
    assert Verdict.of(0.5).present is False
    assert Verdict.of(0.51).present is True
    assert Verdict.of(float("nan")).unscored == "the judge's probability is not finite: nan"
    assert Verdict.missing("no").present is None
    with pytest.raises(ValueError):
        Verdict()
    with pytest.raises(ValueError):
        Verdict(probability=0.5, unscored="why")
    with pytest.raises(ValueError):
        Verdict(probability=1.5)
    with pytest.raises(ValueError):
        Verdict(probability=1.0, boxes=((0.5, 0, 0.25, 1),))


def test_a_box_covers_every_pixel_it_touches():
    verdict = Verdict.of(1, boxes=[(0.25, 0.5, 0.6, 1), (0, 0, 0.1, 0.1)])
    assert verdict.box == (0, 0, 0.6, 1)
    region = verdict.region(4, 8)
    assert region is not None
    assert region.sum() == 2 * 3 + 1
    assert region[2:, 2:5].all()
    assert Verdict.of(1).region(4, 8) is None
    mask = np.eye(4, dtype=bool)
    assert Verdict.of(1, mask=mask).region(4, 4) is mask
    assert Verdict.of(1, mask=mask).region(8, 8) is None


def test_the_miniature_judge_reads_phrases_and_refuses_what_it_does_not_know():
    judge = build_judge("miniature")
    vocabulary = judge.vocabulary()
    assert vocabulary is not None
    assert {"glasses", "red nose", "rusty", "blurry"} <= set(vocabulary)
    image = picture(0)
    phrases = [
        "glasses",
        "Spectacles",
        "the glasses",
        "a balloon",
        "balloons",
        "unicorn",
        "",
        "red",
    ]
    found = ask(judge, [question(image, phrase) for phrase in phrases])
    assert found[0].probability == found[1].probability == found[2].probability
    assert found[3].probability == found[4].probability
    assert [v.probability is None for v in found[5:]] == [True] * 3
    assert found[5].unscored == "the miniature's judge does not know 'unicorn'"


def test_its_probability_is_the_logistic_of_the_classifiers_logit():
    import torch

    from negbench import miniature
    from negbench.miniature.nets import load_classifier

    judge = build_judge("miniature")
    images = [picture(seed) for seed in range(3)]
    net = load_classifier(miniature.judge_dir())
    stack = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        logits = net(stack).double()
    wanted = torch.sigmoid(logits).numpy()
    for label in ("hat", "oversaturated"):
        found = [v.probability for v in ask(judge, [question(i, label) for i in images])]
        np.testing.assert_allclose(found, wanted[:, net.labels.index(label)], atol=1e-5)
    listed = judge.list_concepts(images)
    assert [set(x) for x in listed] == [
        {label for label, p in zip(net.labels, row, strict=True) if p > 0.5} for row in wanted
    ]


def test_features_are_kept_in_the_cache(tmp_path, monkeypatch):
    judge = build_judge("miniature")
    asked = [question(picture(seed), "hat") for seed in range(2)]
    first = ask(judge, asked, cache=tmp_path)
    (network,) = judge.networks().values()
    assert not FeatureStore(tmp_path, network.ref()).missing(q.image for q in asked)
    monkeypatch.setattr(type(network), "embed_images", lambda *_: pytest.fail("computed again"))
    again = ask(build_judge("miniature"), asked, cache=tmp_path)
    assert [v.probability for v in again] == [v.probability for v in first]


def test_names_and_identity():
    with pytest.raises(UnknownNameError, match="did you mean miniature"):
        build_judge("minature")
    with pytest.raises(UnknownNameError, match="judge miniature has no parameter 'x'"):
        build_judge("miniature", {"x": 1})
    ref = build_judge("miniature").ref()
    (network,) = build_judge("miniature").networks().values()
    assert ref.name == "miniature"
    assert ref.params["weights"] == [network.ref().digest()]


def test_a_judge_that_breaks_its_contract_is_named():
    @judges.register("hasty")
    class Hasty(Judge):
        def judge(self, questions):
            return [Verdict.of(1.0)]

    @judges.register("torn")
    class Torn(Judge):
        def judge(self, questions):
            raise RuntimeError("no\neyes")

    both = [question(picture(0), "hat")] * 2
    with pytest.raises(PluginError, match="hasty gave 1 verdicts on 2 questions"):
        ask(build_judge("hasty"), both)
    with pytest.raises(PluginError, match="judge torn failed: RuntimeError: no eyes"):
        ask(build_judge("torn"), both)


def item(pixels, concept: str | None) -> Item:
    features = {
        spec: network.embed_images([pixels])[0]
        for spec, network in build_judge("miniature").networks().items()
    }
    case = Case(id="a", prompt="a professor", concept=concept)
    return Item(pixel_digest(pixels), pixels, case, "", None, 10, features=features)


def test_presence_is_the_judges_probability_of_the_cases_concept():
    cls = metrics.get("presence")
    metric = cls(build_config(cls.Config, {}, owner="metric presence"))
    metric.check()
    images = [picture(1), picture(2), picture(1)]
    scores = metric.score(
        [item(images[0], "beard"), item(images[1], None), item(images[2], "unicorn")]
    )
    (wanted,) = ask(build_judge("miniature"), [question(images[0], "beard")])
    assert scores[0].value == wanted.probability
    assert scores[1].unscored == "the case names no concept"
    assert "unicorn" in str(scores[2].unscored)
    assert list(metric.networks()) == ["judge:miniature"]


def test_presence_is_known_by_its_judge():
    @judges.register("other")
    class Other(Judge):
        def judge(self, questions):
            return [Verdict.of(0.25) for _ in questions]

    cls = metrics.get("presence")
    one = cls(build_config(cls.Config, {}, owner="m"))
    two = cls(build_config(cls.Config, {"judge": "other"}, owner="m"))
    assert one.ref("presence").digest() != two.ref("presence").digest()
    assert two.score([item(picture(0), "hat")])[0].value == 0.25
    with pytest.raises(UnknownNameError):
        cls(build_config(cls.Config, {"judge": "nobody"}, owner="m")).check()
