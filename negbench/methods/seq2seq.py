"""Write with a sequence-to-sequence model, so that batch-mates change nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.utils import logging

from negbench.errors import ConfigError, NegbenchError, one_line
from negbench.methods.checkpoint import Checkpoint

ROWS = 16
"""Prompts in a batch; a smaller batch is filled up, so that every call has one shape."""

WIDTH = 32
"""Prompts are padded to the next multiple of this many tokens."""

MAX_INPUT = 512
"""Longest prompt in tokens, where the tokenizer names no shorter limit."""


class Writer:
    """A loaded model with its tokenizer and one way of decoding.

    Args:
        checkpoint: an inspected checkpoint.
        decode: ``beam``, ``sample`` or ``greedy``.
        num_beams: beams of beam search.
        max_new_tokens: longest answer.
        temperature: divides the logits before sampling.
        top_p: smallest set of tokens with this probability is sampled from.

    Raises:
        ConfigError: the files are there but make no working model.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        decode: str,
        num_beams: int,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
    ) -> None:
        self._spec = checkpoint.spec
        self._sampling = decode == "sample"
        self._temperature, self._top_p = temperature, top_p
        with _refusing(self._spec), _quiet():
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                checkpoint.folder, local_files_only=True, trust_remote_code=False
            )
            self._model, info = AutoModelForSeq2SeqLM.from_pretrained(
                checkpoint.folder,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        missing = sorted(info.get("missing_keys") or ())
        if missing:
            raise ConfigError(
                f"method negopt: checkpoint={self._spec} lacks {len(missing)} of the model's "
                f"weights (first: {missing[0]}); copy or fetch the whole checkpoint"
            )
        self._model = self._model.float().eval()
        rows = self._model.get_input_embeddings().num_embeddings
        if len(self._tokenizer) > rows:
            raise ConfigError(
                f"method negopt: checkpoint={self._spec}: the tokenizer has "
                f"{len(self._tokenizer)} tokens but the model {rows}; they do not belong together"
            )
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        given = self._model.generation_config
        config = self._model.config
        self._generation = GenerationConfig(
            max_new_tokens=max_new_tokens,
            num_beams=num_beams if decode == "beam" else 1,
            do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=_first(given.eos_token_id, config.eos_token_id),
            bos_token_id=_first(given.bos_token_id, getattr(config, "bos_token_id", None)),
            decoder_start_token_id=_first(
                given.decoder_start_token_id, getattr(config, "decoder_start_token_id", None)
            ),
            forced_bos_token_id=given.forced_bos_token_id,
            forced_eos_token_id=given.forced_eos_token_id,
        )

    def write(self, texts: Sequence[str], *, seeds: Sequence[int]) -> list[str]:
        """One answer a text.

        Args:
            texts: what the model reads; a text beyond its context is cut.
            seeds: of sampling, one a text; other ways of decoding do not use them.
        """
        tokens = [self._encode(text) for text in texts]
        by_width: dict[int, list[int]] = {}
        for i, row in enumerate(tokens):
            by_width.setdefault(-(-max(len(row), 1) // WIDTH) * WIDTH, []).append(i)
        batches = [
            (width, members[at : at + ROWS])
            for width, members in sorted(by_width.items())
            for at in range(0, len(members), ROWS)
        ]
        answers = [""] * len(texts)
        with _refusing(self._spec), _quiet():
            for width, members in _shown(batches):
                rows = [tokens[i] for i in members]
                chosen = [seeds[i] for i in members]
                for i, text in zip(members, self._batch(rows, chosen, width), strict=True):
                    answers[i] = text
        return answers

    def _encode(self, text: str) -> list[int]:
        limit = min(int(self._tokenizer.model_max_length), MAX_INPUT)
        found = self._tokenizer(text, truncation=True, max_length=limit)
        return list(found["input_ids"])

    def _batch(self, rows: list[list[int]], seeds: list[int], width: int) -> list[str]:
        filled = rows + [rows[0]] * (ROWS - len(rows))
        ids = torch.full((ROWS, width), self._tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros((ROWS, width), dtype=torch.long)
        for i, row in enumerate(filled):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[i, : len(row)] = 1
        processors = LogitsProcessorList([_KnownTokens(len(self._tokenizer))])
        if self._sampling:
            if self._temperature != 1.0:
                processors.append(TemperatureLogitsWarper(self._temperature))
            if self._top_p < 1.0:
                processors.append(TopPLogitsWarper(self._top_p))
            processors.append(_Gumbel(seeds + [0] * (ROWS - len(seeds))))
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._generation,
                logits_processor=processors,
                **self._cache(),
            )
        texts = self._tokenizer.batch_decode(out[: len(rows)], skip_special_tokens=True)
        return [str(text) for text in texts]

    def _cache(self) -> dict[str, Any]:
        """A growing cache for decoders deeper or shallower than their encoder (T5).

        transformers makes its own with as many layers as the *encoder* has.
        """
        encoder = getattr(self._model.config, "num_layers", None)
        decoder = getattr(self._model.config, "num_decoder_layers", encoder)
        if encoder == decoder:
            return {}
        return {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())}


class _KnownTokens(LogitsProcessor):  # type: ignore[misc]
    """Forbid ids that the model has and the tokenizer does not (T5 pads its vocabulary)."""

    def __init__(self, known: int) -> None:
        self._known = known

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if scores.shape[-1] <= self._known:
            return scores
        beyond = torch.arange(scores.shape[-1]) >= self._known
        return scores.masked_fill(beyond, -torch.inf)


class _Gumbel(LogitsProcessor):  # type: ignore[misc]
    """Turn the largest score into a draw from the softmax, each row with its own generator."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tiny = torch.finfo(torch.float64).tiny
        noise = torch.stack(
            [
                torch.rand(scores.shape[-1], generator=generator, dtype=torch.float64)
                for generator in self._generators
            ]
        )
        noise = -torch.log(-torch.log(noise.clamp_min(tiny)))
        return (scores.double() + noise).to(torch.float64)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


@contextlib.contextmanager
def _refusing(spec: str) -> Iterator[None]:
    """Whatever a foreign checkpoint makes transformers raise, in one line."""
    try:
        yield
    except NegbenchError:
        raise
    except Exception as error:
        raise ConfigError(
            f"method negopt: checkpoint={spec} does not work as a sequence-to-sequence model: "
            f"{type(error).__name__}: {one_line(str(error), limit=250)}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own messages and bars off the terminal."""
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _shown(batches: list[tuple[int, list[int]]]) -> Iterator[tuple[int, list[int]]]:
    """The batches, with a progress bar on stderr if that is a terminal and there are several."""
    if len(batches) < 2 or not sys.stderr.isatty():
        yield from batches
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(batches, description="writing negatives", console=console, transient=True)
