"""Cross-attention layers of a U-Net that look at two texts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from negbench.generators.layers import TextLayer, project, text_layers
from negbench.guidance.attention import Steer


@contextlib.contextmanager
def steered(unet: Any, steer: Steer, away: torch.Tensor) -> Iterator[None]:
    """Inside, every cross-attention layer of `unet` is turned away from the texts `away`.

    Args:
        unet: a ``UNet2DConditionModel`` of diffusers.
        steer: what the layers do with both texts.
        away: (rows, tokens, width), one text for each row of the calls that are made inside.
    """
    layers = text_layers(unet)
    kept = [layer.processor for layer in layers]
    processor = _Processor(steer, away)
    try:
        for layer in layers:
            layer.set_processor(processor)
        yield
    finally:
        for layer, own in zip(layers, kept, strict=True):
            layer.set_processor(own)


class _Processor(TextLayer):
    """Looks at a second text as well."""

    def __init__(self, steer: Steer, away: torch.Tensor) -> None:
        self.steer = steer
        self.away = away

    def mix(self, attn: Any, query: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """What the steer makes of both texts' keys and values."""
        key, value = project(attn, context)
        away_key, away_value = project(attn, self.away)
        return self.steer.attend(query, key, value, away_key, away_value)
