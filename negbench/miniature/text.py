"""The miniature's tokenizer: one token a word, unknown words become `[UNK]`."""

from __future__ import annotations

from typing import Any

from negbench.miniature.captions import CONTEXT, word_list

PAD, UNK, BOS, EOS = "[PAD]", "[UNK]", "[BOS]", "[EOS]"


def vocabulary() -> dict[str, int]:
    """Word to id; `[EOS]` has the highest id, as CLIP's pooling expects."""
    return {token: i for i, token in enumerate([PAD, UNK, BOS, *word_list(), EOS])}


def build_tokenizer(*, context: int = CONTEXT) -> Any:
    """Build the tokenizer of the text-to-image pipeline and of CLIP.

    Text is lower-cased, punctuation is dropped, words are split at blanks.

    Args:
        context: Length that prompts are padded or cut to, `[BOS]` and `[EOS]` included.

    Returns:
        A `transformers.PreTrainedTokenizerFast`.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = vocabulary()
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[^\w\s]|_"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        special_tokens=[(BOS, vocab[BOS]), (EOS, vocab[EOS])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
