"""Stable Diffusion XL: two text encoders, a pooled text and the picture's size as conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from negbench.errors import DataError
from negbench.generators.network import Encoding, Network


class StableDiffusionXL(Network):
    """As ``StableDiffusionXLPipeline`` of diffusers, whose results it equals bit for bit.

    The empty prompt is what that pipeline takes when no negative prompt is given: zeros where
    ``force_zeros_for_empty_prompt`` is set, as it is for the base model, else the text "".
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.dtype == torch.float16 and self.vae.config.force_upcast:
            self.vae.to(torch.float32)  # it overflows in half precision
        height, width = self.size
        self._time_ids = torch.tensor(
            [[height, width, 0, 0, height, width]], dtype=self.dtype, device=self.device
        )
        config = self.unet.config
        width_in = self.unet.add_embedding.linear_1.in_features
        width_out = config.addition_time_embed_dim * 6 + self.encoders[1].config.projection_dim
        if width_in != width_out:
            raise DataError(
                f"generator {self.pipeline.source.spec}: its U-Net takes {width_in} added values, "
                f"but its second text encoder and the picture's size make {width_out}"
            )

    def encode_ids(self, ids: Sequence[dict[str, torch.Tensor]]) -> Encoding:
        """Both encoders' hidden states before the last, and the second one's pooled output."""
        states = []
        pooled = None
        for encoder, batch in zip(self.encoders, ids, strict=True):
            output = encoder(batch["input_ids"], output_hidden_states=True)
            if output[0].ndim == 2:
                pooled = output[0]
            states.append(output.hidden_states[-2])
        if pooled is None:
            raise DataError(f"generator {self.pipeline.source.spec}: it has no pooled text")
        return Encoding(torch.concat(states, dim=-1).to(self.dtype), pooled.to(self.dtype))

    def empty(self, rows: int, chunks: int) -> Encoding:
        """Zeros, or the encoding of the text ""."""
        ids = [self._cut_ids(i, [""] * rows) for i in range(len(self.tokenizers))]
        text = self.encode_ids(ids)
        assert text.pooled is not None
        context = text.context.repeat(1, chunks, 1)
        if not self.pipeline.zeros_for_empty:
            return Encoding(context, text.pooled)
        return Encoding(torch.zeros_like(context), torch.zeros_like(text.pooled))

    def predict(self, x: torch.Tensor, timestep: torch.Tensor, texts: Encoding) -> torch.Tensor:
        """The U-Net under the texts, the pooled text and the picture's size."""
        added = {"text_embeds": texts.pooled, "time_ids": self._time_ids.repeat(len(x), 1)}
        with self.reading(texts):
            return self.denoise(  # type: ignore[no-any-return]
                x,
                timestep,
                encoder_hidden_states=texts.context,
                added_cond_kwargs=added,
                return_dict=False,
            )[0]

    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents over the scaling factor, shifted by mean and deviation if the VAE has them."""
        config = self.vae.config
        mean = getattr(config, "latents_mean", None)
        deviation = getattr(config, "latents_std", None)
        if mean is None or deviation is None:
            return latents / float(config.scaling_factor)
        shape = (1, len(mean), 1, 1)
        shift = torch.tensor(mean).view(shape).to(latents.device, latents.dtype)
        spread = torch.tensor(deviation).view(shape).to(latents.device, latents.dtype)
        return latents * spread / float(config.scaling_factor) + shift
