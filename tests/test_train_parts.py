"""The parts of training against independent computations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from negbench.errors import ConfigError, DataError, MissingError
from negbench.metrics.base import Item
from negbench.reward.fidelity import Fidelity, divergence
from negbench.train.figures import tag_figures
from negbench.train.gradient import STD_FLOOR, advantages, guard, policy_loss
from negbench.train.pairs import read_pairs
from negbench.train.schedule import learning_rate, visit, weighted
from negbench.types import Case


def test_advantages_by_hand():
    found = advantages([1.0, 3.0, 5.0, 5.0, 0.0, 0.01], [0, 0, 1, 1, 2, 2])
    assert found[:2] == pytest.approx([-1.0, 1.0])
    assert found[2:4].tolist() == [0.0, 0.0]
    assert found[4:] == pytest.approx([-0.005 / STD_FLOOR, 0.005 / STD_FLOOR])


def test_advantages_of_rewards_equal_but_for_rounding_are_bounded():
    found = advantages([0.1 + 0.2, 0.3, 0.3, 0.3], [0, 0, 0, 0])
    assert np.abs(found).max() < 1e-12


def test_policy_loss_against_a_plain_loop():
    rng = np.random.default_rng(0)
    n, length, words = 3, 4, 5
    logits = rng.normal(size=(n, length, words))
    start = rng.normal(size=(n, length, words))
    tokens = rng.integers(0, words, (n, length))
    tokens[1, 2:] = -100
    old = rng.normal(-1.5, 0.3, size=(n, length))
    gain = np.array([1.0, -0.5, 0.25])
    clip, kl, total = 0.2, 0.3, 10.0

    def softmax(x):
        return np.exp(x) / np.exp(x).sum()

    loss = apart = 0.0
    for i in range(n):
        for t in range(length):
            if tokens[i, t] < 0:
                continue
            p, q = softmax(logits[i, t]), softmax(start[i, t])
            ratio = p[tokens[i, t]] / math.exp(old[i, t])
            bounded = min(max(ratio, 1 - clip), 1 + clip)
            loss -= min(ratio * gain[i], bounded * gain[i]) / total
            apart += float((p * np.log(p / q)).sum()) / total
    found, found_kl = policy_loss(
        torch.log_softmax(torch.tensor(logits), -1), torch.tensor(old),
        torch.log_softmax(torch.tensor(start), -1), tokens=torch.tensor(tokens),
        advantage=torch.tensor(gain), clip=clip, kl=kl, total=total,
    )  # fmt: skip
    assert float(found_kl) == pytest.approx(apart)
    assert float(found) == pytest.approx(loss + kl * apart)


def test_the_gradient_raises_what_was_better_and_stops_beyond_the_clip():
    logits = torch.zeros(2, 1, 3, requires_grad=True)
    tokens = torch.tensor([[0], [1]])

    def gradient(shift):
        chances = torch.log_softmax(logits, -1)
        old = chances.detach().gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - shift
        loss, _ = policy_loss(
            chances, old, chances.detach(), tokens=tokens, advantage=torch.tensor([1.0, -1.0]),
            clip=0.2, kl=0.0, total=2.0,
        )  # fmt: skip
        (found,) = torch.autograd.grad(loss, logits)
        return found

    near = gradient(0.0)
    assert near[0, 0, 0] < 0 < near[1, 0, 1]
    far = gradient(1.0)  # the ratio is e: the better one has moved far enough already
    assert torch.equal(far[0], torch.zeros(1, 3))
    assert far[1].abs().sum() > 0


def test_guard_costs_length_repetition_and_no_end():
    assert guard("dark, blurry", ended=True, max_tags=2) == 0
    assert guard("", ended=True, max_tags=2) == 0
    assert guard("dark, blurry, ugly", ended=True, max_tags=2) == pytest.approx(0.05)
    assert guard("dark, Dark , dark", ended=True, max_tags=9) == pytest.approx(2 / 3)
    assert guard("dark dark dark", ended=True, max_tags=9) == pytest.approx(2 / 3)
    assert guard("dark", ended=False, max_tags=9) == pytest.approx(0.5)


def test_every_row_is_visited_once_an_epoch():
    rows = np.concatenate([visit(step, size=7, count=20, seed=3) for step in range(20)])
    for epoch in range(7):
        assert sorted(rows[20 * epoch : 20 * (epoch + 1)]) == list(range(20))
    assert rows[:20].tolist() != rows[20:40].tolist()
    assert visit(5, size=7, count=20, seed=3).tolist() == rows[35:42].tolist()


def test_weighted_rows_come_by_their_chances():
    chances = np.array([0.5, 0.0, 0.3, 0.2])
    rows = weighted(0, size=20_000, cumulative=chances.cumsum(), seed=0)
    shares = np.bincount(rows, minlength=4) / len(rows)
    assert shares == pytest.approx(chances, abs=0.015)
    assert not (rows == 1).any()
    assert not np.array_equal(rows, weighted(1, size=20_000, cumulative=chances.cumsum(), seed=0))


def test_learning_rate_rises_and_falls():
    rates = [learning_rate(i, steps=100, peak=1.0, warmup=0.1) for i in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert 0.01 <= rates[-1] < 0.02


def test_tag_figures_by_hand():
    found = tag_figures(["dark, blurry", "ugly", ""], ["(Blurry:1.2), dark", "ugly, rusty", "fog"])
    assert found["precision"] == pytest.approx(3 / 3)
    assert found["recall"] == pytest.approx(3 / 5)
    assert found["f1"] == pytest.approx(2 * 0.6 / 1.6)
    assert found["exact"] == pytest.approx(1 / 3)
    assert tag_figures(["a"], ["b"])["f1"] == 0.0


def test_fidelity_is_the_summand_of_the_inception_score():
    from negbench.metrics.inception import InceptionScore

    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.full(6, 0.3), size=50).astype(np.float32)
    mine = divergence(rows, rows.astype(np.float64).mean(axis=0))
    assert math.exp(mine.mean()) == pytest.approx(InceptionScore().value(rows), rel=1e-5)


def test_divergence_against_scipy():
    from scipy.stats import entropy

    rng = np.random.default_rng(1)
    rows, marginal = rng.dirichlet(np.ones(5), size=8), rng.dirichlet(np.ones(5))
    assert divergence(rows, marginal) == pytest.approx(entropy(rows, marginal, axis=1))
    assert divergence(np.array([[0.0, 1.0]]), np.array([0.25, 0.75])) == pytest.approx(
        [math.log(4 / 3)]
    )


def test_certainty_about_a_rare_class_pays_no_more_than_the_bound():
    """Garbage that the classifier takes for a rare class earns what an ordinary picture earns."""
    marginal = (0.6, 0.39, 0.01)
    logits = np.array([[20.0, 0, 0], [0, 20.0, 0], [0, 0, 20.0], [0.0, 0, 0]], np.float32)
    free = Fidelity(Fidelity.Config(marginal=marginal))
    bounded = Fidelity(Fidelity.Config(marginal=marginal, bound=0.8))

    def scores(metric):
        items = [
            Item(image=str(i), pixels=np.zeros((1, 1, 3), np.uint8), case=Case(id="a", prompt="a"),
                 negative="", twin=None, evaluations=1, features={metric.spec: row})
            for i, row in enumerate(logits)
        ]  # fmt: skip
        return [score.value for score in metric.score(items)]

    assert scores(free)[2] == pytest.approx(math.log(100), rel=1e-3)
    assert scores(free)[2] > 4 * scores(free)[1]
    assert scores(bounded) == pytest.approx(np.minimum(scores(free), 0.8))


def test_pairs_are_weighted_capped_and_digested():
    plain = read_pairs("miniature", split="train")
    assert plain.weights is None
    assert len(plain) > 4000
    liked = read_pairs("miniature", split="train", likes="capped")
    assert liked.weights.sum() == pytest.approx(1.0)
    assert liked.weights.max() == pytest.approx(40 * liked.weights.min())
    assert len(liked) < len(plain)
    capped = read_pairs("miniature", split="train", universal_cap=5)
    counts = {}
    for negative in capped.negatives:
        counts[negative.lower()] = counts.get(negative.lower(), 0) + 1
    assert max(counts.values()) == 5
    assert set(capped.negatives) == set(plain.negatives)
    digests = {plain.digest, liked.digest, capped.digest}
    assert len(digests) == 3
    assert read_pairs("miniature", split="train").digest == plain.digest


def test_pairs_refuse_what_cannot_be_learnt_from(tmp_path, monkeypatch):
    import polars as pl

    from negbench.train import pairs

    with pytest.raises(MissingError, match=r"--db .*nowhere"):
        read_pairs(str(tmp_path / "nowhere"), split="train")
    with pytest.raises(ConfigError, match="no column 'prompt_raw', which --text raw needs"):
        read_pairs("miniature", split="train", text="raw")
    few = pl.DataFrame({"id": ["a"], "prompt": ["a cat"], "negative": ["dark"], "likes": [0]})
    monkeypatch.setattr(pairs, "load_db", lambda *_, **__: few)
    with pytest.raises(DataError, match=r"train has 1 pairs .* at least 32"):
        read_pairs("x", split="train")
    with pytest.raises(ConfigError, match="no pair has a like"):
        read_pairs("x", split="train", likes="log")


def test_a_card_names_no_folder_of_the_machine_that_wrote_it():
    from negbench.train.card import portable

    settings = {"db": "~/data", "base": "t5-small"}
    told = portable({"init": "/home/a/runs/sft/checkpoint", "settings": settings})
    assert told == {"init": "./sft/checkpoint", "settings": {**settings, "db": "./data"}}
