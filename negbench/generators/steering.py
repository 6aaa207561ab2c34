"""Cross-attention layers of a U-Net that look at two texts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from negbench.guidance.attention import Steer


@contextlib.contextmanager
def steered(unet: Any, steer: Steer, away: torch.Tensor) -> Iterator[None]:
    """Inside, every cross-attention layer of `unet` is turned away from the texts `away`.

    Args:
        unet: a ``UNet2DConditionModel`` of diffusers.
        steer: what the layers do with both texts.
        away: (rows, tokens, width), one text for each row of the calls that are made inside.
    """
    layers = [
        module
        for module in unet.modules()
        if getattr(module, "is_cross_attention", False) and hasattr(module, "set_processor")
    ]
    kept = [layer.processor for layer in layers]
    processor = _Processor(steer, away)
    try:
        for layer in layers:
            layer.set_processor(processor)
        yield
    finally:
        for layer, own in zip(layers, kept, strict=True):
            layer.set_processor(own)


class _Processor:
    """As ``AttnProcessor2_0`` of diffusers, with a second text."""

    def __init__(self, steer: Steer, away: torch.Tensor) -> None:
        self.steer = steer
        self.away = away

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One layer: (rows, positions, width) or (rows, width, height, width) in, the same out."""
        if encoder_hidden_states is None or attention_mask is not None:
            raise NotImplementedError("steered attention takes a text and no mask")
        residual = hidden_states
        shape = hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        query = _heads(attn, attn.to_q(hidden_states))
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        key, value = _text(attn, encoder_hidden_states)
        away_key, away_value = _text(attn, self.away)
        mixed = self.steer.attend(query, key, value, away_key, away_value)
        mixed = attn.to_out[1](attn.to_out[0](mixed.to(query.dtype)))
        if len(shape) == 4:
            mixed = mixed.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            mixed = mixed + residual
        result: torch.Tensor = mixed / attn.rescale_output_factor
        return result


def _heads(attn: Any, projected: torch.Tensor) -> torch.Tensor:
    return projected.reshape(*projected.shape[:2], attn.heads, -1).transpose(1, 2)


def _text(attn: Any, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if attn.norm_cross:
        context = attn.norm_encoder_hidden_states(context)
    key = _heads(attn, attn.to_k(context))
    if attn.norm_k is not None:
        key = attn.norm_k(key)
    return key, _heads(attn, attn.to_v(context))
