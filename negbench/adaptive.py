"""Methods that have to see pictures first: asked, drawn for, and told, within a counted budget.

An adaptive method proposes treatments for a case; the loop here draws them on noises that are
never a benchmark's, weighs them, and tells. What is drawn and scored lies in the stores, so that a
search that was killed is replayed without drawing anything twice, and what it decided is kept.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from negbench.errors import PluginError
from negbench.files import read_json, write_json
from negbench.methods.base import Method
from negbench.progress import Progress, silent
from negbench.protocols.cases import dataset_digest
from negbench.remote import at_hand, written
from negbench.types import Case, Guidance, Treatment, canonical_json, sha256_hex

if TYPE_CHECKING:
    from negbench.generators.base import Generator, RunOptions
    from negbench.reward.terms import Reward

TITLE = "adaptive-search@1"
"""Of the noises of searches: another title than any benchmark's, so other noises."""
MAX_ROUNDS = 1000
UNSEEN = "has to draw before it decides"


@dataclass(frozen=True)
class Tried:
    """What became of a proposal.

    Attributes:
        treatment: what was drawn.
        reward: mean over the noises, as a gain over the twin: 0 is no negative prompt.
        gains: the reward's terms, unweighted.
    """

    treatment: Treatment
    reward: float
    gains: Mapping[str, float]


class AdaptiveMethod(Method):
    """A method that is asked and told in rounds.

    `propose` must be a function of its arguments and the configuration alone: then a search that
    was stopped is replayed from the stores.
    """

    adaptive: ClassVar[bool] = True

    @abstractmethod
    def reward(self) -> Reward:
        """What the method wants much of, frozen."""

    @abstractmethod
    def noises(self) -> int:
        """Noises that each proposal is drawn on."""

    @abstractmethod
    def budget(self) -> int:
        """Most images drawn for one case, twins not counted."""

    @abstractmethod
    def propose(self, case: Case, history: Sequence[Tried]) -> Sequence[Treatment | str]:
        """Treatments to try next for a case; none to end its search."""

    def choose(self, case: Case, history: Sequence[Tried]) -> Treatment:
        """The decision: by default the best that was tried, none if nothing gained."""
        best = max(history, key=lambda tried: tried.reward, default=None)
        if best is None or best.reward <= 0:
            return Treatment(prompt=case.prompt)
        return best.treatment

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """Adaptive methods are run by `adapt`, which draws."""
        raise PluginError(f"method {type(self).__name__} {UNSEEN}; run it with negbench evaluate")


def adapt(
    method: AdaptiveMethod,
    name: str,
    cases: Sequence[Case],
    *,
    generator: Generator,
    guidance: Guidance,
    carried: Guidance | None = None,
    cache: Path,
    options: RunOptions | None = None,
    progress: Progress = silent,
) -> tuple[list[Treatment], list[str]]:
    """Run a search for every case, all cases together so that batches fill.

    Args:
        method: is asked and told.
        name: of the method.
        cases: what to search for.
        generator: draws.
        guidance: plain CFG of twins.
        carried: the rule of proposals that name none; None for `guidance`.
        cache: images, scores, and the decision once it is made.
        options: device and batch size.
        progress: shows a bar of cases.

    Returns:
        One treatment a case, and notes on what the search cost.

    Raises:
        PluginError: the method proposes no treatments, or never ends.
    """
    rules = (guidance, carried or guidance)
    path = _kept_at(method, name, cases, generator=generator, rules=rules, cache=cache)
    if at_hand(path, cache=cache):
        kept = read_json(path)
        if len(kept.get("treatments", [])) == len(cases):
            decided = [Treatment.model_validate(item) for item in kept["treatments"]]
            return decided, [*kept["notes"], *method.notes(cases)]
    from negbench.reward.trials import Trial, Trials

    reward = method.reward()
    trials = Trials(
        generator=generator, metrics=reward.metrics(), guidance=guidance, carried=carried,
        title=TITLE, cache=cache, options=options,
    )  # fmt: skip
    noises, budget = method.noises(), method.budget()
    history: dict[str, list[Tried]] = {case.id: [] for case in cases}
    images = dict.fromkeys(history, 0)
    waiting = list(cases)
    with progress(f"{name} is searching", len(cases)) as bar:
        for _ in range(MAX_ROUNDS):
            asked = [(case, item) for case in waiting
                     for item in _proposals(method, name, case, history[case.id],
                                            left=(budget - images[case.id]) // noises)]  # fmt: skip
            going = {case.id for case, _ in asked}
            bar.update(sum(case.id not in going for case in waiting))
            waiting = [case for case in waiting if case.id in going]
            if not asked:
                break
            samples = trials.make(
                [Trial(case, item, noise) for case, item in asked for noise in range(noises)]
            )
            for i, (case, item) in enumerate(asked):
                gains = [reward.gains(s) for s in samples[i * noises : (i + 1) * noises]]
                mean = {k: sum(g[k] for g in gains) / noises for k in gains[0]}
                history[case.id].append(Tried(item, reward.value(mean), mean))
                images[case.id] += noises
        else:
            raise PluginError(f"method {name} still proposes after {MAX_ROUNDS} rounds")
    decided = [method.choose(case, history[case.id]) for case in cases]
    total = sum(images.values())
    notes = [
        f"{name}: searched with {total} images beside their twins, {total / len(cases):.1f} a "
        "prompt, on noises that are not the benchmark's"
    ]
    write_json(
        path, {"treatments": [item.model_dump(mode="json") for item in decided], "notes": notes}
    )
    written(path, cache=cache)
    return decided, [*notes, *method.notes(cases)]


def planned(method: AdaptiveMethod, cases: Sequence[Case]) -> tuple[list[Treatment], list[str]]:
    """Stand-ins for a dry run: no negative yet, and what the search may cost."""
    most = method.budget() * len(cases)
    note = f"the search comes first and draws at most {most} images beside their twins"
    return [Treatment(prompt=case.prompt) for case in cases], [note]


def _kept_at(
    method: AdaptiveMethod, name: str, cases: Sequence[Case], *, generator: Generator,
    rules: Sequence[Guidance], cache: Path,
) -> Path:  # fmt: skip
    key: list[Any] = [
        "adaptive", 1, method.ref(name).digest(), dataset_digest(cases), generator.ref().digest(),
        *(rule.digest() for rule in rules), method.reward().digest(),
    ]  # fmt: skip
    return cache / "treatments" / f"{sha256_hex(canonical_json(key))}.json"


def _proposals(
    method: AdaptiveMethod, name: str, case: Case, history: Sequence[Tried], *, left: int
) -> list[Treatment]:
    """What is tried next, within the budget, as treatments; what was tried before is left out."""
    from negbench.methods.texts import treatment

    if left < 1:
        return []
    try:
        answer = method.propose(case, history)
    except Exception as error:
        raise PluginError(
            f"method {name} failed to propose for case {case.id!r}: {type(error).__name__}: {error}"
        ) from error
    seen = {tried.treatment.digest() for tried in history}
    found: dict[str, Treatment] = {}
    for item in answer:
        made = treatment(case, item) if isinstance(item, str) else item
        if not isinstance(made, Treatment):
            raise PluginError(f"method {name} proposed a {type(made).__name__}, not a treatment")
        if made.digest() not in seen:
            found.setdefault(made.digest(), made)
    return list(found.values())[:left]
