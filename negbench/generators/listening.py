"""A network that is listened to: cross-attention and predicted noise of every model call."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from negbench.errors import ConfigError
from negbench.generators.layers import project, queries, text_layers
from negbench.generators.network import Encoding, Network
from negbench.generators.strength import attention_strength
from negbench.guidance.base import Step

MAX_ELEMENTS = 1 << 24
"""Values of upsampled attention maps that are held at once."""


class Recorder:
    """Stands for the network in one batch and keeps what a call saw, by row of the encoding.

    Args:
        network: predicts.
        focus: by row of the encoding, the token positions whose maps are kept.
        heard: rows whose attention is recorded.
        maps: keep where in the picture the words are attended to.

    Attributes:
        noise: by row, the noise predicted in the last call, float64, flat.
        strength: by row, attention of the last call by token position, float64 (positions,).
        maps: by row, attention to the focus, mean over layers, heads and words, float32 (height,
            width) of the latent.
    """

    def __init__(
        self,
        network: Network,
        focus: dict[int, tuple[int, ...]],
        heard: set[int],
        *,
        maps: bool,
    ) -> None:
        self.network = network
        self.focus = focus
        self.heard = heard
        self.with_maps = maps
        self.about: list[int] = []
        self.step: Step | None = None
        self.noise: dict[int, torch.Tensor] = {}
        self.strength: dict[int, torch.Tensor] = {}
        self.maps: dict[int, torch.Tensor] = {}
        self._layers = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def begin(self, step: Step) -> None:
        """Forget the call before."""
        self.step = step
        for kept in (self.noise, self.strength, self.maps):
            kept.clear()

    def texts_of_call(self, texts: Encoding, rows: Sequence[int]) -> Encoding:
        """As the network's own; the next call is about those rows."""
        self.about = list(rows)
        return self.network.texts_of_call(texts, rows)

    def predict(self, x: torch.Tensor, timestep: torch.Tensor, texts: Encoding) -> torch.Tensor:
        """As the network's own, whose layers are listened to."""
        self._layers = 0
        first = {row: at for at, row in reversed(list(enumerate(self.about)))}
        rows = [(row, at) for row, at in first.items() if row in self.heard]
        with _listening(self.network.unet, self, rows) if rows else contextlib.nullcontext():
            predicted = self.network.predict(x, timestep, texts)
        noise = self._noise(predicted, x)
        for row, at in first.items():
            self.noise[row] = noise[at].flatten()
            if row in self.maps and self._layers:
                self.maps[row] /= self._layers
        return predicted

    def hear(
        self, query: torch.Tensor, key: torch.Tensor, scale: float, rows: list[tuple[int, int]]
    ) -> None:
        """Add one layer's attention."""
        _, height, width = self.network.latent_shape
        heads, tokens = query.shape[1], key.shape[2]
        if query.shape[2] * 64 == height * width:
            return  # the authors' code skips maps an eighth of the latent's size
        self._layers += heads
        chunk = max(1, MAX_ELEMENTS // (heads * tokens * height * width))
        for start in range(0, len(rows), chunk):
            block = rows[start : start + chunk]
            index = torch.tensor([at for _, at in block], device=query.device)
            strength, maps = attention_strength(
                query[index], key[index], scale=scale, size=(height, width)
            )
            for i, (row, _) in enumerate(block):
                self.strength[row] = self.strength.get(row, 0.0) + strength[i]
                positions = self.focus.get(row, ())
                if self.with_maps and positions:
                    self.maps[row] = self.maps.get(row, 0.0) + maps[i, list(positions)].mean(dim=0)

    def _noise(self, predicted: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The noise behind a prediction: eps = alpha v + sigma x, or (x - alpha x0) / sigma."""
        assert self.step is not None
        predicted, x = predicted.double(), x.double()
        if self.step.space == "epsilon":
            return predicted
        sigma = 1.0 / math.hypot(1.0, 1.0 / self.step.sigma) if self.step.sigma > 0 else 0.0
        alpha = 1.0 / math.hypot(1.0, self.step.sigma)
        if self.step.space == "v_prediction":
            return alpha * predicted + sigma * x
        if self.step.space == "sample" and sigma > 0:
            return (x - alpha * predicted) / sigma
        raise ConfigError(f"a prediction of kind {self.step.space} cannot be traced at this step")


@contextlib.contextmanager
def _listening(unet: Any, recorder: Recorder, rows: list[tuple[int, int]]) -> Iterator[None]:
    """Inside, cross-attention layers of the down and up blocks tell the recorder what they saw."""
    layers = [
        layer for block in (*unet.down_blocks, *unet.up_blocks) for layer in text_layers(block)
    ]
    kept = [layer.processor for layer in layers]
    try:
        for layer, own in zip(layers, kept, strict=True):
            layer.set_processor(_Listener(own, recorder, rows))
        yield
    finally:
        for layer, own in zip(layers, kept, strict=True):
            layer.set_processor(own)


class _Listener:
    """A layer's own processor, and an ear."""

    def __init__(self, own: Any, recorder: Recorder, rows: list[tuple[int, int]]) -> None:
        self.own = own
        self.recorder = recorder
        self.rows = rows

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        result: torch.Tensor = self.own(
            attn,
            hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            attention_mask=attention_mask,
            temb=temb,
            **options,
        )
        if encoder_hidden_states is None or attention_mask is not None:
            raise ConfigError("tracing takes cross-attention to a text without a mask")
        query, (key, _) = queries(attn, hidden_states), project(attn, encoder_hidden_states)
        self.recorder.hear(query, key, float(attn.scale), self.rows)
        return result
