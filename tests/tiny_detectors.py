"""Small open-vocabulary detectors with random weights, of transformers' own classes."""

from __future__ import annotations

from pathlib import Path

from tiny_clip import WORDS, word_tokenizer


def make_owlv2(folder: Path, *, seed: int = 0, side: int = 32) -> Path:
    """An OWLv2 of 16 candidate boxes."""
    import torch
    from transformers import (
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
    )

    tokenizer = word_tokenizer(16)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = Owlv2Config(
        text_config={
            **size, "num_attention_heads": 2, "vocab_size": len(WORDS) + 4,
            "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 2,
            "eos_token_id": len(WORDS) + 3,
        },
        vision_config={**size, "num_attention_heads": 2, "image_size": side, "patch_size": 8},
        projection_dim=16,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Owlv2ForObjectDetection(config)
    _spread(model)
    model.save_pretrained(folder)
    processor = Owlv2Processor(
        image_processor=Owlv2ImageProcessor(size={"height": side, "width": side}),
        tokenizer=tokenizer,
    )
    processor.save_pretrained(folder)
    return folder


def make_grounding_dino(folder: Path, *, seed: int = 0) -> Path:
    """A Grounding DINO of 12 queries over a tiny Swin and a tiny BERT."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        PreTrainedTokenizerFast,
        SwinConfig,
    )

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", *WORDS]
    vocab = {name: i for i, name in enumerate(names)}
    made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=32,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1],
            window_size=4, out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=BertConfig(
            vocab_size=len(names), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=64,
        ),
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=12,
        max_text_len=32, num_feature_levels=4,
    )  # fmt: skip
    torch.manual_seed(seed)
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    processor = GroundingDinoProcessor(
        image_processor=GroundingDinoImageProcessor(
            size={"shortest_edge": 128, "longest_edge": 192}
        ),
        tokenizer=tokenizer,
    )
    processor.save_pretrained(folder)
    return folder


def _spread(model) -> None:
    import torch

    with torch.no_grad():  # initial weights make all texts and patches alike
        for name, value in model.named_parameters():
            if "embedding" in name or "projection" in name or "dense0" in name:
                value.normal_(0, 0.3)
            if "logit_s" in name:
                value.mul_(0.1)
