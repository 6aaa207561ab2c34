"""What a method is: a plug-in that returns data and never calls a pipeline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from negbench.types import Case, Ref, Treatment

if TYPE_CHECKING:
    from negbench.embedding import Embedding


@dataclass(frozen=True)
class Pair:
    """One prompt with the negative prompt that a person wrote for it."""

    id: str
    prompt: str
    negative: str


class Training(Protocol):
    """The pairs a method may learn from: the training split of the benchmark's data set."""

    def pairs(self) -> Sequence[Pair]:
        """All training pairs, in a fixed order."""

    def digest(self) -> str:
        """sha256 over the pairs, part of the identity of every method that uses them."""


class Method(ABC):
    """WHAT the negative prompt says (and, if the method wants, how it acts).

    Subclasses name themselves, nest a typed `Config`, and turn cases into treatments. They are
    built once while planning, where `check` may refuse, and `treat` is called with all cases.
    """

    version: ClassVar[int] = 1
    uses_training: ClassVar[bool] = False
    """True if `treat` reads `self.training`."""
    cacheable: ClassVar[bool] = False
    """True if `ref` pins everything that decides the output, weights included, so that treatments
    may be kept between runs. A plug-in that is still being written should leave this False."""

    class Config(BaseModel):
        """The method's parameters: type, default, meaning."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(
        self, config: BaseModel | None = None, *, training: Training | None = None
    ) -> None:
        self.config = config if config is not None else self.Config()
        self.training = training

    def check(self) -> None:
        """Refuse while planning, with a NegbenchError, what could not work while running."""

    def identity(self) -> dict[str, str]:
        """Digests of the weights or files that decide the output, by name."""
        return {}

    def prefetch(self) -> None:
        """Fetch from the network what `check` would miss; called by `negbench prefetch` only."""

    def embeddings(self) -> Sequence[Embedding]:
        """The embeddings that its negatives name, given to the generator while planning."""
        return ()

    @abstractmethod
    def treat(self, cases: Sequence[Case], *, seed: int) -> Sequence[Treatment | str]:
        """One treatment a case, in the order of `cases`.

        A plain string stands for a treatment of the case's own prompt with that negative prompt,
        an empty one for no negative prompt.

        Args:
            cases: what to treat; `case.negative` and `case.concept` may be None.
            seed: for methods that draw at random; equal seeds give equal treatments, and the
                answer for a case must not depend on the other cases.
        """

    def notes(self, cases: Sequence[Case]) -> list[str]:
        """What a reader of the result should know, for example how many cases had no negative."""
        return []

    def ref(self, name: str) -> Ref:
        """Name, version, explicit parameters and digests: the method's identity."""
        params = self.config.model_dump(mode="json")
        identity = self.identity()
        if self.uses_training and self.training is not None:
            identity = {**identity, "training": self.training.digest()}
        return Ref(
            name=name,
            version=self.version,
            params={**params, **{f"sha256:{key}": value for key, value in identity.items()}},
        )
