"""What a request asks of a pipeline's networks: its rule, its texts, its way call by call.

Everything here is known while planning: no tensor and no loaded network is needed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from negbench.embedding import Embedding
from negbench.errors import ConfigError, MissingError
from negbench.generators.embeddings import check_embedding
from negbench.generators.families import Pipeline
from negbench.generators.schedule import Schedule
from negbench.generators.sharing import (
    Course,
    Embedded,
    Root,
    Text,
    Track,
    plan_rule,
    roots_of,
    spans_of,
    tree_of,
)
from negbench.guidance.base import EMPTY, POSITIVE, Branch, Rule, Step, negative
from negbench.guidance.binding import bind
from negbench.types import ImageRequest, Negative, embedding_place

BOUND_RULES = 4096
"""Pairs of guidance and negatives whose bound rules are kept."""


@dataclass(frozen=True)
class Bound:
    """What a request's guidance comes to.

    Attributes:
        rule: bound to scale and weights.
        negatives: as the rule takes them.
        group: equal for requests whose rules are equal in all but the texts.
        course: what the rule does call by call.
    """

    rule: Rule
    negatives: tuple[Negative, ...]
    group: tuple[Any, ...]
    course: Course


class Reader:
    """Reads requests for one pipeline and one schedule.

    Args:
        pipeline: the inspected files.
        schedule: the model calls.

    Attributes:
        calls: number of model calls.
        embeddings: by digest, those that negatives may name.
    """

    def __init__(self, pipeline: Pipeline, schedule: Schedule) -> None:
        self.pipeline = pipeline
        self.schedule = schedule
        self.calls = schedule.calls()
        self.embeddings: dict[str, Embedding] = {}
        self._bound: OrderedDict[tuple[str, tuple[Negative, ...]], Bound] = OrderedDict()

    @property
    def empty(self) -> Text:
        """The empty prompt: "" unless the pipeline takes no text for it."""
        return None if self.pipeline.zeros_for_empty else ""

    def take_embedding(self, embedding: Embedding) -> None:
        """Keep an embedding that fits the model's text encoders."""
        check_embedding(embedding, self.pipeline)
        self.embeddings[embedding.digest] = embedding

    def step(self, index: int) -> Step:
        """A model call as rules are asked about it while planning, without noise levels."""
        return Step(index, self.calls, 0.0, 0.0, self.schedule.space)

    def bind(self, request: ImageRequest) -> Bound:
        """The rule of a request, bound to its negatives.

        Raises:
            ConfigError: an unknown rule, or one that cannot take the negatives.
        """
        key = (request.guidance.canonical().decode(), request.treatment.negatives)
        bound = self._bound.get(key)
        if bound is None:
            rule, taken = bind(request.guidance, request.treatment.negatives)
            course = plan_rule(rule, (self.step(i) for i in range(self.calls)))
            bound = Bound(rule, taken, (key[0], rule.weights), course)
            self._bound[key] = bound
            if len(self._bound) > BOUND_RULES:
                self._bound.popitem(last=False)
        return bound

    def texts(self, request: ImageRequest, bound: Bound) -> dict[Branch, Text]:
        """What each branch that `bound`, the request's rule, asks for is conditioned on."""
        texts: dict[Branch, Text] = {POSITIVE: request.treatment.prompt, EMPTY: self.empty}
        for number, item in enumerate(bound.negatives):
            texts[negative(number)] = self.text(item)
        return {branch: texts[branch] for branch in bound.course.branches}

    def text(self, item: Negative) -> Text:
        """What a negative conditions the networks on.

        Raises:
            MissingError: it names an embedding that was not given.
            ConfigError: an embedding of a whole prompt, joined to other words.
        """
        if item.embedding is None:
            return item.text
        known = self.embeddings.get(item.embedding)
        if known is None:
            raise MissingError(
                f"generator {self.pipeline.source.spec} was not given the embedding "
                f"{embedding_place(item.embedding)} of a negative; give it to take_embedding first"
            )
        if known.whole and item.text.strip() != known.place:
            raise ConfigError(
                f"embedding {known.source} takes the place of a whole negative prompt, and the "
                "guidance rule joins other words to it; take one that keeps negatives apart"
            )
        return Embedded(item.text, item.embedding)

    def track(self, request: ImageRequest) -> Track[ImageRequest]:
        """A request's way from noise to picture."""
        bound = self.bind(request)
        return Track(request, spans_of(bound.rule, bound.course, self.texts(request, bound)))

    def roots(self, requests: Sequence[ImageRequest], *, share: bool) -> list[Root[ImageRequest]]:
        """Trees of requests that begin alike, of one noise and prompt; or one a request."""

        def tree(place: int, request: ImageRequest) -> Hashable:
            return tree_of(request) if share else place

        return roots_of(
            ((tree(*pair), pair[1].seed, pair[1]) for pair in enumerate(requests)), self.track
        )
