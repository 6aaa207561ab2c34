"""Who says whether a concept is visible: judges by name.

judge = build_judge("miniature")
verdicts = ask(judge, [Question(image=digest, pixels=pixels, concept="glasses")])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from negbench.registry import Registry

if TYPE_CHECKING:
    from negbench.judges.base import Box, Comparison, Judge, Mask, Question, Verdict

judges: Registry[Judge] = Registry(
    "judge",
    group="negbench.judges",
    base="negbench.judges.base:Judge",
    builtins={
        "miniature": (
            "negbench.judges.miniature:MiniatureJudge",
            "the miniature's own classifier of parts, attributes and defects",
        ),
        "clip": (
            "negbench.judges.clip:ClipJudge",
            "zero-shot with a CLIP: a text with the concept against one without",
        ),
        "detector": (
            "negbench.judges.detector:DetectorJudge",
            "an open-vocabulary detector: OWLv2, OWL-ViT or Grounding DINO; gives boxes",
        ),
        "vlm": (
            "negbench.judges.vlm:VlmJudge",
            "a vision language model: an OpenAI-compatible endpoint, or one of transformers",
        ),
        "labels": (
            "negbench.judges.labels:LabelsJudge",
            "people: verdicts from a CSV file, as `negbench label` writes them",
        ),
    },
)


def build_judge(name: str, params: Mapping[str, Any] | None = None) -> Judge:
    """A judge by name with checked parameters, ready to be asked.

    Raises:
        UnknownNameError: no such judge, or no such parameter.
        ConfigError: a parameter does not fit.
        MissingError: weights, a key or a file are not at hand.
    """
    judge = make_judge(name, params)
    judge.check()
    return judge


def make_judge(name: str, params: Mapping[str, Any] | None = None) -> Judge:
    """A judge by name with checked parameters; whether its weights are at hand is not checked."""
    from negbench.params import build_config

    cls = judges.get(name)
    judge = cls(build_config(cls.Config, params or {}, owner=f"judge {name}"))
    judge.name = name
    return judge


def __getattr__(name: str) -> Any:
    """The types of `negbench.judges.base`, once somebody asks: they bring numpy and pydantic."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from negbench.judges import base

    return getattr(base, name)


__all__ = [
    "Box",
    "Comparison",
    "Judge",
    "Mask",
    "Question",
    "Verdict",
    "build_judge",
    "judges",
    "make_judge",
]
