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

from negbench.generators import history
from negbench.generators.network import Encoding, Network
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
        latents: (rows, channels, height, width).
        scheduler: with its history.
        noise: one CPU generator a row.
        rules: what each row's rule keeps, cut to the row; None before the first call.
        spent: predictions that each row would have needed alone.
        paid: predictions that were made for it first; those of `spent` that another row had
            needed too are paid by one of them.
    """

    index: int
    latents: torch.Tensor
    scheduler: Any
    noise: list[torch.Generator]
    rules: list[Any] = field(default_factory=list)
    spent: list[int] = field(default_factory=list)
    paid: list[int] = field(default_factory=list)

    def clone(self) -> LoopState:
        """A copy that shares nothing: running one does not change the other."""
        return LoopState(
            index=self.index,
            latents=self.latents.clone(),
            scheduler=copy.deepcopy(self.scheduler),
            noise=[_copied(source) for source in self.noise],
            rules=copy.deepcopy(self.rules),
            spent=list(self.spent),
            paid=list(self.paid),
        )

    def take(self, rows: Sequence[int]) -> LoopState:
        """Those rows, in that order, as a batch of their own; a row may come several times.

        What a row has paid stays with the first of its copies.
        """
        where = torch.tensor(rows, device=self.latents.device)
        first = {row: place for place, row in reversed(list(enumerate(rows)))}
        return LoopState(
            index=self.index,
            latents=self.latents[where],
            scheduler=history.take(self.scheduler, where),
            noise=[_copied(self.noise[row]) for row in rows],
            rules=[history.row_of(self.rules[row], 0, copied=True) for row in rows],
            spent=[self.spent[row] for row in rows],
            paid=[self.paid[row] if first[row] == i else 0 for i, row in enumerate(rows)],
        )

    @property
    def nbytes(self) -> int:
        """Bytes of latents and history; the rest is small."""
        own = self.latents.numel() * self.latents.element_size()
        return own + history.nbytes(self.scheduler)


def join(states: Sequence[LoopState]) -> LoopState:
    """Batches before the same call as one, in order; they are used up."""
    if len(states) == 1:
        return states[0]
    return LoopState(
        index=states[0].index,
        latents=torch.cat([state.latents for state in states]),
        scheduler=history.join([state.scheduler for state in states]),
        noise=[source for state in states for source in state.noise],
        rules=[kept for state in states for kept in state.rules],
        spent=[count for state in states for count in state.spent],
        paid=[count for state in states for count in state.paid],
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

    @property
    def divisible(self) -> bool:
        """Whether batches can be cut and joined between calls."""
        return history.divisible(self._pristine)

    def begin(self, lanes: Sequence[Lane]) -> LoopState:
        """Noise for every lane, from its own CPU generator."""
        return self.noise([lane.seed for lane in lanes])

    def noise(self, seeds: Sequence[int]) -> LoopState:
        """Noise for every seed, from a CPU generator of its own."""
        network = self.network
        scheduler = copy.deepcopy(self._pristine)
        family = network.pipeline.family.name
        if family in ("sdxl", "flux") and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        noise = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        shape = (1, *network.latent_shape)
        latents = torch.cat(
            [torch.randn(shape, generator=source, dtype=network.dtype) for source in noise]
        )
        count = len(noise)
        return LoopState(
            index=0,
            latents=latents.to(network.device) * getattr(scheduler, "init_noise_sigma", 1.0),
            scheduler=scheduler,
            noise=noise,
            rules=[None] * count,
            spent=[0] * count,
            paid=[0] * count,
        )

    def run(self, lanes: Sequence[Lane], texts: Encoding) -> LoopState:
        """All model calls, from noise to clean latents."""
        state = self.begin(lanes)
        while state.index < len(self.steps):
            self.advance(state, lanes, texts)
        return state

    def advance(
        self,
        state: LoopState,
        lanes: Sequence[Lane],
        texts: Encoding,
        rows: Sequence[int] | None = None,
    ) -> None:
        """One model call; changes `state`, or leaves it as it was where an error is raised.

        Args:
            state: where the pictures are.
            lanes: what to do with them; afterwards the state has one row for each.
            texts: what lanes' rows of texts are rows of.
            rows: the row of `state` that each lane starts from; by default its own. Lanes of one
                row share what they have predicted in this call.
        """
        step = self.steps[state.index]
        # A scheduler notes in itself what call it is at; another one does if this call fails.
        scheduler = history.fork(state.scheduler)
        t = scheduler.timesteps[state.index]
        x = state.latents
        if hasattr(scheduler, "scale_model_input"):  # not so in a flow
            x = scheduler.scale_model_input(x, t)
        origins = range(len(lanes)) if rows is None else rows
        groups: dict[tuple[Hashable, bool], list[int]] = {}
        needs: dict[Hashable, tuple[Branch, ...]] = {}
        for place, lane in enumerate(lanes):
            fresh = state.rules[origins[place]] is None
            groups.setdefault((lane.group, fresh), []).append(place)
            if lane.group not in needs:
                needs[lane.group] = lane.rule.needs(step)
        jobs, place_of, payers = self._jobs(lanes, needs, origins)
        predicted = self._predict(x, t, jobs, texts)
        before = state
        if rows is not None and list(rows) != list(range(len(state.latents))):
            before = state.take(rows)
            scheduler = history.take(scheduler, torch.tensor(rows, device=x.device))
            x = x[torch.tensor(rows, device=x.device)]
        kept = list(before.rules)
        guided = predicted.new_empty(x.shape)
        for (group, fresh), places in groups.items():
            branches = {
                branch: predicted[[place_of[place, branch] for place in places]]
                for branch in needs[group]
            }
            own = None if fresh else history.stack_rows([before.rules[place] for place in places])
            guided[places], after = lanes[places[0]].rule.combine(branches, x[places], step, own)
            if after is not None or not fresh:
                for row, place in enumerate(places):
                    kept[place] = history.row_of(after, row)
        noise = before.noise
        if self._takes_generator and x.device.type != "cpu":
            noise = [_copied(source) for source in noise]  # memory may run out in the step
        extra = {"generator": noise} if self._takes_generator else {}
        stepped = scheduler.step(guided, t, before.latents, return_dict=False, **extra)
        costs = [
            len({place_of[place, branch] for branch in needs[lane.group]})
            if self.share
            else len(needs[lane.group])
            for place, lane in enumerate(lanes)
        ]
        paid = list(before.paid)
        for payer in payers:
            paid[payer] += 1
        state.spent = [spent + cost for spent, cost in zip(before.spent, costs, strict=True)]
        state.paid = paid
        state.rules = kept
        state.noise = noise
        state.scheduler = scheduler
        state.latents = stepped[0]
        state.index += 1

    def _jobs(
        self,
        lanes: Sequence[Lane],
        needs: dict[Hashable, tuple[Branch, ...]],
        rows: Sequence[int],
    ) -> tuple[list[Job], dict[tuple[int, Branch], int], list[int]]:
        """What to predict, where each lane finds it, and the lane that asked for it first.

        Negatives come before positives, as diffusers has them.
        """
        jobs: list[Job] = []
        payers: list[int] = []
        place_of: dict[tuple[int, Branch], int] = {}
        seen: dict[Job, int] = {}
        depth = max(len(branches) for branches in needs.values())
        for level in range(depth):
            for place, lane in enumerate(lanes):
                branches = needs[lane.group]
                if level >= len(branches):
                    continue
                branch = branches[level]
                own, *away = (lane.texts[plain] for plain in branch.texts())
                job = Job(rows[place], own, branch.steer, away[0] if away else own)
                if not self.share or job not in seen:
                    seen[job] = len(jobs)
                    jobs.append(job)
                    payers.append(place)
                place_of[place, branch] = seen[job]
        return jobs, place_of, payers

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
            whole = len(x) if self.network.apart else len(numbers)
            size = self.network.rows.denoiser or whole
            for start in range(0, len(numbers), size):
                block = [jobs[number] for number in numbers[start : start + size]]
                filled_up = block + [block[-1]] * (size - len(block))
                row = torch.tensor([job.row for job in filled_up], device=x.device)
                own = self.network.texts_of_call(texts, [job.text for job in filled_up])
                with contextlib.ExitStack() as manner:
                    if steer is not None:
                        away = torch.tensor([job.away for job in filled_up], device=x.device)
                        away_context = texts.take(away).context
                        manner.enter_context(self.network.uncompiled())
                        manner.enter_context(steered(self.network.unet, steer, away_context))
                    filled = self.network.predict(x[row], timestep, own)
                results.append(filled[: len(block)])
        predicted = results[0] if len(results) == 1 else torch.cat(results)
        if len(kinds) == 1:
            return predicted
        back = torch.tensor(order, device=x.device).argsort()
        return predicted[back]


def _copied(source: torch.Generator) -> torch.Generator:
    generator = torch.Generator("cpu")
    generator.set_state(source.get_state())
    return generator


def _accepts(scheduler: Any, parameter: str) -> bool:
    return parameter in inspect.signature(scheduler.step).parameters
