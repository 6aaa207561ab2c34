"""The head that maps a CLIP image embedding to aesthetic points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class AestheticHead(nn.Module):
    """A linear map or a small MLP over a unit-length embedding.

    With ``hidden=(1024, 128, 64, 16)`` and ``dropout=(0.2, 0.2, 0.1, 0)`` its state dict has the
    keys of LAION's improved aesthetic predictor (``layers.0.weight`` ... ``layers.7.bias``).

    Args:
        input_dim: length of the embedding.
        hidden: widths of the hidden layers; none makes a linear head, ``layers.0``.
        dropout: rate after each hidden layer, 0 for no such layer; () for none at all.
        activation: ``none``, ``relu`` or ``gelu``, after each hidden layer and before its dropout.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        hidden: Sequence[int] = (),
        dropout: Sequence[float] = (),
        activation: str = "none",
    ) -> None:
        super().__init__()
        rates = tuple(dropout) or (0.0,) * len(hidden)
        if len(rates) != len(hidden):
            raise ValueError(f"{len(hidden)} hidden layers but {len(rates)} dropout rates")
        layers: list[nn.Module] = []
        width = input_dim
        for out, rate in zip(hidden, rates, strict=True):
            layers.append(nn.Linear(width, out))
            if activation != "none":
                layers.append(_ACTIVATIONS[activation]())
            if rate > 0:
                layers.append(nn.Dropout(rate))
            width = out
        layers.append(nn.Linear(width, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """(n, input_dim) unit-length embeddings to (n, 1) points."""
        points: torch.Tensor = self.layers(embedding)
        return points
