"""Train the AutoencoderKL: 64x64x3 to 16x16x4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from negbench.miniature.data import load
from negbench.miniature.training.loop import prepare, train_loop

STEPS = 2_800
BATCH = 32
TRAIN_COUNT = 40_000
HELD_OUT_COUNT = 4_000


def build_vae() -> Any:
    """The untrained autoencoder."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 48, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def to_tensor(images: np.ndarray[Any, Any]) -> torch.Tensor:
    """uint8 (n, 64, 64, 3) to float (n, 3, 64, 64) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_vae(*, out: Path, steps: int | None, resume: bool, seed: int) -> None:
    """Train and write `out/pipeline/vae` (loss: L1 + squared + gradient L1 + small KL).

    The scaling factor is set so that latents have unit variance.
    """
    device = prepare()
    images = load(out / "work", count=TRAIN_COUNT, seed=0).images
    vae = build_vae().to(device, memory_format=torch.channels_last)

    def batch_loss(rng: np.random.Generator) -> torch.Tensor:
        index = np.sort(rng.choice(len(images), BATCH, replace=False))
        x = to_tensor(images[index]).to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            decoded = vae.decode(posterior.sample()).sample
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        error = decoded.float() - x
        dx = (error[..., :, 1:] - error[..., :, :-1]).abs().mean()
        dy = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss: torch.Tensor = (
            error.abs().mean() + error.square().mean() + 0.6 * (dx + dy) + 3e-4 * kl
        )
        return loss

    states = train_loop(
        "vae", modules={"vae": vae}, batch_loss=batch_loss, steps=steps or STEPS, peak=2.5e-3,
        work=out / "work", resume=resume, seed=seed, average=0.995, weight_decay=0.0,
    )  # fmt: skip
    vae.load_state_dict(states["vae"])
    vae.eval()
    with torch.no_grad():
        sample = [
            vae.encode(to_tensor(images[i : i + 64]).to(device)).latent_dist.sample()
            for i in range(0, 2048, 64)
        ]
    vae.register_to_config(scaling_factor=float(1.0 / torch.cat(sample).std()))
    vae.half().save_pretrained(out / "pipeline" / "vae", safe_serialization=True)
