"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, no added conditioning."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from negbench.generators.network import Encoding, Network


class StableDiffusion(Network):
    """As ``StableDiffusionPipeline`` of diffusers, whose results it equals bit for bit."""

    def encode_ids(self, ids: Sequence[dict[str, torch.Tensor]]) -> Encoding:
        """The encoder's last hidden state."""
        encoder = self.encoders[0]
        masked = getattr(encoder.config, "use_attention_mask", False)
        mask = ids[0]["attention_mask"] if masked else None
        context = encoder(ids[0]["input_ids"], attention_mask=mask)[0]
        return Encoding(context.to(self.dtype), None)

    def empty(self, rows: int, chunks: int) -> Encoding:
        """The encoding of the text ""."""
        texts = [""] * rows
        padded = self._cut_ids(0, texts)
        one = self.encode_ids([padded])
        return Encoding(one.context.repeat(1, chunks, 1), None)

    def predict(self, x: torch.Tensor, timestep: torch.Tensor, texts: Encoding) -> torch.Tensor:
        """The U-Net under cross-attention to the texts."""
        with self.reading(texts):
            return self.denoise(  # type: ignore[no-any-return]
                x, timestep, encoder_hidden_states=texts.context, return_dict=False
            )[0]

    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents over the autoencoder's scaling factor."""
        return latents / float(self.vae.config.scaling_factor)
