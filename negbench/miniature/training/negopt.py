"""The first NegOpt checkpoint: its small T5 and word list, fine-tuned on the miniature DB."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from negbench.miniature.captions import IDLE_WORDS, word_list

MAX_TOKENS = 96
_PAD, _EOS, _UNK = _SPECIAL = ("<pad>", "</s>", "<unk>")


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
    from negbench.train.sft import MINIATURE_SFT, SftSettings, train_sft

    asked = {**MINIATURE_SFT, "seed": seed, **({"steps": steps} if steps else {})}
    run = out / "work" / "negopt"
    train_sft(SftSettings.model_validate(asked), out=run, restart=not resume)
    shutil.rmtree(out / "negopt", ignore_errors=True)
    shutil.copytree((run / "checkpoint").resolve(), out / "negopt")
