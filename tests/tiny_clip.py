"""Small CLIPs with random weights in folders, of open_clip's own class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEXT = (
    "a the red blue old new photo picture of with and in on cat dog house car tree hat glasses "
    "night day snow rain blurry noisy ugly watermark cropped man woman girl cup steam"
)
WORDS = TEXT.split()


def make_clip(folder: Path, *, words: bool = True, context: int = 12, seed: int = 0) -> Path:
    """A CLIP in `folder`: word-level tokenizer of its own, or open_clip's byte-pair encoding."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    text_cfg: dict[str, Any] = {"context_length": context, "width": 32, "heads": 2, "layers": 2}
    if words:
        text_cfg |= {"vocab_size": len(WORDS) + 4, "hf_tokenizer_name": "tokenizer"}
        word_tokenizer(context).save_pretrained(folder)
    else:
        text_cfg |= {"vocab_size": 49408, "width": 16, "heads": 1}
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
        },
        "text_cfg": text_cfg,
    }
    torch.manual_seed(seed)
    build = {**model_cfg, "text_cfg": {k: v for k, v in text_cfg.items() if "hf_" not in k}}
    model = open_clip.CLIP(**build)
    with torch.no_grad():  # spread the towers out: initial weights make all texts alike
        for name, value in model.named_parameters():
            if "embedding" in name or "projection" in name:
                value.normal_(0, 0.5)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    described = {
        "model_cfg": model_cfg,
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return folder


def word_tokenizer(context: int) -> Any:
    """One token a word; the end token has the highest id, as pooling by argmax expects."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[BOS]", *WORDS, "[EOS]"]
    vocab = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]",
        special_tokens=[("[BOS]", vocab["[BOS]"]), ("[EOS]", vocab["[EOS]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_max_length=context,
    )
