"""What a model in training writes: batches, samples, the likeliest text, and their log-chances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from negbench.methods.texts import tidied
from negbench.train.base_model import start_token

MAX_PROMPT = 512
"""Longest prompt in tokens, where the tokenizer names no shorter limit."""
IGNORED = -100


@dataclass
class Batch:
    """Prompts and targets as padded tensors.

    Attributes:
        ids: int64 (n, prompt tokens).
        mask: int64, same shape; 1 where there is a token.
        labels: int64 (n, target tokens); `IGNORED` where there is none.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    @property
    def n_tokens(self) -> int:
        """Target tokens."""
        return int((self.labels != IGNORED).sum())


@dataclass
class Written:
    """Texts that a model wrote, with their tokens.

    Attributes:
        texts: decoded and tidied: each tag once.
        raw: decoded only.
        tokens: int64 (n, longest), `IGNORED` after the end token.
        ended: whether each text ended by itself.
    """

    texts: list[str]
    raw: list[str]
    tokens: torch.Tensor
    ended: list[bool]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text, the end token included."""
        return [int(n) for n in (self.tokens != IGNORED).sum(dim=1)]


class Pen:
    """A model in training with its tokenizer: reads prompts, writes and weighs negatives.

    Args:
        model: a transformers encoder-decoder model.
        tokenizer: its tokenizer.
        device: where the model is.
    """

    def __init__(self, model: Any, tokenizer: Any, *, device: torch.device) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.device = device
        start = start_token(model)
        assert start is not None  # `load_base` refuses a model without one
        self._start = start
        self._known = len(tokenizer)

    def read(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask of prompts, int64 (n, longest); beyond the model's context they are cut."""
        limit = min(int(self.tokenizer.model_max_length), MAX_PROMPT)
        found = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=limit, return_tensors="pt"
        )
        return found["input_ids"].to(self.device), found["attention_mask"].to(self.device)

    def batch(self, prompts: Sequence[str], negatives: Sequence[str], *, longest: int) -> Batch:
        """Prompts and targets; targets beyond `longest` tokens are cut."""
        ids, mask = self.read(prompts)
        found = self.tokenizer(
            text_target=list(negatives), padding=True, truncation=True, max_length=longest,
            return_tensors="pt",
        )  # fmt: skip
        labels = found["input_ids"].to(self.device)
        shown = found["attention_mask"].to(self.device)
        return Batch(ids, mask, labels.masked_fill(shown == 0, IGNORED))

    def log_chances(self, batch: Batch, *, temperature: float = 1.0) -> torch.Tensor:
        """Log-probability of every known token at every target position, (n, tokens, known)."""
        decoder = batch.labels.new_full(batch.labels.shape, self.tokenizer.pad_token_id)
        decoder[:, 1:] = batch.labels[:, :-1].masked_fill(
            batch.labels[:, :-1] == IGNORED, self.tokenizer.pad_token_id
        )
        decoder[:, 0] = self._start
        logits = self.model(
            input_ids=batch.ids, attention_mask=batch.mask, decoder_input_ids=decoder,
            use_cache=False,
        ).logits  # fmt: skip
        known = logits[..., : self._known].float()
        return torch.log_softmax(known / temperature, dim=-1)

    @torch.no_grad()
    def write(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        seed: int | None = None,
        temperature: float = 1.0,
    ) -> Written:
        """One text a prompt: the likeliest token each time, or a sample.

        Args:
            prompts: equal ones may stand several times.
            max_new_tokens: longest text.
            seed: of sampling, by inverting the cumulative chances; None for the likeliest token.
            temperature: divides the logits before sampling.
        """
        from transformers import DynamicCache, EncoderDecoderCache

        ids, mask = self.read(prompts)
        encoded = self.model.get_encoder()(input_ids=ids, attention_mask=mask)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        generator = None if seed is None else torch.Generator("cpu").manual_seed(seed)
        end = self.tokenizer.eos_token_id
        last = ids.new_full((len(ids), 1), self._start)
        done = torch.zeros(len(ids), dtype=torch.bool, device=self.device)
        columns: list[torch.Tensor] = []
        for _ in range(max_new_tokens):
            out = self.model(
                encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=last,
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
            logits = out.logits[:, -1, : self._known].float()
            if generator is None:
                token = logits.argmax(dim=-1)
            else:
                chances = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
                drawn = torch.rand((len(ids), 1), generator=generator, dtype=torch.float64)
                aim = drawn.to(self.device) * chances[:, -1:]
                token = torch.searchsorted(chances, aim, right=True).squeeze(1)
                token = token.clamp_max(self._known - 1)
            columns.append(token.masked_fill(done, IGNORED))
            done = done | (token == end)
            if bool(done.all()):
                break
            last = token.masked_fill(done, self.tokenizer.pad_token_id).unsqueeze(1)
        tokens = torch.stack(columns, dim=1)
        raw = [
            str(self.tokenizer.decode([t for t in row if t != IGNORED], skip_special_tokens=True))
            for row in tokens.tolist()
        ]
        return Written([tidied(text) for text in raw], raw, tokens, done.tolist())
