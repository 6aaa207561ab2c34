"""A generator without a model: pixels from the request's digest, for tests of the machinery."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from negbench.embedding import Embedding
from negbench.errors import NegbenchError
from negbench.generators.base import Drawn, Generator, RunOptions
from negbench.guidance.binding import bind
from negbench.guidance.effect import refuse_ignored
from negbench.types import Guidance, ImageRequest, Negative, Ref


class FakeGenerator(Generator):
    """Noise that depends on the request alone; loads nothing, not even torch."""

    class Config(BaseModel):
        """Size and schedule, and how to misbehave in a test; the last two are no identity."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        size: int = Field(default=64, ge=8, le=4096, description="height and width in pixels")
        steps: int = Field(default=25, ge=1, le=1000, description="model calls of the schedule")
        delay: float = Field(default=0.0, ge=0, le=60, description="seconds to wait for each image")
        fail_at: int | None = Field(
            default=None, ge=0, description="fail in place of the image with this number"
        )

    def __init__(
        self, config: BaseModel | None = None, *, options: RunOptions | None = None
    ) -> None:
        self.config = config if isinstance(config, FakeGenerator.Config) else self.Config()
        self.options = options or RunOptions()

    def ref(self) -> Ref:
        """The size and the schedule."""
        params = self.config.model_dump(mode="json", exclude={"delay", "fail_at"})
        return Ref(name="fake", version=self.version, params=params)

    def default_guidance(self) -> Guidance:
        """Plain guidance at 7.5."""
        return Guidance(kind="cfg", scale=7.5)

    def check_guidance(self, guidance: Guidance) -> None:
        """As a real generator of the first family would."""
        rule, _ = bind(guidance, ())
        rule.check(family="sd", space="epsilon", total=self.config.steps)

    def refuse_ignored(self, guidance: Guidance, negatives: Sequence[Negative]) -> None:
        """As a real generator would."""
        refuse_ignored(guidance, negatives, total=self.config.steps, where="generator fake")

    def take_embedding(self, embedding: Embedding) -> None:
        """Any: a request's digest has the embedding's in it."""

    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.config.size, self.config.size

    def evaluations(self, request: ImageRequest) -> int:
        """What a real generator would spend."""
        rule, _ = bind(request.guidance, request.treatment.negatives)
        return rule.count(self.config.steps)

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Drawn]:
        """Draw in the order given.

        Raises:
            NegbenchError: at image ``fail_at``.
        """
        size = self.config.size
        for number, request in enumerate(requests):
            if number == self.config.fail_at:
                raise NegbenchError(f"the fake generator was asked to fail at image {number}")
            if self.config.delay:
                time.sleep(self.config.delay)
            key = request.key()
            noise = hashlib.shake_256(bytes.fromhex(key)).digest(size * size * 3)
            pixels = np.frombuffer(noise, dtype=np.uint8).reshape(size, size, 3)
            yield Drawn(key=key, pixels=pixels, evaluations=self.evaluations(request))

    def describe(self) -> dict[str, JsonValue]:
        """Nothing was loaded."""
        return {"name": "fake", "device": "cpu"}
