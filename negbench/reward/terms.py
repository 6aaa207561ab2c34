"""The reward of NegOpt: a weighted sum of gains over the twin, each term in a frozen scale.

    R(negative | prompt) = mean over noises of  sum_t  w_t d_t ( m_t(image) - m_t(twin) ) / s_t

with weights w_t (the paper's alpha, beta, gamma), d_t = +1 where more of metric m_t is better and
-1 where less is, and s_t the standard deviation of the gains that the fine-tuned model's samples
made, measured once. That the reward is a weighted sum of aesthetics, alignment and fidelity is the
paper's (2403.07605); gains over the twin, the scales and everything else is negbench's choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, JsonValue, model_validator

from negbench.errors import ConfigError, MissingError, did_you_mean
from negbench.files import read_json
from negbench.metrics import metrics as registry
from negbench.metrics.base import ImageMetric
from negbench.params import build_config
from negbench.record import Sample
from negbench.reward.fidelity import Fidelity
from negbench.reward.trials import Trial, Trials
from negbench.types import Spec

if TYPE_CHECKING:
    from pathlib import Path

    from negbench.protocols.benchmark import Benchmark

FIDELITY = "fidelity"
DEFAULT_WEIGHTS: Mapping[str, float] = {"aesthetic": 1.0, "clip_alignment": 1.0, FIDELITY: 1.0}
FLOOR = 1e-6
"""A term whose gains deviate less than this says nothing."""


class Term(Spec):
    """One term: a metric with its parameters, its weight, and its frozen scale."""

    name: str
    weight: float
    params: dict[str, JsonValue] = Field(default_factory=dict)
    sign: float = 1.0
    scale: float = Field(default=1.0, gt=0)


class Reward(Spec):
    """A frozen reward: equal rewards give equal numbers wherever they are used."""

    terms: tuple[Term, ...]
    n_prompts: int = 0

    @model_validator(mode="after")
    def _some(self) -> Reward:
        if not any(term.weight for term in self.terms):
            raise ValueError("all weights are zero")
        return self

    def metrics(self) -> dict[str, ImageMetric]:
        """The terms' metrics, built."""
        return {term.name: _build(term.name, term.params) for term in self.terms}

    def gains(self, sample: Sample) -> dict[str, float]:
        """Signed gain of each term over the twin, in its scale; 0 where there is no number.

        A metric that compares with the twin has no score for the twin itself and counts as it is.
        """
        found = {}
        for term in self.terms:
            treated = sample.treated.scores[term.name].value
            twin = sample.twin.scores[term.name].value
            gain = 0.0 if treated is None else treated - (twin or 0.0)
            found[term.name] = term.sign * gain / term.scale
        return found

    def value(self, gains: Mapping[str, float]) -> float:
        """The weighted sum of gains."""
        return sum(term.weight * gains[term.name] for term in self.terms)

    def weighted(self, weights: Mapping[str, float]) -> Reward:
        """The same terms and scales with other weights."""
        terms = tuple(
            term.model_copy(update={"weight": float(weights.get(term.name, 0.0))})
            for term in self.terms
        )
        return Reward(terms=terms, n_prompts=self.n_prompts)


def uncalibrated(
    weights: Mapping[str, Any], *, benchmark: Benchmark, params: Mapping[str, Mapping[str, Any]]
) -> Reward:
    """Terms by name with the benchmark's metric settings, scales still 1.

    Args:
        weights: term -> weight; ``fidelity`` or the name of an image metric.
        benchmark: whose metric parameters are taken.
        params: metric -> parameters that differ.

    Raises:
        UnknownNameError: no such metric or parameter.
        ConfigError: a metric that is no number an image, or has no better direction.
        MissingError: a metric's weights are not at hand.
    """
    terms = []
    for name, weight in weights.items():
        try:
            number = float(weight)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"--reward {name}={weight}: the weight is not a number") from error
        if not math.isfinite(number):
            raise ConfigError(f"--reward {name}={weight}: the weight is not finite")
        chosen = dict(benchmark.metrics.get(name, {}))
        if name == FIDELITY:
            chosen = dict(benchmark.metrics.get("inception_score", {}))
        chosen.update(params.get(name, {}))
        metric = _build(name, chosen)
        if metric.higher_is_better is None:
            raise ConfigError(
                f"--reward {name}: this metric has no better direction; choose another"
            )
        metric.check()
        sign = 1.0 if metric.higher_is_better else -1.0
        terms.append(Term(name=name, weight=number, params=chosen, sign=sign))
    if not any(term.weight for term in terms):
        raise ConfigError("--reward: all weights are zero; give for example --reward aesthetic=1")
    return Reward(terms=tuple(terms))


def _build(name: str, params: Mapping[str, Any]) -> ImageMetric:
    if name == FIDELITY:
        config = build_config(Fidelity.Config, params, owner="metric fidelity")
        return Fidelity(config)
    if name not in registry:
        known = [FIDELITY, *registry.names()]
        raise ConfigError(f"--reward: unknown metric {name!r}; {did_you_mean(name, known)}")
    cls = registry.get(name)
    if not issubclass(cls, ImageMetric):
        hint = "take fidelity, its share of one image" if name == "inception_score" else "leave it"
        raise ConfigError(
            f"--reward {name}: this metric is a number for a set of images, not for one; {hint}"
        )
    return cls(build_config(cls.Config, params, owner=f"metric {name}"))


def calibrate(
    reward: Reward, trials: Trials, tried: Sequence[Trial], *, quantile: float, **draw: Any
) -> Reward:
    """Measure p(y), the bound of fidelity, and each term's scale, and freeze them.

    Args:
        reward: terms with scales 1; fidelity without p(y).
        trials: draws with the metrics of `reward`.
        tried: one treatment or more for each of many training prompts.
        quantile: fidelity ends at this quantile of the twins', in (0, 1].
        draw: passed on to `Trials.make`.

    Raises:
        ConfigError: a term is the same for all of them, so that it cannot teach anything.
    """
    samples = trials.make(tried, **draw)
    terms = []
    for term in reward.terms:
        params = dict(term.params)
        if term.name == FIDELITY:
            params.update(_fidelity(trials, samples, term.params, quantile=quantile))
        fresh = term.model_copy(update={"params": params})
        terms.append(fresh)
    frozen = Reward(terms=tuple(terms), n_prompts=len({t.case.prompt for t in tried}))
    again = trials
    if frozen.metrics().keys() and any(t.name == FIDELITY for t in frozen.terms):
        again = Trials(
            generator=trials.generator, metrics=frozen.metrics(), guidance=trials.guidance,
            title=trials.title, cache=trials.scoring.resolved.cache,
            options=trials.scoring.resolved.options,
        )  # fmt: skip
        samples = again.make(tried)
    scaled = []
    for term in frozen.terms:
        gains = np.array([frozen.gains(sample)[term.name] for sample in samples])
        if all(sample.treated.scores[term.name].value is None for sample in samples):
            reason = samples[0].treated.scores[term.name].unscored
            raise ConfigError(f"--reward {term.name}: no image has a score ({reason}); leave it")
        spread = float(gains.std())
        if not spread > FLOOR:
            raise ConfigError(
                f"--reward {term.name}: all {len(samples)} images gain the same over their twins, "
                "so it teaches nothing; leave it out, or take a generator and a --scale at which "
                "negative prompts act"
            )
        scaled.append(term.model_copy(update={"scale": spread}))
    return Reward(terms=tuple(scaled), n_prompts=frozen.n_prompts)


def _fidelity(
    trials: Trials, samples: Sequence[Sample], params: Mapping[str, Any], *, quantile: float
) -> dict[str, Any]:
    """p(y) over twins and treated images, and the bound from the twins."""
    from negbench.metrics.inception import probabilities
    from negbench.reward.fidelity import divergence

    network = str(params.get("network", "miniature"))
    spec = f"inception:{network}"

    def rows(images: Sequence[str]) -> Any:
        distinct = list(dict.fromkeys(images))
        return probabilities(
            np.stack([trials.features(FIDELITY, spec, image) for image in distinct])
        )

    twins = rows([sample.twin.image for sample in samples])
    both = rows([i for s in samples for i in (s.twin.image, s.treated.image)])
    marginal = both.astype(np.float64).mean(axis=0)
    marginal = (marginal + 1e-6) / (marginal + 1e-6).sum()
    bound = float(np.quantile(divergence(twins, marginal), quantile))
    return {"marginal": [float(v) for v in marginal], "bound": max(bound, 1e-3)}


def read_reward(path: Path) -> Reward:
    """The frozen reward in a checkpoint's folder or in its `negbench.json`.

    Raises:
        MissingError: there is none.
    """
    file = path / "negbench.json" if path.is_dir() else path
    found = read_json(file).get("reward") if file.is_file() else None
    if not found:
        raise MissingError(
            f"{path} holds no frozen reward; give a checkpoint that `negbench train negopt --stage "
            "rl` made"
        )
    return Reward.model_validate(found)
