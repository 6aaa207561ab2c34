"""What pictures have in common: requests of one noise that begin alike are drawn once so far.

A request is known, while planning, by what it has predicted at each model call and how its rule
puts that together (`Rule.phase`). Requests of one seed and prompt stand in one tree: they go
together up to the first call at which these differ. No tensor and no library is needed here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from negbench.guidance.attention import Steer
from negbench.guidance.base import Branch, Rule, Step
from negbench.types import ImageRequest

Item = TypeVar("Item")


class Embedded(NamedTuple):
    """A text with the place of an embedding in it.

    Attributes:
        text: the words and the place.
        digest: of the embedding.
    """

    text: str
    digest: str


Text = str | Embedded | None
"""What a network is conditioned on; None is the pipeline's empty prompt."""


class Ask(NamedTuple):
    """One prediction: the network under a text, whose attention may be turned from another.

    Attributes:
        text: what the network is conditioned on.
        steer: what attention does with the second text, None for nothing.
        away: the second text, or `text` if there is none.
    """

    text: Text
    steer: Steer | None
    away: Text


@dataclass(frozen=True)
class Span:
    """Neighbouring model calls at which a rule does the same.

    Attributes:
        stop: the first call after it.
        phase: what is computed, apart from the texts.
        needs: the branches to predict.
        asks: the same with texts in place of roles, in that order.
        rule: the rule.
    """

    stop: int
    phase: Hashable
    needs: tuple[Branch, ...]
    asks: tuple[Ask, ...]
    rule: Rule

    @property
    def kind(self) -> Hashable:
        """Equal for spans that do the same to one picture."""
        return self.phase, self.asks


@dataclass(frozen=True)
class Track(Generic[Item]):
    """One request's way from noise to picture.

    Attributes:
        item: whose way it is.
        spans: all calls, in order.
    """

    item: Item
    spans: tuple[Span, ...]

    def at(self, index: int) -> Span:
        """What happens at a model call."""
        return next(span for span in self.spans if index < span.stop)


@dataclass
class Node(Generic[Item]):
    """Requests that are one picture so far.

    Attributes:
        tracks: at least one.
    """

    tracks: list[Track[Item]]
    _known: tuple[int, list[Lead[Item]]] = field(default=(0, []), repr=False)

    def leads(self, index: int) -> list[Lead[Item]]:
        """Where its requests go at a model call: one entry for each different way."""
        until, leads = self._known
        if index < until:
            return leads
        if len(self.tracks) == 1:
            span = self.tracks[0].at(index)
            leads = [Lead(span, span.stop, self.tracks)]
        else:
            found: dict[Hashable, Lead[Item]] = {}
            for track in self.tracks:
                span = track.at(index)
                lead = found.get(span.kind)
                if lead is None:
                    found[span.kind] = Lead(span, span.stop, [track])
                else:
                    lead.tracks.append(track)
                    lead.stop = min(lead.stop, span.stop)
            leads = list(found.values())
        if len(leads) == 1:
            self._known = (leads[0].stop, leads)
        return leads

    def cost(self, index: int) -> int:
        """Predictions that its requests need at a model call, equal ones once."""
        leads = self.leads(index)
        if len(leads) == 1:
            return leads[0].cost
        return len({ask for lead in leads for ask in lead.span.asks})


@dataclass
class Lead(Generic[Item]):
    """The part of a node's requests that does the same in the calls before `stop`."""

    span: Span
    stop: int
    tracks: list[Track[Item]]

    @property
    def cost(self) -> int:
        """Predictions a call."""
        return len(set(self.span.asks))


class Course(NamedTuple):
    """What a rule does over a whole schedule, run by run: (stop, phase, branches)."""

    runs: tuple[tuple[int, Hashable, tuple[Branch, ...]], ...]
    branches: tuple[Branch, ...]
    """All branches, not steered, that any call asks for."""


def plan_rule(rule: Rule, steps: Iterable[Step]) -> Course:
    """Ask a rule about every call."""
    runs: list[tuple[int, Hashable, tuple[Branch, ...]]] = []
    branches: dict[Branch, None] = {}
    for step in steps:
        phase, needs = rule.phase(step), rule.needs(step)
        if runs and runs[-1][1:] == (phase, needs):
            runs[-1] = (step.index + 1, phase, needs)
        else:
            runs.append((step.index + 1, phase, needs))
            branches.update((plain, None) for branch in needs for plain in branch.texts())
    return Course(tuple(runs), tuple(branches))


def spans_of(rule: Rule, course: Course, texts: Mapping[Branch, Text]) -> tuple[Span, ...]:
    """A rule's course under the texts of one request."""
    return tuple(
        Span(stop, phase, needs, tuple(_ask(branch, texts) for branch in needs), rule)
        for stop, phase, needs in course.runs
    )


def _ask(branch: Branch, texts: Mapping[Branch, Text]) -> Ask:
    own, *away = (texts[plain] for plain in branch.texts())
    return Ask(own, branch.steer, away[0] if away else own)


def count_alone(spans: Sequence[Span]) -> int:
    """Predictions that one request needs if nothing else is drawn."""
    total, start = 0, 0
    for span in spans:
        total += (span.stop - start) * len(set(span.asks))
        start = span.stop
    return total


def count_together(node: Node[Item], *, calls: int) -> int:
    """Predictions that a node of requests needs over a schedule of `calls` model calls."""
    total = 0
    waiting = [(node, 0)]
    while waiting:
        current, index = waiting.pop()
        total += current.cost(index)
        for lead in current.leads(index):
            stop = min(lead.stop, calls)
            total += (stop - index - 1) * lead.cost
            if stop < calls:
                waiting.append((Node(lead.tracks), stop))
    return total


@dataclass(frozen=True)
class Root(Generic[Item]):
    """Requests of one noise that have not begun.

    Attributes:
        seed: of the noise.
        tracks: makes their tracks, when it is their turn.
    """

    seed: int
    tracks: Callable[[], list[Track[Item]]]


def roots_of(
    wanted: Iterable[tuple[Hashable, int, Item]], track: Callable[[Item], Track[Item]]
) -> list[Root[Item]]:
    """Requests by what they can share from the start, in the order in which each first comes.

    Args:
        wanted: what stands in one tree, the seed, and the request.
        track: its way.
    """
    trees: dict[Hashable, tuple[int, list[Item]]] = {}
    for tree, seed, item in wanted:
        trees.setdefault(tree, (seed, []))[1].append(item)

    def maker(items: list[Item]) -> Callable[[], list[Track[Item]]]:
        return lambda: [track(item) for item in items]

    return [Root(seed, maker(items)) for seed, items in trees.values()]


def tree_of(request: ImageRequest) -> Hashable:
    """Equal for requests that may begin alike: of one noise and prompt."""
    return request.seed, request.treatment.prompt


def parcels(requests: Iterable[ImageRequest], *, size: int) -> list[list[ImageRequest]]:
    """Requests in parcels for several workers, those that may begin alike in one.

    Args:
        requests: what to draw.
        size: requests in a parcel at least, but for the last.
    """
    trees: dict[Hashable, list[ImageRequest]] = {}
    for request in requests:
        trees.setdefault(tree_of(request), []).append(request)
    made: list[list[ImageRequest]] = []
    for tree in trees.values():
        if made and len(made[-1]) < size:
            made[-1] += tree
        else:
            made.append(list(tree))
    return made
