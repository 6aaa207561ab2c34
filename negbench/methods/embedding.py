"""A learned embedding as the negative prompt: a textual inversion, or a whole conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from negbench.embedding import Embedding, read_embedding
from negbench.errors import ConfigError
from negbench.methods.base import Method
from negbench.types import MAX_TEXT, Case, Negative, Ref, Treatment

PLACE = "{}"


class LearnedEmbedding(Method):
    """One learned embedding for every prompt: textual inversion (2208.01618), ReNeg (2412.19637).

    The vectors of a textual inversion take the places of tokens, with words around them where
    `text` has some. A whole conditioning takes the place of an encoded negative prompt.
    """

    class Config(BaseModel):
        """Which file, and the words around it."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        file: str = Field(
            min_length=1,
            description="safetensors: emb_params, one tensor by its token, or clip_l with clip_g "
            "(k, d); or a whole conditioning (1, L, d)",
        )
        text: str = Field(
            default=PLACE,
            max_length=MAX_TEXT - 100,
            description='the negative prompt, {} where the embedding goes: "{}, blurry"',
        )

        @field_validator("text")
        @classmethod
        def _has_place(cls, value: str) -> str:
            if value.count(PLACE) != 1:
                raise ValueError(f"the text has to hold {PLACE} once, where the embedding goes")
            return value

    @property
    def _settings(self) -> LearnedEmbedding.Config:
        assert isinstance(self.config, LearnedEmbedding.Config)
        return self.config

    @cached_property
    def _embedding(self) -> Embedding:
        spec = self._settings.file
        return read_embedding(Path(spec).expanduser(), source=spec)

    def check(self) -> None:
        """Refuse a file that cannot be used, and words around a whole conditioning."""
        found = self._embedding
        if found.whole and self._settings.text.strip() != PLACE:
            raise ConfigError(
                f"method embedding: {found.source} is {found.describe()}, which takes the place of "
                "all words; leave text= out"
            )

    def embeddings(self) -> list[Embedding]:
        """The one of the file."""
        return [self._embedding]

    def identity(self) -> dict[str, str]:
        """Digest of the vectors."""
        return {"embedding": self._embedding.digest}

    def ref(self, name: str) -> Ref:
        """The identity: an embedding is known by its vectors, not by where they lie."""
        ref = super().ref(name)
        params = {key: value for key, value in ref.params.items() if key != "file"}
        return ref.model_copy(update={"params": params})

    def notes(self, cases: Sequence[Case]) -> list[str]:
        """What stands behind the place in the texts."""
        found = self._embedding
        return [f"embedding: {found.place} is {found.source}, {found.describe()}"]

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """The same negative for every case."""
        found = self._embedding
        text = self._settings.text.strip().replace(PLACE, found.place)
        negative = Negative(text=text, embedding=found.digest)
        return [Treatment(prompt=case.prompt, negatives=(negative,)) for case in cases]
