"""Stage one, imitation: fine-tune a sequence-to-sequence model on pairs that people wrote.

The paper's readable text says T5 and supervised fine-tuning; size, learning rate, batch, epochs
and decoding are negbench's choice.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from negbench.errors import ConfigError
from negbench.progress import Progress, silent
from negbench.train.base_model import Base, load_base
from negbench.train.card import portable, sft_card
from negbench.train.figures import tag_figures
from negbench.train.folder import RunFolder, held
from negbench.train.pairs import Likes, Pairs, Text, read_pairs
from negbench.train.schedule import learning_rate, visit, weighted
from negbench.train.team import Precision, Team
from negbench.train.writing import Pen

EVAL_ROWS = 32
SCHEMA = 1


class SftSettings(BaseModel):
    """Everything that decides what fine-tuning gives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    db: str = "miniature"
    base: str = "miniature"
    steps: int | None = Field(default=None, ge=1)
    epochs: float = Field(default=3.0, gt=0, le=1000)
    batch_size: int = Field(default=64, ge=1, le=65_536)
    accumulate: int = Field(default=1, ge=1, le=4096)
    lr: float = Field(default=3e-4, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    longest: int = Field(default=96, ge=1, le=512)
    eval_every: int = Field(default=100, ge=1)
    eval_pairs: int = Field(default=512, ge=1)
    eval_written: int = Field(default=256, ge=1)
    patience: int = Field(default=5, ge=1)
    text: Text = "cleaned"
    likes: Likes = "none"
    likes_cap: int = Field(default=40, ge=1)
    universal_cap: int | None = Field(default=None, ge=1)
    precision: Precision = "no"
    weights: Literal["float32", "float16"] = "float32"
    seed: int = Field(default=0, ge=0, lt=2**31)


MINIATURE_SFT: dict[str, Any] = {
    "base": "miniature", "steps": 900, "lr": 2e-3, "likes": "capped", "universal_cap": 5,
    "weights": "float16",
}  # fmt: skip
"""Settings that suit the miniature, where the user says nothing else. The cap makes a start from
which reward goes further, docs/reproduction.md; imitation alone is better without."""


def train_sft(
    settings: SftSettings,
    *,
    out: Path,
    device: str = "auto",
    restart: bool = False,
    tensorboard: bool = False,
    save_every: int = 100,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fine-tune until the steps are done or the validation loss rises; go on where it stopped.

    Args:
        settings: what decides the result.
        out: folder of the run; ``<out>/checkpoint`` is the best model so far.
        device: where to compute.
        restart: begin anew.
        tensorboard: write the log for TensorBoard as well.
        save_every: steps between saved states.
        progress: shows a bar.

    Returns:
        The figures of the best checkpoint.

    Raises:
        NegbenchError: bad data, a base that does not fit, a loss that is not finite, a full disk.
    """
    team = Team(device=device, precision=settings.precision)
    chosen: dict[str, Any] = {
        "text": settings.text, "likes": settings.likes, "likes_cap": settings.likes_cap,
        "universal_cap": settings.universal_cap,
    }  # fmt: skip
    training = read_pairs(settings.db, split="train", **chosen)
    held_out = read_pairs(settings.db, split="validation", text=settings.text)
    base = load_base(settings.base, seed=settings.seed)
    asked = {
        **settings.model_dump(mode="json", exclude={"db", "base"}),
        "stage": "sft", "schema": SCHEMA, "base": base.digest, "data": training.digest,
        "validation": held_out.digest, "processes": team.world,
    }  # fmt: skip
    with held(out, leads=team.leads):
        folder = RunFolder(out, asked, restart=restart, leads=team.leads)
        team.wait()
        if tensorboard:
            folder.open_board()
        run = _Sft(settings, team, folder, base, training, held_out)
        return run.go(save_every=save_every, progress=progress)


class _Sft:
    def __init__(
        self, settings: SftSettings, team: Team, folder: RunFolder, base: Base,
        training: Pairs, held_out: Pairs,
    ) -> None:  # fmt: skip
        self.settings, self.team, self.folder, self.base = settings, team, folder, base
        self.training, self.held_out = training, held_out
        self.model = base.model.to(team.device)
        self.pen = Pen(self.model, base.tokenizer, device=team.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.lr, weight_decay=settings.weight_decay
        )
        self.per_step = settings.batch_size * settings.accumulate * team.world
        self.steps = settings.steps or math.ceil(settings.epochs * len(training) / self.per_step)
        self.step = 0
        self.best: dict[str, Any] = {}
        self.waited = 0
        self.cumulative = None if training.weights is None else training.weights.cumsum()

    def go(self, *, save_every: int, progress: Progress) -> dict[str, Any]:
        state = self.folder.load()
        if state is not None:
            self._restore(state)
        self.folder.cut_log(self.step)
        started = time.monotonic()
        with progress("fine-tuning", self.steps) as bar:
            bar.update(self.step)
            while self.step < self.steps and self.waited < self.settings.patience:
                loss = self._learn()
                self.step += 1
                bar.update()
                due = self.step % self.settings.eval_every == 0 or self.step == self.steps
                if due:
                    seconds = round(time.monotonic() - started, 3)
                    self._evaluate(loss, seconds)
                if self.step % save_every == 0 or due:
                    self.folder.save(self._state())
        self.team.wait()
        return dict(self.best)

    def _rows(self) -> Any:
        seed = self.settings.seed
        if self.cumulative is not None:
            return weighted(self.step, size=self.per_step, cumulative=self.cumulative, seed=seed)
        return visit(self.step, size=self.per_step, count=len(self.training), seed=seed)

    def _learn(self) -> float:
        """One step of the optimizer; the mean loss a token."""
        self.model.train()
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step * self.team.world
                          + self.team.rank)  # fmt: skip
        rows = self._rows()[self.team.rank :: self.team.world]
        size = self.settings.batch_size
        batches = [
            self.pen.batch(
                [self.training.prompts[i] for i in rows[at : at + size]],
                [self.training.negatives[i] for i in rows[at : at + size]],
                longest=self.settings.longest,
            )
            for at in range(0, len(rows), size)
        ]
        (total,) = self.team.sum([float(sum(batch.n_tokens for batch in batches))])
        spent = 0.0
        for batch in batches:
            with self.team.autocast():
                out = self.model(
                    input_ids=batch.ids, attention_mask=batch.mask, labels=batch.labels
                )
            part = out.loss * (batch.n_tokens / total)
            self.team.scaler.scale(part).backward()
            spent += float(part.detach())
        (loss,) = self.team.sum([spent])
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss is not finite at step {self.step + 1}; give a smaller --lr or "
                f"--precision no and --restart; {self._last_good()}"
            )
        rate = learning_rate(
            self.step, steps=self.steps, peak=self.settings.lr, warmup=self.settings.warmup
        )
        self.team.update(self.optimizer, self.parameters, rate=rate)
        return loss

    def _last_good(self) -> str:
        if not self.folder.checkpoint.is_dir():
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.folder.checkpoint}"

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """Mean loss a token over held-out pairs."""
        count = min(len(self.held_out), self.settings.eval_pairs)
        spent = tokens = 0.0
        for at in range(self.team.rank * EVAL_ROWS, count, EVAL_ROWS * self.team.world):
            batch = self.pen.batch(
                self.held_out.prompts[at : min(at + EVAL_ROWS, count)],
                self.held_out.negatives[at : min(at + EVAL_ROWS, count)],
                longest=self.settings.longest,
            )
            with self.team.autocast():
                out = self.model(
                    input_ids=batch.ids, attention_mask=batch.mask, labels=batch.labels
                )
            spent += float(out.loss) * batch.n_tokens
            tokens += batch.n_tokens
        spent, tokens = self.team.sum([spent, tokens])
        return spent / max(tokens, 1.0)

    def _evaluate(self, loss: float, seconds: float) -> None:
        """Validation loss and what is written; a new best checkpoint is published."""
        self.model.eval()
        validation = self._validation_loss()
        if not math.isfinite(validation):
            raise ConfigError(
                f"the validation loss is not finite at step {self.step}; give a smaller --lr and "
                f"--restart; {self._last_good()}"
            )
        count = min(len(self.held_out), self.settings.eval_written)
        written: list[str] = []
        if self.team.leads:
            for at in range(0, count, EVAL_ROWS):
                prompts = self.held_out.prompts[at : min(at + EVAL_ROWS, count)]
                written += self.pen.write(prompts, max_new_tokens=self.settings.longest).texts
        human = self.held_out.negatives[: len(written)]
        figures = {
            "loss": loss, "validation_loss": validation, **tag_figures(written, human),
            "distinct": len(set(written)) / max(len(written), 1),
        }  # fmt: skip
        self.folder.log({"step": self.step, **figures, "seconds": seconds})
        if not self.best or validation < self.best["validation_loss"]:
            self.best, self.waited = {"step": self.step, **figures}, 0
            facts = self._facts()
            self.folder.publish(
                self.model, self.base.tokenizer, step=self.step, card=sft_card(facts),
                facts=facts, half=self.settings.weights == "float16",
            )  # fmt: skip
        else:
            self.waited += 1

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "stage": "sft",
            "db": self.settings.db,
            "data_digest": self.training.digest,
            "n_training": len(self.training),
            "n_validation": len(self.held_out),
            "base": self.base.name,
            "base_digest": self.base.digest,
            "settings": self.settings.model_dump(mode="json"),
            "figures": self.best,
        }
        return dict(portable(facts))

    def _state(self) -> dict[str, Any]:
        return {
            **self.team.state(self.model, self.optimizer),
            "step": self.step,
            "best": self.best,
            "waited": self.waited,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.team.restore(state, self.model, self.optimizer)
        self.step, self.best, self.waited = state["step"], dict(state["best"]), state["waited"]
