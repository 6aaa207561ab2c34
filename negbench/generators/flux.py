"""FLUX.1: a transformer over packed latents, a flow, a pooled CLIP text and a T5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from negbench.generators.network import Encoding
from negbench.generators.t5 import T5Network


class Flux(T5Network):
    """As ``FluxPipeline`` of diffusers, whose results it equals bit for bit.

    The scale of guidance is that pipeline's ``true_cfg_scale``, with a second prediction for the
    negative or the empty prompt. The scale that FLUX.1-dev takes as an input, distilled into its
    weights, is ``embedded_scale`` and the same for all predictions.
    """

    t5_length = 512
    apart = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _, height, width = self.latent_shape
        rows, columns = height // 2, width // 2
        places = torch.zeros(rows, columns, 3)
        places[..., 1] = torch.arange(rows)[:, None]
        places[..., 2] = torch.arange(columns)[None, :]
        self._places = places.view(-1, 3).to(self.device, self.dtype)
        self._no_places = torch.zeros(self.t5_length, 3, device=self.device, dtype=self.dtype)

    def encode_ids(self, ids: Sequence[dict[str, torch.Tensor]]) -> Encoding:
        """The T5's last state, and CLIP's pooled output."""
        pooled = self.encoders[0](ids[0]["input_ids"]).pooler_output
        read = self.encoders[1](ids[1]["input_ids"])[0]
        return Encoding(read.to(self.dtype), pooled.to(self.dtype))

    def empty(self, rows: int, chunks: int) -> Encoding:
        """The encoding of the text ""."""
        return self.encode_ids([self._cut_ids(i, [""] * rows) for i in range(len(self.tokenizers))])

    def predict(self, x: torch.Tensor, timestep: torch.Tensor, texts: Encoding) -> torch.Tensor:
        """The flow of latents packed 2 x 2, unpacked again."""
        guidance = None
        if self.embedded_scale is not None:
            scale = torch.full([1], self.embedded_scale, device=x.device, dtype=torch.float32)
            guidance = scale.expand(len(x))
        packed = self.denoise(
            hidden_states=_packed(x),
            timestep=timestep.expand(len(x)).to(x.dtype) / 1000,
            guidance=guidance,
            pooled_projections=texts.pooled,
            encoder_hidden_states=texts.context,
            txt_ids=self._no_places,
            img_ids=self._places,
            return_dict=False,
        )[0]
        return _unpacked(packed, x.shape)

    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents over the scaling factor, shifted."""
        config = self.vae.config
        return latents / float(config.scaling_factor) + float(config.shift_factor)


def _packed(x: torch.Tensor) -> torch.Tensor:
    """(rows, channels, height, width) to (rows, height/2 * width/2, 4 * channels)."""
    rows, channels, height, width = x.shape
    split = x.view(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return split.reshape(rows, (height // 2) * (width // 2), channels * 4)


def _unpacked(packed: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The opposite of `_packed`."""
    rows, channels, height, width = shape
    split = packed.view(rows, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return split.reshape(rows, channels, height, width)
