"""Another user's negative prompt: what a text does that was not written for the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from negbench.errors import DataError
from negbench.methods.base import Method, Pair
from negbench.methods.texts import tags_of, training_pairs, treatment
from negbench.types import Case, Treatment, canonical_json, sha256_hex

TRIES = 1_000


class Placebo(Method):
    """A negative prompt that another user wrote for another prompt, drawn at random by seed.

    Popular texts are drawn as often as they were written. A case's own negative prompt, in
    whatever order its tags stand, is never drawn for it.
    """

    uses_training = True

    def check(self) -> None:
        """Refuse a benchmark without training pairs."""
        training_pairs(self, name="placebo")

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """Another user's negative for each case, by hash of seed and case id."""
        pairs = sorted(training_pairs(self, name="placebo"), key=lambda pair: pair.id)
        return [treatment(case, _drawn(case, pairs, seed=seed)) for case in cases]


def _drawn(case: Case, pairs: Sequence[Pair], *, seed: int) -> str:
    own = set(tags_of(case.negative or ""))
    refused: set[str] = set()
    for attempt in range(TRIES):
        text = canonical_json(["negbench-placebo", 1, seed, case.id, attempt])
        pair = pairs[int(sha256_hex(text)[:16], 16) % len(pairs)]
        if pair.prompt == case.prompt or pair.id == case.id or pair.negative in refused:
            continue
        tags = set(tags_of(pair.negative))
        if tags and tags != own:
            return pair.negative
        refused.add(pair.negative)
    raise DataError(
        f"method placebo: the training split has no other negative prompt for case {case.id!r}; "
        "use a data set with more than one"
    )
