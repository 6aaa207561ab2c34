"""Train the denoiser and its text encoder, and write the whole `StableDiffusionPipeline` folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from negbench.errors import NegbenchError
from negbench.miniature.captions import CONTEXT, say
from negbench.miniature.data import CAPTIONS_EACH, encode, load
from negbench.miniature.text import BOS, EOS, PAD, build_tokenizer, vocabulary
from negbench.miniature.training.loop import prepare, train_loop
from negbench.miniature.training.vae import TRAIN_COUNT, to_tensor
from negbench.miniature.world import NOUN_PARTS, PARTS

#: The first steps weigh the loss by signal-to-noise ratio; the last ones do not.
WEIGHTED, PLAIN = 6_300, 4_500
STEPS = WEIGHTED + PLAIN
BATCH = 64
WIDTH = 96
#: Share of captions replaced by the empty one, as classifier-free guidance needs.
EMPTY = 0.10
#: Share of captions of the last steps that are the lone name of one visible part: small parts
#: add little to the loss, and a word that draws nothing removes nothing as a negative prompt.
LONE = 0.30


def build_unet() -> Any:
    """The untrained denoiser: about 4.2 M parameters, 16x16 latents."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
        attention_head_dim=4,
    )


def build_text_encoder() -> Any:
    """The untrained CLIP text encoder: two layers of width 96."""
    from transformers import CLIPTextConfig, CLIPTextModel

    vocab = vocabulary()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            pad_token_id=vocab[PAD],
            bos_token_id=vocab[BOS],
            eos_token_id=vocab[EOS],
        )
    )


def build_scheduler() -> Any:
    """DDIM with Stable Diffusion's noise schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def load_vae(out: Path) -> Any:
    """The trained autoencoder of this weights folder, float32.

    Raises:
        NegbenchError: It has not been trained yet.
    """
    from diffusers import AutoencoderKL

    folder = out / "pipeline" / "vae"
    if not (folder / "config.json").is_file():
        raise NegbenchError(f"{folder} is missing: train the part 'vae' first")
    return AutoencoderKL.from_pretrained(folder).float().eval()


def latents_of(vae: Any, images: np.ndarray[Any, Any], *, device: torch.device) -> torch.Tensor:
    """Scaled mean latents, float32 (n, 4, 16, 16)."""
    vae = vae.to(device, memory_format=torch.channels_last)
    parts = []
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for start in range(0, len(images), 100):
            x = to_tensor(images[start : start + 100]).to(device)
            x = x.contiguous(memory_format=torch.channels_last)
            parts.append(vae.encode(x).latent_dist.mean.float().cpu())
    return torch.cat(parts) * float(vae.config.scaling_factor)


def write_pipeline(
    out: Path, unet_state: dict[str, torch.Tensor], text_state: dict[str, torch.Tensor]
) -> None:
    """Write `out/pipeline`, loadable with plain `StableDiffusionPipeline.from_pretrained`.

    Weights are in half precision, but for the text encoder's.
    """
    from diffusers import StableDiffusionPipeline

    unet, text_encoder = build_unet(), build_text_encoder()
    unet.load_state_dict(unet_state)
    text_encoder.load_state_dict(text_state)
    pipeline = StableDiffusionPipeline(
        vae=load_vae(out),
        text_encoder=text_encoder,
        tokenizer=build_tokenizer(),
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(dtype=torch.float16)
    # transformers loads half-precision files as such, diffusers as float32: a plain
    # `from_pretrained` would mix the two.
    pipeline.text_encoder.to(torch.float32)
    folder = out / "pipeline"
    pipeline.save_pretrained(folder, safe_serialization=True)
    vae = folder / "vae" / "config.json"  # where it was loaded from is nobody's business
    kept = {k: v for k, v in json.loads(vae.read_text()).items() if k != "_name_or_path"}
    vae.write_text(json.dumps(kept, indent=2) + "\n")
    # Older versions of transformers know the tokenizer by this name only.
    index = json.loads((folder / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    config = folder / "tokenizer" / "tokenizer_config.json"
    described = json.loads(config.read_text())
    described["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")


def lone_name(
    shown: np.ndarray[Any, Any], caption: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """The name of one visible part as token ids, (CONTEXT,); nouns three times as often.

    Args:
        shown: (len(PARTS),), 1 where the part is visible.
        caption: What to return where none is.
        rng: Source of randomness.
    """
    odds = shown * np.where(np.isin(PARTS, NOUN_PARTS), 3.0, 1.0)
    if not odds.any():
        return caption
    part = PARTS[int(rng.choice(len(PARTS), p=odds / odds.sum()))]
    ids = encode(say(part, rng), vocabulary())
    result = torch.zeros_like(caption)
    result[: len(ids)] = torch.tensor(ids, dtype=caption.dtype)
    return result


def train_unet(*, out: Path, steps: int | None, resume: bool, seed: int) -> None:
    """Train denoiser and text encoder together on noise prediction.

    Two cycles of the learning rate. The loss of the first is the squared error with min-SNR-5
    weights (Hang et al. 2023, eq. 8), which speeds up convergence; that of the second is the
    squared error alone (Ho et al. 2020, eq. 14), which the small parts and the texture of the
    last model calls need, with more captions that are the lone name of a part. Moving average
    of the weights with decay 0.999.
    """
    device = prepare()
    rendered = load(out / "work", count=TRAIN_COUNT, seed=0)
    cache = out / "work" / "latents.npy"
    if not cache.exists():
        np.save(cache, latents_of(load_vae(out), rendered.images, device=device).half().numpy())
    latents = torch.from_numpy(np.load(cache))
    tokens = torch.from_numpy(np.array(rendered.tokens))
    unet = build_unet().to(device, memory_format=torch.channels_last)
    text_encoder = build_text_encoder().to(device)
    alphas = build_scheduler().alphas_cumprod.to(device)
    snr = alphas / (1 - alphas)
    weights = snr.clamp(max=5.0) / snr
    vocab = vocabulary()
    empty = torch.zeros(CONTEXT, dtype=torch.int16)
    empty[0], empty[1] = vocab[BOS], vocab[EOS]

    shown = np.array(rendered.labels[:, : len(PARTS)])

    def errors(rng: np.random.Generator, *, lone: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Timesteps (BATCH,) and squared errors (BATCH,) of one batch."""
        index = torch.from_numpy(rng.integers(0, len(latents), BATCH))
        ids = tokens[index, torch.from_numpy(rng.integers(0, CAPTIONS_EACH, BATCH))]
        for row in np.flatnonzero(rng.random(BATCH) < lone):
            ids[row] = lone_name(shown[index[row]], ids[row], rng)
        ids[torch.from_numpy(rng.random(BATCH) < EMPTY)] = empty
        x = latents[index].to(device).float()
        noise = torch.randn(x.shape).to(device)
        # Stratified over the schedule: less noise in the loss.
        t = torch.from_numpy((np.arange(BATCH) + rng.random(BATCH)) / BATCH * 1000).long()
        t = t.clamp(max=999).to(device)
        a = alphas[t][:, None, None, None]
        noisy = (a.sqrt() * x + (1 - a).sqrt() * noise).contiguous(
            memory_format=torch.channels_last
        )
        text = text_encoder(ids.long().to(device))[0]
        predicted = unet(noisy, t, text).sample
        return t, (predicted - noise).square().mean(dim=(1, 2, 3))

    def weighted(rng: np.random.Generator) -> torch.Tensor:
        t, error = errors(rng)
        loss: torch.Tensor = (weights[t] * error).mean()
        return loss

    def plain(rng: np.random.Generator) -> torch.Tensor:
        return errors(rng, lone=LONE)[1].mean()

    modules = {"unet": unet, "text_encoder": text_encoder}
    total = steps or STEPS
    first = round(total * WEIGHTED / STEPS)
    states = train_loop(
        "unet", modules=modules, batch_loss=weighted, steps=first, peak=1.2e-3,
        work=out / "work", resume=resume, seed=seed, average=0.999,
    )  # fmt: skip
    for name, module in modules.items():
        module.load_state_dict(states[name])
    states = train_loop(
        "unet-plain", modules=modules, batch_loss=plain, steps=total - first, peak=8e-4,
        work=out / "work", resume=resume, seed=seed + 1, average=0.999,
    )  # fmt: skip
    write_pipeline(out, states["unet"], states["text_encoder"])
