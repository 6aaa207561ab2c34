"""The denoising loop: many pictures at once, each with its own noise, texts and guidance rule.

At every model call the loop collects the predictions that the rows' rules need, packs them into
calls of the U-Net, hands them back to the rules, and lets the scheduler step all rows together.
Everything that a run would need to go on from a call is in `LoopState`.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from negbench.generators.network import Encoding, Network, pad_rows
from negbench.generators.schedule import Schedule
from negbench.generators.steering import steered
from negbench.guidance.base import Branch, Rule, Step

if TYPE_CHECKING:
    from negbench.guidance.attention import Steer


class Job(NamedTuple):
    """One row of a call of the network.

    Attributes:
        row: which lane.
        text: row of the batch's encodings.
        steer: what cross-attention does with a second text, if anything.
        away: the second text's row, `text` if there is none.
    """

    row: int
    text: int
    steer: Steer | None
    away: int


@dataclass(frozen=True)
class Lane:
    """One picture on its way.

    Attributes:
        seed: of its noise, 32 bits.
        rule: its guidance rule, bound to scale and weights.
        group: equal for lanes whose rules are equal in all but the texts; they are combined
            together.
        texts: branch, not steered -> row of the batch's encodings.
    """

    seed: int
    rule: Rule
    group: Hashable
    texts: dict[Branch, int]


@dataclass
class LoopState:
    """A batch between two model calls.

    Attributes:
        index: the next model call.
        latents: (lanes, channels, height, width).
        scheduler: with its history.
        noise: one CPU generator a lane.
        rules: group -> what its rule keeps, None before the first call.
        spent: predictions made so far, by lane.
    """

    index: int
    latents: torch.Tensor
    scheduler: Any
    noise: list[torch.Generator]
    rules: dict[Hashable, Any] = field(default_factory=dict)
    spent: list[int] = field(default_factory=list)

    def clone(self) -> LoopState:
        """A copy that shares nothing: running one does not change the other."""
        noise = []
        for source in self.noise:
            generator = torch.Generator("cpu")
            generator.set_state(source.get_state())
            noise.append(generator)
        return LoopState(
            index=self.index,
            latents=self.latents.clone(),
            scheduler=copy.deepcopy(self.scheduler),
            noise=noise,
            rules=copy.deepcopy(self.rules),
            spent=list(self.spent),
        )


class Denoiser:
    """Runs batches of lanes through one network and one schedule.

    Args:
        network: predicts and says what shape its calls have.
        schedule: the scheduler and its steps.
        share: predict once what two branches of a lane have in common (the same text); the
            pipelines of diffusers do not.
    """

    def __init__(self, network: Network, schedule: Schedule, *, share: bool = True) -> None:
        self.network = network
        self.share = share
        self._pristine = schedule.build()
        self.steps: list[Step] = schedule.describe(self._pristine)
        self._takes_generator = _accepts(self._pristine, "generator")

    def begin(self, lanes: Sequence[Lane]) -> LoopState:
        """Noise for every lane, from its own CPU generator."""
        network = self.network
        scheduler = copy.deepcopy(self._pristine)
        if network.pipeline.family.name == "sdxl" and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        noise = [torch.Generator("cpu").manual_seed(lane.seed) for lane in lanes]
        shape = (1, *network.latent_shape)
        latents = torch.cat(
            [torch.randn(shape, generator=source, dtype=network.dtype) for source in noise]
        )
        return LoopState(
            index=0,
            latents=latents.to(network.device) * scheduler.init_noise_sigma,
            scheduler=scheduler,
            noise=noise,
            rules={lane.group: None for lane in lanes},
            spent=[0] * len(lanes),
        )

    def run(self, lanes: Sequence[Lane], texts: Encoding) -> LoopState:
        """All model calls, from noise to clean latents."""
        state = self.begin(lanes)
        while state.index < len(self.steps):
            self.advance(state, lanes, texts)
        return state

    def advance(self, state: LoopState, lanes: Sequence[Lane], texts: Encoding) -> None:
        """One model call; changes `state`."""
        step = self.steps[state.index]
        t = state.scheduler.timesteps[state.index]
        x = state.scheduler.scale_model_input(state.latents, t)
        groups: dict[Hashable, list[int]] = {}
        for row, lane in enumerate(lanes):
            groups.setdefault(lane.group, []).append(row)
        needs = {group: lanes[rows[0]].rule.needs(step) for group, rows in groups.items()}
        jobs, place = self._jobs(lanes, needs)
        for job in jobs:
            state.spent[job.row] += 1
        predicted = self._predict(x, t, jobs, texts)
        guided = predicted.new_empty(x.shape)
        for group, rows in groups.items():
            branches = {
                branch: predicted[[place[row, branch] for row in rows]] for branch in needs[group]
            }
            rule = lanes[rows[0]].rule
            guided[rows], state.rules[group] = rule.combine(
                branches, x[rows], step, state.rules[group]
            )
        extra = {"generator": state.noise} if self._takes_generator else {}
        stepped = state.scheduler.step(guided, t, state.latents, return_dict=False, **extra)
        state.latents = stepped[0]
        state.index += 1

    def _jobs(
        self, lanes: Sequence[Lane], needs: dict[Hashable, tuple[Branch, ...]]
    ) -> tuple[list[Job], dict[tuple[int, Branch], int]]:
        """What to predict, negatives before positives as diffusers has them, and where it is."""
        jobs: list[Job] = []
        place: dict[tuple[int, Branch], int] = {}
        seen: dict[Job, int] = {}
        depth = max(len(branches) for branches in needs.values())
        for level in range(depth):
            for row, lane in enumerate(lanes):
                branches = needs[lane.group]
                if level >= len(branches):
                    continue
                branch = branches[level]
                own, *away = (lane.texts[plain] for plain in branch.texts())
                job = Job(row, own, branch.steer, away[0] if away else own)
                if not self.share or job not in seen:
                    seen[job] = len(jobs)
                    jobs.append(job)
                place[row, branch] = seen[job]
        return jobs, place

    def _predict(
        self, x: torch.Tensor, t: torch.Tensor, jobs: Sequence[Job], texts: Encoding
    ) -> torch.Tensor:
        """Predictions of all jobs, in calls of the network's fixed number of rows if it has one.

        Jobs that are steered in one way make calls of their own: a call's other rows would
        otherwise be computed in another manner.
        """
        timestep = t.to(self.network.device)
        kinds: dict[Steer | None, list[int]] = {}
        for number, job in enumerate(jobs):
            kinds.setdefault(job.steer, []).append(number)
        order = [number for numbers in kinds.values() for number in numbers]
        results = []
        for steer, numbers in kinds.items():
            size = self.network.rows.denoiser or len(numbers)
            for start in range(0, len(numbers), size):
                block = [jobs[number] for number in numbers[start : start + size]]
                row, text, away = (
                    pad_rows(torch.tensor(column, device=x.device), size)
                    for column in zip(
                        *((job.row, job.text, job.away) for job in block), strict=True
                    )
                )
                manner: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
                if steer is not None:
                    manner = steered(self.network.unet, steer, texts.take(away).context)
                with manner:
                    filled = self.network.predict(x[row], timestep, texts.take(text))
                results.append(filled[: len(block)])
        predicted = results[0] if len(results) == 1 else torch.cat(results)
        if len(kinds) == 1:
            return predicted
        back = torch.tensor(order, device=x.device).argsort()
        return predicted[back]


def _accepts(scheduler: Any, parameter: str) -> bool:
    return parameter in inspect.signature(scheduler.step).parameters
