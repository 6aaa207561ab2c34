"""A sequence-to-sequence model writes the negative prompt (NegOpt, arXiv 2403.07605).

The model reads the prompt and writes tags. It runs on the CPU in float32, in batches of one fixed
padded shape, so that the answer for a prompt does not depend on the prompts beside it. Sampling
adds Gumbel noise from a generator of the case's own to the filtered logits and takes the largest,
which is the same as drawing from their softmax (Maddison et al., arXiv 1411.0030).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from negbench.methods.base import Method
from negbench.methods.checkpoint import MINIATURE, Checkpoint, fetch, inspect
from negbench.methods.texts import tidied, treatment
from negbench.types import Case, Ref, Treatment, canonical_json, sha256_hex


class NegOpt(Method):
    """A seq2seq model reads the prompt and writes the negative prompt (arXiv 2403.07605)."""

    cacheable = True

    class Config(BaseModel):
        """Which model, and how it writes."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        checkpoint: str = Field(
            default=MINIATURE,
            min_length=1,
            description="model folder, hub repo org/name[@revision], miniature (by imitation), or "
            "miniature-rl (by reward after)",
        )
        decode: Literal["beam", "sample", "greedy"] = Field(
            default="beam", description="beam search, sampling by seed, or the likeliest token"
        )
        num_beams: int = Field(default=4, ge=2, le=32, description="beams, with decode=beam")
        max_new_tokens: int = Field(
            default=96, ge=1, le=512, description="longest answer, in tokens of the model"
        )
        temperature: float = Field(
            default=1.0, ge=0.05, le=10.0, description="of sampling, with decode=sample"
        )
        top_p: float = Field(
            default=1.0, gt=0.0, le=1.0, description="nucleus of sampling, with decode=sample"
        )
        prefix: str = Field(
            default="", max_length=500, description="text the model wants before the prompt"
        )

        @model_validator(mode="after")
        def _of_this_decoder(self) -> Self:
            if self.decode != "sample" and (self.temperature != 1.0 or self.top_p != 1.0):
                raise ValueError("temperature and top_p need decode=sample")
            if self.decode != "beam" and self.num_beams != 4:
                raise ValueError("num_beams needs decode=beam")
            return self

    def __init__(self, config: BaseModel | None = None, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self._found: Checkpoint | None = None

    @property
    def _settings(self) -> NegOpt.Config:
        assert isinstance(self.config, NegOpt.Config)
        return self.config

    def _checkpoint(self) -> Checkpoint:
        if self._found is None:
            self._found = inspect(self._settings.checkpoint)
        return self._found

    def check(self) -> None:
        """Refuse a checkpoint that is not there, not whole, or not of the right kind."""
        self._checkpoint()

    def prefetch(self) -> None:
        """Fetch the checkpoint's config, tokenizer and safetensors from the hub."""
        fetch(self._settings.checkpoint)

    def identity(self) -> dict[str, str]:
        """Digest of the checkpoint's files."""
        return {"checkpoint": self._checkpoint().digest}

    def ref(self, name: str) -> Ref:
        """The identity: a checkpoint is known by its bytes, not by where they came from."""
        ref = super().ref(name)
        params = {key: value for key, value in ref.params.items() if key != "checkpoint"}
        return ref.model_copy(update={"params": params})

    def notes(self, cases: Sequence[Case]) -> list[str]:
        """Which checkpoint it was."""
        found = self._checkpoint()
        return [f"negopt: checkpoint {found.spec} ({found.digest[:12]})"]

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """What the model writes for each prompt, each tag once."""
        from negbench.methods.seq2seq import Writer

        settings = self._settings
        writer = Writer(
            self._checkpoint(),
            decode=settings.decode,
            num_beams=settings.num_beams,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
        written = writer.write(
            [settings.prefix + case.prompt for case in cases],
            seeds=[_seed(seed, case) for case in cases],
        )
        return [treatment(case, tidied(text)) for case, text in zip(cases, written, strict=True)]


def _seed(seed: int, case: Case) -> int:
    text = canonical_json(["negbench-negopt", 1, seed, case.id])
    return int(sha256_hex(text)[:15], 16)
