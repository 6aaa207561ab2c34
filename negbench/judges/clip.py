"""A CLIP as a judge: is the picture nearer to a text with the concept than to one without?

Zero-shot classification between two texts as in CLIP (2103.00020, section 3.1.2): with unit-length
vectors of the image i and the two texts, and the logit scale s that the CLIP was trained with,

    P(visible) = exp(s i.t_with) / (exp(s i.t_with) + exp(s i.t_plain))
               = sigmoid(s (i.t_with - i.t_plain) - shift)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from negbench.errors import ConfigError
from negbench.judges.base import Judge, Question, Verdict
from negbench.metrics import networks
from negbench.metrics.base import Network
from negbench.metrics.clip import is_blank

SLOT = "{}"


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)) without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    small = math.exp(logit)
    return small / (1.0 + small)


class ClipJudge(Judge):
    """Zero-shot with a CLIP: softmax over "a photo with {concept}" and "a photo".

    P = sigmoid(s (cos(image, with) - cos(image, plain)) - shift), s the CLIP's own logit scale
    (2103.00020, section 3.1.2). The plain text says nothing of the concept: a CLIP hardly reads
    "without" or "no". Give ``absent="a photo without {}"`` to try. How right it is, and the `shift`
    that would make it so, has to be measured: `negbench calibrate-judge`.
    """

    network_fields: ClassVar[tuple[str, ...]] = ("clip",)

    class Config(BaseModel):
        """Which CLIP, and the two texts."""

        model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

        clip: str = Field(
            default="miniature",
            description="miniature, <model>/<tag> of open_clip such as ViT-L-14/openai, "
            "hf-hub:<repo>[@revision] or local-dir:<folder>",
        )
        present: str = Field(
            default="a photo with {}", description="text of a picture that shows the concept {}"
        )
        absent: str = Field(
            default="a photo", description="text of one that does not; {} is the concept"
        )
        shift: float = Field(
            default=0.0, description="taken from the logit: where probability one half lies"
        )

        @field_validator("present")
        @classmethod
        def _names_the_concept(cls, text: str) -> str:
            if SLOT not in text:
                raise ValueError("needs {} where the concept goes")
            return text

        @field_validator("absent")
        @classmethod
        def _is_not_blank(cls, text: str) -> str:
            if is_blank(text):
                raise ValueError("must not be empty")
            return text

    def _config(self) -> ClipJudge.Config:
        assert isinstance(self.config, ClipJudge.Config)
        return self.config

    def _spec(self) -> str:
        return f"clip:{self._config().clip}"

    def networks(self) -> Mapping[str, Network]:
        """The CLIP."""
        return {self._spec(): networks.get(self._spec())}

    def _pair(self, concept: str) -> tuple[str, str]:
        config = self._config()
        return config.present.replace(SLOT, concept), config.absent.replace(SLOT, concept)

    def texts(self, concept: str) -> Sequence[tuple[str, str]]:
        """The two texts, or none if there is no concept."""
        return () if is_blank(concept) else [(self._spec(), text) for text in self._pair(concept)]

    def check(self) -> None:
        """Refuse if the CLIP is not at hand, or has no logit scale."""
        super().check()
        _ = self.scale

    def prefetch(self) -> None:
        """Fetch the CLIP into the Hugging Face cache."""
        from negbench.metrics.clip_network import fetch_clip

        fetch_clip(self._config().clip)

    @cached_property
    def scale(self) -> float:
        """The CLIP's logit scale: exp of the trained parameter (100 for OpenAI's).

        Raises:
            ConfigError: the weights have none.
        """
        import safetensors

        from negbench.metrics.clip_network import ClipNetwork

        network: Any = networks.get(self._spec())
        assert isinstance(network, ClipNetwork)
        with safetensors.safe_open(str(network.located.weights), framework="pt") as file:
            if "logit_scale" not in file.keys():  # noqa: SIM118 - the file is no mapping
                raise ConfigError(
                    f"CLIP {network.choice} has no logit_scale, so its cosines cannot be turned "
                    "into probabilities; choose another CLIP"
                )
            scale = math.exp(float(file.get_tensor("logit_scale").float().reshape(-1)[0]))
        if not 0 < scale < math.inf:
            raise ConfigError(f"CLIP {network.choice} has a logit scale of {scale}; choose another")
        return scale

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """The softmax over the two texts."""
        verdicts = []
        for question in questions:
            if is_blank(question.concept):
                verdicts.append(Verdict.missing("the concept is empty"))
                continue
            image = question.features[self._spec()].astype(np.float64)
            present, absent = (
                float(question.text_features[self._spec(), text].astype(np.float64) @ image)
                for text in self._pair(question.concept)
            )
            logit = self.scale * (present - absent) - self._config().shift
            if not math.isfinite(logit):
                verdicts.append(Verdict.missing("the CLIP's vectors are not finite"))
                continue
            verdicts.append(Verdict.of(sigmoid(logit)))
        return verdicts
