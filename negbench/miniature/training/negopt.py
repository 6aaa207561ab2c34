"""Fine-tune a small T5 on the miniature DB: the first NegOpt checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from negbench.miniature.captions import IDLE_WORDS, word_list
from negbench.miniature.training.loop import prepare, train_loop

STEPS = 900
BATCH = 64
MAX_TOKENS = 96
_PAD, _EOS, _UNK = _SPECIAL = ("<pad>", "</s>", "<unk>")
#: Likes beyond this count no more, so that a few pairs do not rule.
LIKES_CAP = 40


def build_negopt_tokenizer() -> Any:
    """Word-level tokenizer that keeps commas: tags stay apart in what T5 writes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({*word_list(), *(w for phrase in IDLE_WORDS for w in phrase.split())})
    vocab = {token: i for i, token in enumerate([*_SPECIAL, ",", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=_UNK))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocab["</s>"])]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_EOS,
        unk_token=_UNK,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def build_negopt(vocab_size: int) -> Any:
    """The untrained `T5ForConditionalGeneration`, about 1.3 M parameters."""
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocab_size,
            d_model=128,
            d_kv=32,
            d_ff=384,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=4,
            dropout_rate=0.1,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def train_negopt(*, out: Path, steps: int | None, resume: bool, seed: int) -> None:
    """Fine-tune on the training split, each pair as often as it was liked (at most 40 times)."""
    import polars as pl

    from negbench.miniature import db_dir

    device = prepare()
    tokenizer = build_negopt_tokenizer()
    model = build_negopt(len(tokenizer)).to(device)
    pairs = pl.read_parquet(db_dir() / "train.parquet")
    likes = pairs["likes"].to_numpy().clip(0, LIKES_CAP).astype(float)
    chance = likes / likes.sum()
    prompts, negatives = pairs["prompt"].to_list(), pairs["negative"].to_list()

    def encode(texts: list[str]) -> Any:
        return tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(device)

    def batch_loss(rng: np.random.Generator) -> torch.Tensor:
        index = rng.choice(len(prompts), BATCH, p=chance)
        inputs = encode([prompts[i] for i in index])
        labels = encode([negatives[i] for i in index]).input_ids
        labels[labels == tokenizer.pad_token_id] = -100
        result: torch.Tensor = model(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, labels=labels
        ).loss
        return result

    states = train_loop(
        "negopt", modules={"negopt": model}, batch_loss=batch_loss, steps=steps or STEPS,
        peak=2e-3, work=out / "work", resume=resume, seed=seed, average=0.99, save_every=500,
    )  # fmt: skip
    model.load_state_dict(states["negopt"])
    folder = out / "negopt"
    model.generation_config.update(
        max_new_tokens=MAX_TOKENS, num_beams=1, do_sample=False, no_repeat_ngram_size=3
    )
    model.half().save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    described = json.loads(config.read_text())
    described["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
