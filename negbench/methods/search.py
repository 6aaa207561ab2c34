"""Search the tags of the training split for the list that the reward likes best.

After DPO-Diff (2407.01606, ICML 2024), which searches a discrete space of negative prompts for one
prompt at a time: slow and strong. What differs here: DPO-Diff follows gradients through the
sampler (a shortcut text gradient) and, in its hybrid form, lets an evolution polish; this search
is evolution alone, so that it needs pictures and no gradients. Its space is the tags of the
training split in place of a fixed library of human negatives or antonyms, and its aim is NegOpt's
reward in place of a spherical CLIP loss. Its budget is counted in images, on noises that are never
the benchmark's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from negbench.adaptive import AdaptiveMethod, Tried
from negbench.errors import ConfigError, MissingError
from negbench.methods.texts import joined, tags_of, training_pairs
from negbench.types import Case, canonical_json, sha256_hex

if TYPE_CHECKING:
    import numpy as np

    from negbench.reward.terms import Reward

PARENTS = 3


class Search(AdaptiveMethod):
    """Evolution over the tags of the training split against a frozen reward (after 2407.01606).

    The first round tries the most popular tags and random lists; later rounds change the best lists
    found so far by a tag added, dropped or exchanged, or by crossing two of them.
    """

    uses_training = True

    class Config(BaseModel):
        """Reward, space and budget."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        reward: str = Field(
            min_length=1,
            description="checkpoint of `train negopt --stage rl` (or its negbench.json) whose "
            "frozen reward is searched with",
        )
        images: int = Field(default=48, ge=1, description="most images drawn a prompt")
        noises: int = Field(default=2, ge=1, le=64, description="noises a list is tried on")
        population: int = Field(default=8, ge=2, le=256, description="lists tried in a round")
        vocabulary: int = Field(default=80, ge=2, description="most frequent tags that take part")
        longest: int = Field(default=12, ge=1, le=64, description="most tags of a list")
        seed: int = Field(default=0, ge=0, description="of the evolution")

    @property
    def _settings(self) -> Search.Config:
        assert isinstance(self.config, Search.Config)
        return self.config

    def check(self) -> None:
        """Refuse without training pairs, without a reward, or with a budget below one trial."""
        training_pairs(self, name="search")
        if self._settings.images < self._settings.noises:
            raise ConfigError(
                f"method search: images={self._settings.images} is less than one list on "
                f"{self._settings.noises} noises"
            )
        self.reward()

    def identity(self) -> dict[str, str]:
        """The frozen reward."""
        return {"reward": self.reward().digest()}

    def ref(self, name: str) -> Any:
        """The identity: the reward is known by what it says, not by where it lies."""
        ref = super().ref(name)
        params = {key: value for key, value in ref.params.items() if key != "reward"}
        return ref.model_copy(update={"params": params})

    @cached_property
    def _reward(self) -> Reward:
        from negbench.methods.checkpoint import locate
        from negbench.reward.terms import read_reward

        path = Path(self._settings.reward).expanduser()
        if not path.exists():
            try:
                path = locate(self._settings.reward)
            except MissingError as error:
                raise MissingError(
                    f"method search: reward={self._settings.reward}: there is no such checkpoint; "
                    "give one that `negbench train negopt --stage rl` wrote"
                ) from error
        return read_reward(path)

    def reward(self) -> Reward:
        """The reward of the checkpoint."""
        return self._reward

    def noises(self) -> int:
        """Noises a list."""
        return self._settings.noises

    def budget(self) -> int:
        """Images a prompt."""
        return self._settings.images

    @cached_property
    def _space(self) -> tuple[list[str], Any]:
        """The most frequent tags and their shares."""
        import numpy as np

        counts = Counter(
            tag
            for pair in training_pairs(self, name="search")
            for tag in set(tags_of(pair.negative))
        )
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ranked = ranked[: self._settings.vocabulary]
        shares = np.array([count for _, count in ranked], dtype=np.float64)
        return [tag for tag, _ in ranked], shares / shares.sum()

    def propose(self, case: Case, history: Sequence[Tried]) -> list[str]:
        """The first lists, or children of the best."""
        import numpy as np

        settings = self._settings
        tags, shares = self._space
        word = canonical_json(["negbench-search", settings.seed, case.prompt, len(history)])
        rng = np.random.default_rng(int(sha256_hex(word)[:15], 16))
        if not history:
            sizes = rng.integers(1, settings.longest + 1, settings.population)
            drawn = [
                [tags[i] for i in rng.choice(len(tags), min(int(n), len(tags)), replace=False,
                                             p=shares)]
                for n in sizes[1:]
            ]  # fmt: skip
            return [joined(one) for one in (tags[: min(10, settings.longest)], *drawn)]
        ranked = sorted(history, key=lambda tried: -tried.reward)[:PARENTS]
        parents = [tags_of(tried.treatment.negative_text()) for tried in ranked]
        children = []
        for _ in range(settings.population):
            mother = parents[int(rng.integers(len(parents)))]
            child = self._changed(mother, parents, rng)
            children.append(joined(child[: settings.longest]))
        return [child for child in children if child]

    def _changed(
        self, mother: list[str], parents: list[list[str]], rng: np.random.Generator
    ) -> list[str]:
        tags, shares = self._space
        child = list(mother)
        kind = str(rng.choice(("add", "drop", "exchange", "cross"), p=(0.35, 0.2, 0.25, 0.2)))
        if kind in ("drop", "exchange") and len(child) > 1:
            child.pop(int(rng.integers(len(child))))
        if kind == "cross":
            father = parents[int(rng.integers(len(parents)))]
            child = [tag for tag in dict.fromkeys([*mother, *father]) if rng.random() < 0.6]
        if kind in ("add", "exchange") or not child:
            # half by frequency, half any tag: rare ones may be the right ones
            even = rng.random() < 0.5
            new = tags[int(rng.choice(len(tags), p=None if even else shares))]
            if new not in child:
                child.insert(int(rng.integers(len(child) + 1)), new)
        return child
