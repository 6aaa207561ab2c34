"""An image-text model of transformers, asked by what it would say next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from negbench.errors import ConfigError
from negbench.judges.base import Verdict
from negbench.judges.transformers_files import ModelFiles, choose_device
from negbench.metrics.base import Pixels
from negbench.metrics.networks import check_pixels

LEAST_MASS = 0.1
"""Probability that the words asked for must have together, or the model answers something else."""

_TEMPLATES = ("chat_template.jinja", "chat_template.json")


class LocalModel:
    """A model that answers with the probabilities of its next word.

    Args:
        files: where it lies.
        device: where to compute.
    """

    def __init__(self, files: ModelFiles, device: str) -> None:
        self._files = files
        self._device = device

    @staticmethod
    def check(files: ModelFiles) -> None:
        """Refuse a model that is not at hand, torn, no image-text model, or has no chat template.

        Raises:
            MissingError: files are missing.
            ConfigError: the model cannot be asked.
        """
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KINDS,
        )

        files.check()
        kind = files.model_type()
        if kind not in KINDS:
            raise ConfigError(
                f"{files.owner}: {files.spec} is a {kind or 'model without a type'}, which "
                "transformers does not know as an image-text model; choose another"
            )
        if not any((files.folder / name).is_file() for name in _TEMPLATES) and not any(
            b'"chat_template"' in path.read_bytes() for path in files.folder.glob("*_config.json")
        ):
            raise ConfigError(
                f"{files.owner}: {files.spec} has no chat template, so it cannot be asked; choose "
                "an instruction-tuned model"
            )

    @cached_property
    def parts(self) -> tuple[Any, Any]:
        """Model (its own precision on a GPU, float32 on the CPU) and processor."""
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        processor = self._files.load(AutoProcessor)
        model = self._files.load(AutoModelForImageTextToText, use_safetensors=True)
        place = choose_device(self._device)
        if place == "cpu":
            model = model.to(torch.float32)
        return model.eval().requires_grad_(False).to(place), processor

    def _inputs(self, images: Sequence[Pixels], text: str) -> Any:
        from PIL import Image

        model, processor = self.parts
        content = [{"type": "image"} for _ in images] + [{"type": "text", "text": text}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        pictures = [Image.fromarray(np.ascontiguousarray(check_pixels(image))) for image in images]
        inputs = processor(images=pictures, text=prompt, return_tensors="pt")
        return inputs.to(device=model.device, dtype=model.dtype)

    def _tokens(self, word: str) -> set[int]:
        """First tokens of the ways to begin an answer with `word`."""
        tokenizer = self.parts[1].tokenizer
        forms = (word, word.capitalize(), f" {word}", f" {word.capitalize()}", word.upper())
        ids = [tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
        unknown = getattr(tokenizer, "unk_token_id", None)
        return {row[0] for row in ids if row and row[0] != unknown}

    def choose(
        self, images: Sequence[Pixels], text: str, words: tuple[str, str]
    ) -> tuple[float | None, str]:
        """Probability of the first word against the second as the next one, or None and why."""
        import torch

        first, second = (self._tokens(word) for word in words)
        first, second = first - second, second - first
        if not (first and second):
            return None, f"the model's tokenizer cannot tell {words[0]} from {words[1]}"
        model, _ = self.parts
        with torch.inference_mode():
            logits = model(**self._inputs(images, text)).logits[0, -1].double().cpu()
        mass = torch.softmax(logits, dim=-1).numpy()
        one, other = float(mass[sorted(first)].sum()), float(mass[sorted(second)].sum())
        if not one + other >= LEAST_MASS:
            return None, (
                f"the model would say neither {words[0]} nor {words[1]} ({one + other:.0%} of its "
                "probability)"
            )
        return one / (one + other), ""

    def presence(self, image: Pixels, concept: str) -> Verdict:
        """P(yes) / (P(yes) + P(no)) to the question whether the concept is visible."""
        text = (
            f'Is "{" ".join(concept.split())}" visible in this picture, in whole or in part? '
            "Answer with one word, yes or no."
        )
        value, why = self.choose([image], text, ("yes", "no"))
        return Verdict.missing(why) if value is None else Verdict.of(value)

    def closer(self, order: tuple[Pixels, Pixels, Pixels]) -> tuple[str | None, str]:
        """``second`` or ``third``, whichever the model would rather say, or None and why."""
        text = (
            "The first picture is the reference. Which of the other two differs less from it, the "
            "second or the third? Answer with one word, second or third."
        )
        value, why = self.choose(order, text, ("second", "third"))
        if value is None:
            return None, why
        return ("second" if value > 0.5 else "third"), ""

    def generate(self, images: Sequence[Pixels], text: str, max_tokens: int) -> str:
        """What the model says, always its likeliest next word."""
        import torch

        model, processor = self.parts
        inputs = self._inputs(images, text)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        fresh = out[:, inputs["input_ids"].shape[1] :]
        return str(processor.batch_decode(fresh, skip_special_tokens=True)[0])
