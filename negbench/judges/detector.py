"""Open-vocabulary detectors as judges: OWL-ViT, OWLv2 and Grounding DINO through transformers.

The score of a box is the sigmoid of the model's logit for the concept's text, its largest over the
text's tokens where there are several (Minderer et al. 2306.09683; Liu et al. 2303.05499). A picture
shows the concept as much as its best box does. Detectors' scores are no probabilities: useful
thresholds lie at 0.1 to 0.4. So that "visible" means the same for every judge, the logit is moved
to put the threshold at one half:

    P(visible) = sigmoid(logit(best score) - logit(threshold))
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from negbench.judges.base import Box, Question, Verdict
from negbench.judges.clip import SLOT, sigmoid
from negbench.judges.kept import KeptJudge
from negbench.judges.transformers_files import ModelFiles, choose_device
from negbench.metrics.base import Pixels
from negbench.metrics.clip import is_blank
from negbench.metrics.networks import check_pixels

FAMILIES = ("owlv2", "owlvit", "grounding-dino", "mm-grounding-dino")
GROUNDED = ("grounding-dino", "mm-grounding-dino")
"""Families that read a caption of phrases, lower case and each ended by a full stop."""

TEMPLATES = {"owlv2": "a photo of a {}", "owlvit": "a photo of a {}"}
THRESHOLDS = {"owlv2": 0.2, "owlvit": 0.1}
"""Where nothing is given: the scores from which boxes are usually kept; 0.3 for the others."""

ARTICLES = ("a", "an", "the")
TINY = 1e-9


class DetectorJudge(KeptJudge):
    """An open-vocabulary detector: P = sigmoid(logit(best box) - logit(threshold)).

    OWL-ViT, OWLv2 or Grounding DINO (and MM Grounding DINO) of transformers, from safetensors only.
    Gives boxes: all whose score reaches the threshold. Good for things, poor for styles and
    qualities: `negbench calibrate-judge` shows which by category.
    """

    gives_region: ClassVar[bool] = True
    network_fields: ClassVar[tuple[str, ...]] = ("model",)

    class Config(BaseModel):
        """Which model, and from which score on a concept is seen."""

        model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

        model: str = Field(
            default="google/owlv2-base-patch16-ensemble",
            description="a folder or a hub repo org/name[@revision]: OWLv2, OWL-ViT or Grounding "
            "DINO, for example IDEA-Research/grounding-dino-tiny",
        )
        threshold: float | None = Field(
            default=None,
            gt=0,
            lt=1,
            description="score from which on a box counts; 0.2 for OWLv2, 0.1 for OWL-ViT, 0.3 for "
            "Grounding DINO unless given",
        )
        template: str | None = Field(
            default=None,
            description="text to look for, {} is the concept; 'a photo of a {}' for OWL-ViT and "
            "OWLv2, the concept alone for Grounding DINO unless given",
        )

        @field_validator("template")
        @classmethod
        def _names_the_concept(cls, text: str | None) -> str | None:
            if text is not None and SLOT not in text:
                raise ValueError("needs {} where the concept goes")
            return text

    def _config(self) -> DetectorJudge.Config:
        assert isinstance(self.config, DetectorJudge.Config)
        return self.config

    @cached_property
    def files(self) -> ModelFiles:
        """The model's files."""
        return ModelFiles.of_judge("detector", self._config().model)

    def check(self) -> None:
        """Refuse if the model is not at hand, torn, or of another family."""
        self.files.check(FAMILIES)

    def prefetch(self) -> None:
        """Fetch the model into the Hugging Face cache."""
        self.files.fetch()

    def weight_digests(self) -> Sequence[str]:
        """The model's digest: weights, configs and tokenizer."""
        return (self.files.digest(),)

    @cached_property
    def family(self) -> str:
        """The model's architecture, one of `FAMILIES`."""
        return self.files.model_type()

    @property
    def threshold(self) -> float:
        """The score at which P is one half."""
        return self._config().threshold or THRESHOLDS.get(self.family, 0.3)

    def text_of(self, concept: str) -> str:
        """What the model is asked to look for."""
        template = self._config().template or TEMPLATES.get(self.family, SLOT)
        words = concept.split()
        if len(words) > 1 and words[0].lower() in ARTICLES:
            words = words[1:]
        text = template.replace(SLOT, " ".join(words))
        if self.family in GROUNDED:
            return text.replace(".", " ").strip().lower() + "."
        return text

    @cached_property
    def parts(self) -> tuple[Any, Any]:
        """Model (float32, evaluation mode, on the device) and processor."""
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        processor = self.files.load(AutoProcessor)
        model = self.files.load(AutoModelForZeroShotObjectDetection, use_safetensors=True)
        place = choose_device(self.device)
        return model.float().eval().requires_grad_(False).to(place), processor

    def answers(
        self, questions: Sequence[Question]
    ) -> Iterator[tuple[int, Verdict, Mapping[str, Any]]]:
        """One pass of the model a question: answers never depend on other questions."""
        for place, question in enumerate(questions):
            if is_blank(question.concept):
                yield place, Verdict.missing("the concept is empty"), {}
                continue
            if self._is_too_long(question.concept):
                yield place, Verdict.missing("the concept is too long for the detector"), {}
                continue
            scores, boxes = self.detect(question.pixels, question.concept)
            best = float(scores.max(initial=0.0))
            kept = [_as_box(box) for box in boxes[scores >= self.threshold]]
            logit = _logit(best) - _logit(self.threshold)
            yield place, Verdict.of(sigmoid(logit), boxes=kept), {"score": best}

    def _is_too_long(self, concept: str) -> bool:
        """Whether the text has more tokens than the model reads; nothing is cut silently."""
        model, processor = self.parts
        if self.family in GROUNDED:
            limit = model.config.max_text_len
        else:
            limit = model.config.text_config.max_position_embeddings
        return len(processor.tokenizer(self.text_of(concept))["input_ids"]) > int(limit)

    def detect(
        self, pixels: Pixels, concept: str
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scores (n,) and boxes (n, 4) of all the model's candidates.

        Boxes are left, top, right, bottom relative to the picture, cut to it.
        """
        import torch
        from PIL import Image

        model, processor = self.parts
        picture = Image.fromarray(np.ascontiguousarray(check_pixels(pixels)))
        text = self.text_of(concept)
        texts = text if self.family in GROUNDED else [[text]]
        inputs = processor(images=[picture], text=texts, return_tensors="pt")
        with torch.inference_mode():
            outputs = model(**inputs.to(model.device))
        logits = outputs.logits[0].double().amax(dim=-1).cpu().numpy()
        centre = outputs.pred_boxes[0].double().cpu().numpy()
        scores = 1.0 / (1.0 + np.exp(-np.clip(logits, -500, 500)))
        corners = np.concatenate(
            [centre[:, :2] - centre[:, 2:] / 2, centre[:, :2] + centre[:, 2:] / 2], axis=1
        )
        if self.family == "owlv2":  # pictures are filled up to a square, at the right or below
            height, width = pixels.shape[:2]
            side = max(height, width)
            corners *= np.array([side / width, side / height] * 2)
        return scores, np.clip(corners, 0.0, 1.0)


def _as_box(row: npt.NDArray[np.float64]) -> Box:
    left, top, right, bottom = (float(value) for value in row)
    return left, top, max(left, right), max(top, bottom)


def _logit(share: float) -> float:
    share = min(max(share, TINY), 1.0 - TINY)
    return math.log(share / (1.0 - share))
