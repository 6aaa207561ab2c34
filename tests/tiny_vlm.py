"""A small image-text model (LLaVA's class) with random weights and a word-level tokenizer."""

from __future__ import annotations

from pathlib import Path

from tiny_clip import WORDS

SPECIAL = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "<image>"]
SAID = ["yes", "no", "second", "third", "concepts", *WORDS]
NAMES = [*SPECIAL, *dict.fromkeys(SAID)]


def make_vlm(folder: Path, *, template: bool = True, seed: int = 0) -> Path:
    """A model whose answers depend on the picture; ``<image>`` stands for four patches."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    vocab = {name: i for i, name in enumerate(NAMES)}
    made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]",
        eos_token="[EOS]", additional_special_tokens=["<image>"],
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            image_size=16, patch_size=8, projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(NAMES), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
            pad_token_id=0, bos_token_id=2, eos_token_id=3,
        ),
        image_token_index=vocab["<image>"],
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(50)
    model.save_pretrained(folder)
    text = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}"
    )
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=text if template else None,
    ).save_pretrained(folder)
    return folder
