"""Pictures as the pipeline's decoder gives them: what judges must also read rightly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from negbench.miniature.data import RenderedSet, load
from negbench.miniature.training.unet import latents_of, load_vae
from negbench.miniature.training.vae import HELD_OUT_COUNT, TRAIN_COUNT

ROUND_TRIPS = 6_000
HELD_OUT_ROUND_TRIPS = 1_000
BROKEN = 2_500


def decode(vae: Any, latents: torch.Tensor, *, device: torch.device) -> np.ndarray[Any, Any]:
    """Scaled latents to uint8 pictures (n, 64, 64, 3)."""
    vae = vae.to(device, memory_format=torch.channels_last)
    parts = []
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for start in range(0, len(latents), 50):
            z = latents[start : start + 50].to(device).float() / vae.config.scaling_factor
            x = vae.decode(z.contiguous(memory_format=torch.channels_last)).sample
            pixels = ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte()
            parts.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def train_set(out: Path) -> RenderedSet:
    """The rendered training set."""
    return load(out / "work", count=TRAIN_COUNT, seed=0)


def held_out_set(out: Path) -> RenderedSet:
    """The rendered held-out set (other scenes than the training set)."""
    return load(out / "work", count=HELD_OUT_COUNT, seed=1)


def round_trips(out: Path, *, device: torch.device, held_out: bool = False) -> np.ndarray[Any, Any]:
    """The first pictures of the training or held-out set after encoding and decoding, cached."""
    path = out / "work" / ("round-trips-held-out.npy" if held_out else "round-trips.npy")
    if not path.exists():
        rendered = held_out_set(out) if held_out else train_set(out)
        count = min(HELD_OUT_ROUND_TRIPS if held_out else ROUND_TRIPS, len(rendered.images))
        vae = load_vae(out)
        latents = latents_of(vae, rendered.images[:count], device=device)
        np.save(path, decode(vae, latents, device=device))
    return np.asarray(np.load(path))


def broken_pictures(
    out: Path, *, device: torch.device, seed: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pictures that no defect of the world describes, as a mistreated denoiser gives them.

    A latent is pulled towards another one's and shaken: ``z + b (0.45 (z' - z) + 0.6 e)`` with
    strength ``b`` in [0.25, 1] and Gaussian ``e``.

    Args:
        out: Weights folder.
        device: Where to compute.
        seed: Seed of the mistreatment.

    Returns:
        uint8 pictures (BROKEN, 64, 64, 3), of training scenes 0, 1, ...; strengths (BROKEN,).
    """
    path = out / "work" / "broken.npz"
    if not path.exists():
        vae = load_vae(out)
        rng = np.random.default_rng(seed)
        images = train_set(out).images[: 2 * BROKEN]
        z = latents_of(vae, images, device=device)
        strength = rng.uniform(0.25, 1.0, BROKEN).astype(np.float32)
        b = torch.from_numpy(strength)[:, None, None, None]
        shake = torch.from_numpy(rng.standard_normal(z[:BROKEN].shape).astype(np.float32))
        mixed = z[:BROKEN] + b * (0.45 * (z[BROKEN:] - z[:BROKEN]) + 0.6 * shake)
        np.savez(path, images=decode(vae, mixed, device=device), strength=strength)
    saved = np.load(path)
    return saved["images"], saved["strength"]
