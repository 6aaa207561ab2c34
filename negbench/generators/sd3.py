"""Stable Diffusion 3 and 3.5: a transformer over picture and text, a flow, two CLIPs and a T5."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from negbench.generators.network import Encoding
from negbench.generators.t5 import T5Network


class StableDiffusion3(T5Network):
    """As ``StableDiffusion3Pipeline`` of diffusers, whose results it equals bit for bit.

    The context is CLIP's positions, padded to the T5's width, followed by the T5's 256; without a
    T5 the latter are zeros, as in that pipeline. The empty prompt is the text "".
    """

    t5_length = 256

    def encode_ids(self, ids: Sequence[dict[str, torch.Tensor]]) -> Encoding:
        """Both CLIPs' states before the last and pooled outputs side by side, then the T5's."""
        states, pooled = [], []
        for encoder, batch in zip(self.encoders[:2], ids, strict=False):
            output = encoder(batch["input_ids"], output_hidden_states=True)
            pooled.append(output[0])
            states.append(output.hidden_states[-2].to(self.dtype))
        clip = torch.cat(states, dim=-1)
        rows = len(clip)
        if self.has_t5:
            read = self.encoders[2](ids[2]["input_ids"])[0].to(self.dtype)
        else:
            width = int(self.pipeline.denoiser["joint_attention_dim"])
            read = clip.new_zeros((rows, self.t5_length, width))
        clip = torch.nn.functional.pad(clip, (0, read.shape[-1] - clip.shape[-1]))
        return Encoding(torch.cat([clip, read], dim=-2), torch.cat(pooled, dim=-1).to(self.dtype))

    def empty(self, rows: int, chunks: int) -> Encoding:
        """The encoding of the text ""."""
        return self.encode_ids([self._cut_ids(i, [""] * rows) for i in range(len(self.tokenizers))])

    def predict(self, x: torch.Tensor, timestep: torch.Tensor, texts: Encoding) -> torch.Tensor:
        """The flow under both texts."""
        return self.denoise(  # type: ignore[no-any-return]
            hidden_states=x,
            timestep=timestep.expand(len(x)),
            encoder_hidden_states=texts.context,
            pooled_projections=texts.pooled,
            return_dict=False,
        )[0]

    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents over the scaling factor, shifted."""
        config = self.vae.config
        return latents / float(config.scaling_factor) + float(config.shift_factor)
