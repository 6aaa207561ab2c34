"""A T5 of 30,000 parameters with the miniature's words, for tests of training."""

from __future__ import annotations


def write_tiny_t5(folder, *, weights=True, seed=0):
    """A model folder as `save_pretrained` leaves it; without `weights` an architecture only."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = build_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer) + 2, d_model=32, d_kv=8, d_ff=48, num_layers=1,
        num_decoder_layers=1, num_heads=4, dropout_rate=0.1, decoder_start_token_id=0,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    if weights:
        torch.manual_seed(seed)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    else:
        config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tensors(folder):
    """The weights of a model folder."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same_tensors(first, second):
    """Whether two model folders hold the same weights, bit for bit."""
    import torch

    a, b = tensors(first), tensors(second)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def build_tokenizer():
    """The miniature's tokenizer."""
    from negbench.miniature.training.negopt import build_negopt_tokenizer

    return build_negopt_tokenizer()
