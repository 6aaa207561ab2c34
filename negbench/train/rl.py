"""Stage two, reward: a fine-tuned model learns from the images that its negatives produce.

A step samples a group of negatives for each of some training prompts, draws each on the same
noises as its twin, weighs what is gained (`negbench.reward`), and follows the policy gradient
(`negbench.train.gradient`). Images and scores go through the store, so that a step that is done
again draws nothing again. The paper's algorithm and its settings could not be found; these are
negbench's own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from negbench.errors import ConfigError, MissingError
from negbench.files import read_json, write_json
from negbench.generators.base import RunOptions
from negbench.methods.texts import treatment
from negbench.progress import Progress, silent
from negbench.record import Sample
from negbench.reward.terms import DEFAULT_WEIGHTS, Reward, calibrate, uncalibrated
from negbench.reward.trials import Trial, Trials
from negbench.store import default_cache
from negbench.train.base_model import Base, load_base
from negbench.train.card import portable, rl_card
from negbench.train.folder import RunFolder, held, read_facts
from negbench.train.gradient import advantages, guard
from negbench.train.pairs import Pairs, read_pairs
from negbench.train.policy import ROWS, Policy
from negbench.train.schedule import learning_rate, seed_for, visit
from negbench.train.team import Precision, Team
from negbench.train.writing import Written
from negbench.types import Case, canonical_json, sha256_hex

SCHEMA = 1
TITLE = "negopt-training@1"
"""Of the noises: never a benchmark's."""
FLAT_STEPS = 10
"""After so many steps in which no reward differs from its neighbours, training gives up."""
_DEFAULT: dict[str, JsonValue] = {**DEFAULT_WEIGHTS}


class RlSettings(BaseModel):
    """Everything that decides what learning by reward gives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    db: str = "miniature"
    init: str = ""
    benchmark: str = "npdb-quality"
    generator: str | None = None
    generator_options: dict[str, JsonValue] = Field(default_factory=dict)
    scale: float | None = None
    reward: dict[str, JsonValue] = Field(default_factory=lambda: {**_DEFAULT})
    metric_params: dict[str, JsonValue] = Field(default_factory=dict)
    steps: int = Field(default=500, ge=1)
    prompts: int = Field(default=8, ge=1)
    group: int = Field(default=8, ge=2)
    noises: int = Field(default=2, ge=1)
    inner: int = Field(default=2, ge=1, le=100)
    lr: float = Field(default=3e-5, gt=0, le=1)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    kl: float = Field(default=0.05, ge=0)
    clip: float = Field(default=0.2, gt=0, lt=1)
    temperature: float = Field(default=1.0, ge=0.05, le=10)
    max_new_tokens: int = Field(default=96, ge=1, le=512)
    max_tags: int = Field(default=20, ge=1)
    calibration: int = Field(default=512, ge=8)
    fidelity_quantile: float = Field(default=0.9, gt=0, le=1)
    eval_every: int = Field(default=25, ge=1)
    held_out: int = Field(default=32, ge=0)
    sheet_every: int = Field(default=50, ge=1)
    precision: Precision = "no"
    weights: Literal["float32", "float16"] = "float32"
    seed: int = Field(default=0, ge=0, lt=2**31)


MINIATURE_RL: dict[str, Any] = {
    "init": "miniature", "benchmark": "miniature-quality", "steps": 60, "lr": 3e-4,
    "max_new_tokens": 64, "weights": "float16", "eval_every": 20, "sheet_every": 20,
}  # fmt: skip
"""Settings that suit the miniature. What pays at 12 denoising steps does not pay at 25, so that the
pictures of training take as many as those of the benchmark."""


def train_rl(
    settings: RlSettings,
    *,
    out: Path,
    device: str = "auto",
    restart: bool = False,
    tensorboard: bool = False,
    save_every: int = 5,
    cache: Path | None = None,
    draw_batch: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Improve a fine-tuned model by reward; go on where it stopped.

    Args:
        settings: what decides the result.
        out: folder of the run; ``<out>/checkpoint`` is the last good model.
        device: where to compute and draw.
        restart: begin anew; images and scores stay in the cache.
        tensorboard: write the log for TensorBoard as well.
        save_every: steps between saved states and checkpoints.
        cache: folder of images and scores; None for the default.
        draw_batch: images drawn together, for speed only.
        progress: shows a bar.

    Returns:
        Figures of the last steps.

    Raises:
        NegbenchError: a checkpoint, reward or data set that cannot be used, rewards that never
            differ, a loss that is not finite, a full disk.
    """
    from negbench.plan import resolve_generator
    from negbench.protocols import load_benchmark

    team = Team(device=device, precision=settings.precision)
    if not settings.init:
        raise MissingError(
            "--stage rl starts from a fine-tuned model: give --init, for example the checkpoint "
            "folder that --stage sft wrote"
        )
    bench = load_benchmark(settings.benchmark)
    reward = uncalibrated(
        settings.reward, benchmark=bench, params=_by_metric(settings.metric_params)
    )
    base = load_base(settings.init, seed=settings.seed, option="--init")
    if base.folder is not None and not (base.folder / "model.safetensors").is_file():
        raise MissingError(f"--init {settings.init} has no weights; fine-tune it first")
    training = read_pairs(settings.db, split="train")
    held_out = read_pairs(settings.db, split="validation")
    options = RunOptions(device=str(team.device), batch_size=draw_batch)
    generator = resolve_generator(bench, settings.generator, settings.generator_options, options)
    guidance = bench.guidance
    if settings.scale is not None:
        guidance = guidance.model_copy(update={"scale": float(settings.scale)})
    generator.check_guidance(guidance)
    asked = {
        **settings.model_dump(mode="json", exclude={"db", "init", "generator"}),
        "stage": "rl", "schema": SCHEMA, "init": base.digest, "data": training.digest,
        "terms": reward.model_dump(mode="json"), "processes": team.world,
        "drawn_with": generator.ref().digest(), "guidance": guidance.model_dump(mode="json"),
    }  # fmt: skip

    def trials(chosen: Reward) -> Trials:
        return Trials(
            generator=generator, metrics=chosen.metrics(), guidance=guidance, title=TITLE,
            cache=cache or default_cache(), options=options,
        )  # fmt: skip

    with held(out, leads=team.leads):
        folder = RunFolder(out, asked, restart=restart, leads=team.leads)
        team.wait()
        if tensorboard:
            folder.open_board()
        again = load_base(settings.init, seed=settings.seed, option="--init")
        policy = Policy(base, again, team=team, lr=settings.lr)
        frozen = _calibrated(
            reward, trials(reward), settings=settings, policy=policy, base=base, training=training,
            folder=folder, progress=progress,
        )  # fmt: skip
        run = _Rl(settings, policy, folder, base, training, held_out, frozen, trials(frozen))
        return run.go(save_every=save_every, progress=progress)


def _by_metric(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    split: dict[str, dict[str, Any]] = {}
    for key, value in params.items():
        metric, dot, rest = key.partition(".")
        if not dot:
            raise ConfigError(
                f"--metric-param {key}: write METRIC.KEY=VALUE, for example aesthetic.head=laion-v2"
            )
        split.setdefault(metric, {})[rest] = value
    return split


def _calibrated(
    reward: Reward, trials: Trials, *, settings: RlSettings, policy: Policy, base: Base,
    training: Pairs, folder: RunFolder, progress: Progress,
) -> Reward:  # fmt: skip
    """The reward with p(y) and scales measured on twins and samples of the fine-tuned model.

    The samples do not depend on the training seed, so that runs with other seeds share them.
    """
    path = folder.out / "calibration.json"
    identity = sha256_hex(
        canonical_json([
            reward.model_dump(mode="json"), base.digest, training.digest,
            trials.generator.ref().digest(), trials.guidance.model_dump(mode="json"),
            settings.calibration, settings.fidelity_quantile,
            settings.max_new_tokens, settings.temperature,
        ])
    )  # fmt: skip
    if path.is_file():
        kept = read_json(path)
        if kept.get("identity") == identity:
            return Reward.model_validate(kept["reward"])
    prompts = list(dict.fromkeys(training.prompts))
    count = min(settings.calibration, len(prompts))
    rows = np.random.default_rng([20_240_701]).permutation(len(prompts))[:count]
    chosen = [prompts[i] for i in rows]
    written: list[str] = []
    for at in range(0, count, ROWS):
        written += policy.pen.write(
            chosen[at : at + ROWS], max_new_tokens=settings.max_new_tokens,
            seed=seed_for("calibration", at), temperature=settings.temperature,
        ).texts  # fmt: skip
    tried = [_trial(prompt, text, 0) for prompt, text in zip(chosen, written, strict=True)]
    frozen = calibrate(
        reward, trials, tried, quantile=settings.fidelity_quantile, progress=progress
    )
    if policy.team.leads:
        write_json(path, {"identity": identity, "reward": frozen.model_dump(mode="json")})
    return frozen


class _Rl:
    def __init__(
        self, settings: RlSettings, policy: Policy, folder: RunFolder, base: Base,
        training: Pairs, held_out: Pairs, reward: Reward, trials: Trials,
    ) -> None:  # fmt: skip
        self.settings, self.policy, self.folder, self.base = settings, policy, folder, base
        self.team, self.pen = policy.team, policy.pen
        self.reward, self.trials = reward, trials
        self.data_digest = training.digest
        self.prompts = list(dict.fromkeys(training.prompts))
        human: dict[str, str] = {}
        for prompt, negative in zip(held_out.prompts, held_out.negatives, strict=True):
            human.setdefault(prompt, negative)
        order = np.random.default_rng([20_240_307]).permutation(len(human))
        listed = list(human.items())
        self.held_out = [listed[i] for i in order[: max(settings.held_out, 6)]]
        self.step = self.flat = 0

    def go(self, *, save_every: int, progress: Progress) -> dict[str, Any]:
        state = self.folder.load()
        if state is not None:
            self._restore(state)
        self.folder.cut_log(self.step)
        if self.step == 0 and not self.folder.lines():
            self._check({})
        with progress("learning by reward", self.settings.steps) as bar:
            bar.update(self.step)
            while self.step < self.settings.steps:
                started = time.monotonic()
                line = self._one_step()
                self.step += 1
                bar.update()
                last = self.step == self.settings.steps
                due = last or self.step % self.settings.eval_every == 0
                line["seconds"] = round(time.monotonic() - started, 3)
                if due:
                    self._check(line)
                else:
                    self.folder.log({"step": self.step, **line})
                if self.step % self.settings.sheet_every == 0 or last:
                    self._show()
                if due or self.step % save_every == 0:
                    self._save()
        self.team.wait()
        return self._figures()

    def _one_step(self) -> dict[str, Any]:
        """Sample, draw, weigh, learn; what is worth logging."""
        s, team = self.settings, self.team
        rows = visit(self.step, size=s.prompts * team.world, count=len(self.prompts), seed=s.seed)
        mine = [self.prompts[i] for i in rows[team.rank :: team.world]]
        prompts = [prompt for prompt in mine for _ in range(s.group)]
        groups = [i for i in range(len(mine)) for _ in range(s.group)]
        written = self.pen.write(
            prompts, max_new_tokens=s.max_new_tokens, temperature=s.temperature,
            seed=seed_for("samples", s.seed, self.step, team.rank),
        )  # fmt: skip
        began, drawn = time.monotonic(), self.trials.n_drawn
        rewards, gains = self._weigh(prompts, written.texts)
        costs = [
            guard(raw, ended=ended, max_tags=s.max_tags)
            for raw, ended in zip(written.raw, written.ended, strict=True)
        ]
        seen = time.monotonic()
        found = advantages([r - c for r, c in zip(rewards, costs, strict=True)], groups)
        varied = [len({t for t, g in zip(written.texts, groups, strict=True) if g == i})
                  for i in range(len(mine))]  # fmt: skip
        (moving,) = team.sum([float(np.count_nonzero(found))])
        self.flat = 0 if moving else self.flat + 1
        if self.flat >= FLAT_STEPS:
            raise ConfigError(
                f"all rewards have been equal for {FLAT_STEPS} steps, so nothing can be learnt; "
                "raise --temperature or --group, or choose other --reward terms; the last good "
                f"checkpoint is {self.folder.checkpoint}"
            )
        loss, kl = self._learn(prompts, written, found)
        learnt = time.monotonic()
        mean = {
            "reward": float(np.mean(rewards)),
            **{f"gain_{name}": float(np.mean([g[name] for g in gains])) for name in gains[0]},
            "cost": float(np.mean(costs)),
            "length": float(np.mean(written.lengths)),
            "tags": float(np.mean([len(t.split(",")) if t else 0 for t in written.texts])),
            "distinct": float(np.mean(varied)) / s.group,
            "loss": loss,
            "kl": kl,
            "spread": float(np.std(rewards)),
        }
        values = team.sum(list(mean.values()))
        mean = {name: v / team.world for name, v in zip(mean, values, strict=True)}
        return {
            **mean,
            "flat_groups": 1.0 - moving / (len(found) * team.world),
            "drawn": self.trials.n_drawn - drawn,
            "seconds_images": round(seen - began, 3),
            "seconds_learning": round(learnt - seen, 3),
        }

    def _weigh(
        self, prompts: Sequence[str], texts: Sequence[str], *, noises: int | None = None
    ) -> tuple[list[float], list[dict[str, float]]]:
        """Reward and gains by term of each text, means over the noises."""
        count = noises or self.settings.noises
        samples = self.trials.make(
            [_trial(p, t, r) for p, t in zip(prompts, texts, strict=True) for r in range(count)]
        )
        gains = [
            _mean_gains(self.reward, samples[i * count : (i + 1) * count])
            for i in range(len(texts))
        ]
        return [self.reward.value(g) for g in gains], gains

    def _learn(
        self, prompts: Sequence[str], written: Written, found: np.ndarray[Any, Any]
    ) -> tuple[float, float]:
        """Loss and divergence of this step, which the policy has then taken."""
        s = self.settings
        rate = learning_rate(self.step, steps=s.steps, peak=s.lr, warmup=s.warmup)
        try:
            return self.policy.learn(
                prompts, written, found, rate=rate, inner=s.inner, temperature=s.temperature,
                clip=s.clip, kl=s.kl,
            )  # fmt: skip
        except FloatingPointError as error:
            raise ConfigError(
                f"{error} at step {self.step + 1}; give a smaller --lr or --precision no and "
                f"--restart; the last good checkpoint is {self.folder.checkpoint}"
            ) from error

    def _check(self, line: dict[str, Any]) -> None:
        """Held-out reward of the likeliest text, into the log; the checkpoint is published."""
        prompts = [prompt for prompt, _ in self.held_out[: self.settings.held_out]]
        if self.team.leads:
            if prompts:
                written = self.pen.write(prompts, max_new_tokens=self.settings.max_new_tokens)
                rewards, gains = self._weigh(prompts, written.texts)
                line["validation_reward"] = float(np.mean(rewards))
                for name in gains[0]:
                    line[f"validation_{name}"] = float(np.mean([g[name] for g in gains]))
            self.folder.log({"step": self.step, **line})
            facts = self._facts()
            self.folder.publish(
                self.policy.model, self.base.tokenizer, step=self.step, card=rl_card(facts),
                facts=facts, half=self.settings.weights == "float16",
            )  # fmt: skip
        self.team.wait()

    def _figures(self) -> dict[str, Any]:
        """Means of the last ten logged steps, and the last held-out reward."""
        lines = self.folder.lines()
        found: dict[str, Any] = {"step": self.step}
        names = [n for n in (lines[-1] if lines else {}) if n != "step" and "seconds" not in n]
        for name in names:
            values = [line[name] for line in lines if name in line and line["step"] > 0]
            if name.startswith("validation"):
                found[name] = [line[name] for line in lines if name in line][-1]
            elif values:
                found[name] = float(np.mean(values[-10:]))
        return found

    def _facts(self) -> dict[str, Any]:
        before = read_facts(self.base.folder) if self.base.folder is not None else {}
        described = self.trials.generator.describe()
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "stage": "rl",
            "db": self.settings.db,
            "data_digest": self.data_digest,
            "base": str(before.get("base", self.base.name)),
            "init": self.settings.init,
            "init_digest": self.base.digest,
            "reward": self.reward.model_dump(mode="json"),
            "generator": str(described.get("name") or self.settings.generator or "miniature"),
            "generator_digest": self.trials.generator.ref().digest(),
            "settings": self.settings.model_dump(mode="json"),
            "figures": self._figures(),
        }
        return dict(portable(facts))

    def _show(self) -> None:
        """Curves of the run, and a sheet of twin, human and policy."""
        if not self.team.leads:
            return
        from negbench.train.plots import draw_curves, draw_sheet

        draw_curves(self.folder.lines(), self.folder.out / "curves.png")
        rows = self.held_out[:6]
        written = self.pen.write(
            [prompt for prompt, _ in rows], max_new_tokens=self.settings.max_new_tokens
        ).texts
        columns = []
        for (prompt, human), ours in zip(rows, written, strict=True):
            both = self.trials.make([_trial(prompt, human, 0), _trial(prompt, ours, 0)])
            columns.append(
                (prompt, [
                    ("no negative", "", self.trials.pixels(both[0].twin.key)),
                    ("human", human, self.trials.pixels(both[0].treated.key)),
                    (f"step {self.step}", ours, self.trials.pixels(both[1].treated.key)),
                ])
            )  # fmt: skip
        draw_sheet(columns, self.folder.out / "samples" / f"step-{self.step:06d}.png")

    def _save(self) -> None:
        self.folder.save(
            {
                **self.policy.state(),
                "step": self.step,
                "flat": self.flat,
            }
        )
        self.team.wait()

    def _restore(self, state: dict[str, Any]) -> None:
        self.policy.restore(state)
        self.step, self.flat = state["step"], state["flat"]


def _trial(prompt: str, negative: str, replicate: int) -> Trial:
    case = Case(id=sha256_hex(prompt.encode("utf-8"))[:16], prompt=prompt)
    return Trial(case, treatment(case, negative), replicate)


def _mean_gains(reward: Reward, samples: Sequence[Sample]) -> dict[str, float]:
    found = [reward.gains(sample) for sample in samples]
    return {name: float(np.mean([g[name] for g in found])) for name in found[0]}
