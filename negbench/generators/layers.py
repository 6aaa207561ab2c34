"""Cross-attention layers of a U-Net: what they make of a text, and once for all steps."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch.nn.functional import scaled_dot_product_attention

KeysAndValues: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""(rows, heads, tokens, width of a head) each."""

LARGEST = 64 << 20
"""Bytes of keys and values of one call's texts that are still kept."""


def text_layers(unet: Any) -> list[Any]:
    """The cross-attention layers of a ``UNet2DConditionModel`` of diffusers, in its order."""
    return [
        module
        for module in unet.modules()
        if getattr(module, "is_cross_attention", False) and hasattr(module, "set_processor")
    ]


def project(attn: Any, context: torch.Tensor) -> KeysAndValues:
    """Keys and values of texts (rows, tokens, width) in one layer."""
    if attn.norm_cross:
        context = attn.norm_encoder_hidden_states(context)
    key = _heads(attn, attn.to_k(context))
    if attn.norm_k is not None:
        key = attn.norm_k(key)
    return key, _heads(attn, attn.to_v(context))


def queries(attn: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """Queries (rows, heads, positions, width of a head) of states (rows, positions, width)."""
    query = _heads(attn, attn.to_q(hidden_states))
    return query if attn.norm_q is None else attn.norm_q(query)


class TextLayer(ABC):
    """A processor as ``AttnProcessor2_0`` of diffusers, of cross-attention to a text."""

    @abstractmethod
    def mix(self, attn: Any, query: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """What each position takes from the text.

        Args:
            attn: the layer.
            query: (rows, heads, positions, width of a head).
            context: (rows, tokens, width).

        Returns:
            (rows, positions, heads * width of a head).
        """

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
            raise NotImplementedError("cross-attention takes a text and no mask here")
        residual = hidden_states
        shape = hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        mixed = self.mix(attn, queries(attn, hidden_states), encoder_hidden_states)
        mixed = attn.to_out[1](attn.to_out[0](mixed.to(hidden_states.dtype)))
        if len(shape) == 4:
            mixed = mixed.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            mixed = mixed + residual
        result: torch.Tensor = mixed / attn.rescale_output_factor
        return result


class _Known(TextLayer):
    """Takes keys and values that were made before, where there are any."""

    def __init__(self) -> None:
        self.known: KeysAndValues | None = None

    def mix(self, attn: Any, query: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Plain attention."""
        key, value = project(attn, context) if self.known is None else self.known
        mixed = scaled_dot_product_attention(query, key, value, scale=attn.scale)
        return mixed.transpose(1, 2).flatten(2)


class TextMemory:
    """Keys and values of a call's texts, made once instead of at every step.

    Args:
        unet: its cross-attention layers are given processors that can be told.
    """

    def __init__(self, unet: Any) -> None:
        self._layers = [
            layer
            for layer in text_layers(unet)
            if type(layer.processor).__name__ == "AttnProcessor2_0"
            and layer.added_kv_proj_dim is None
        ]
        self._known = [_Known() for _ in self._layers]
        for layer, known in zip(self._layers, self._known, strict=True):
            layer.set_processor(known)

    def of(self, context: torch.Tensor) -> list[KeysAndValues] | None:
        """Keys and values of texts (rows, tokens, width); None where they are too many to keep."""
        rows, tokens, _ = context.shape
        width = sum(layer.to_k.out_features + layer.to_v.out_features for layer in self._layers)
        if rows * tokens * width * context.element_size() > LARGEST:
            return None
        return [project(layer, context) for layer in self._layers]

    @contextlib.contextmanager
    def told(self, known: list[KeysAndValues] | None) -> Iterator[None]:
        """Inside, the layers take those."""
        for processor, own in zip(self._known, known or [], strict=False):
            processor.known = own
        try:
            yield
        finally:
            for processor in self._known:
                processor.known = None


def _heads(attn: Any, projected: torch.Tensor) -> torch.Tensor:
    return projected.reshape(*projected.shape[:2], attn.heads, -1).transpose(1, 2)
