"""The strength of cross-attention by token, as Ban et al. (arXiv 2406.02965) measure it."""

from __future__ import annotations

import functools
import math

import torch

from negbench.errors import ConfigError


def attention_strength(
    query: torch.Tensor, key: torch.Tensor, *, scale: float, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention maps of one layer, upsampled, and their strength by token.

    As the code behind Ban et al. computes it (``compute_activation_ratio``): the probabilities
    softmax(scale Q K^T) of each head are upsampled to the latent's size (bicubic), clipped at 0 and
    squared; the mean over the picture is the strength of a token in a head. Their mean over tokens
    and sum over heads and layers is E_t.

    Args:
        query: (rows, heads, positions, width).
        key: (rows, heads, tokens, width).
        scale: of the scalar products.
        size: (height, width) of the latent.

    Returns:
        Strengths summed over heads, float64 (rows, tokens), and maps summed over heads, float32
        (rows, tokens, height, width).
    """
    rows, heads, positions, _ = query.shape
    tokens = key.shape[2]
    height, width = layer_size(positions, size)
    probability = (query.float() @ key.float().transpose(-1, -2) * scale).softmax(dim=-1)
    maps = probability.transpose(-1, -2).reshape(rows, heads, tokens, height, width)
    down, across = (
        _bicubic(low, high, maps.device) for low, high in zip((height, width), size, strict=True)
    )
    upsampled = (down @ (maps @ across.T)).clamp_(min=0)
    strength = torch.linalg.vecdot(upsampled.flatten(-2), upsampled.flatten(-2))
    return strength.double().sum(dim=1) / math.prod(size), upsampled.sum(dim=1)


@functools.cache
def _bicubic(low: int, high: int, device: torch.device) -> torch.Tensor:
    """Bicubic interpolation of a line of `low` values to `high`, as a matrix (high, low).

    Interpolation of a picture is that of its columns, then of its rows; two products of matrices
    are several times faster on a CPU than ``interpolate``, and the same up to rounding.
    """
    lines = torch.eye(low, device=device).view(1, low, low, 1)
    upsampled = torch.nn.functional.interpolate(lines, size=(high, 1), mode="bicubic")
    return upsampled.view(low, high).T.contiguous()


def layer_size(positions: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a layer with `positions`, of a latent of `size` halved some times."""
    height, width = size
    while height * width > positions:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    if height * width != positions:
        raise ConfigError(f"a layer of {positions} positions does not fit a latent of {size}")
    return height, width
