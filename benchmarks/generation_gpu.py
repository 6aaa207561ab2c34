"""Images a second on a GPU: negbench's loop beside diffusers, documented and tuned, same weights.

    python benchmarks/generation_gpu.py --family sd15 [--images 64] [--json FILE]
    python benchmarks/generation_gpu.py --family sdxl --images 16
    python benchmarks/generation_gpu.py --family tiny --device cpu     # that the script runs

The pipeline has the size of the real one and random weights: speed does not depend on them. Peers,
on the same prompts, negatives, steps and scale:

- ``documented``: fp16, one prompt a call, as diffusers' first pages show it;
- ``tuned``: bf16, channels last, the U-Net and the VAE's decoder compiled (``max-autotune``), at
  the best of ``--batches``;
- ``negbench``: as it comes (bf16, its own batch), and with ``--compile``.

Rounds alternate; each is judged by its best. Model FLOP utilisation is the U-Net's counted
operations an image, times images a second, over the rate of a large bf16 product on the same card.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT, NEGATIVE = "a professor in a garden at dusk", "glasses, blurry, watermark"
SCALE = 7.5
SIDE = {"sd15": 512, "sdxl": 1024, "tiny": 64}
WIDTHS = {
    "sd15": {"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8},
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    },
    "tiny": {"block_out_channels": (32, 64, 64, 64), "attention_head_dim": 8},
}
"""U-Net settings that differ from diffusers' defaults, after the published configs."""


def tokenizer(folder: Path) -> Any:
    """CLIP's kind of tokenizer, byte pairs without merges, 77 positions."""
    from transformers import CLIPTokenizer

    letters = [*"abcdefghijklmnopqrstuvwxyz,"]
    names = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=77)


def build(family: str, folder: Path, *, device: str) -> None:
    """Write a pipeline of the family's size with random half-precision weights."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    words = tokenizer(folder / "words")
    end = len(words) - 1

    def text(width: int, layers: int, heads: int, act: str) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=49408, hidden_size=width, intermediate_size=4 * width,
            num_hidden_layers=layers, num_attention_heads=heads, hidden_act=act,
            projection_dim=width, bos_token_id=end - 1, eos_token_id=end, pad_token_id=end,
        )  # fmt: skip

    torch.manual_seed(0)
    with torch.device(device):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512) if family != "tiny" else (32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2, latent_channels=4, sample_size=SIDE[family],
            scaling_factor=0.13025 if family == "sdxl" else 0.18215,
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=SIDE[family] // 8,
            cross_attention_dim=2048 if family == "sdxl" else 768,
            **WIDTHS[family],
        )
        first = CLIPTextModel(text(768, 12, 12, "quick_gelu"))
    parts: dict[str, Any] = {
        "vae": vae, "unet": unet, "text_encoder": first, "tokenizer": words,
        "scheduler": DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        ),
    }  # fmt: skip
    for part in (vae, unet, first):
        part.half()
    if family == "sdxl":
        with torch.device(device):
            second = CLIPTextModelWithProjection(text(1280, 32, 20, "gelu")).half()
        pipe: Any = StableDiffusionXLPipeline(
            **parts, text_encoder_2=second, tokenizer_2=tokenizer(folder / "words2")
        )
    else:
        pipe = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipe.save_pretrained(str(folder / "pipeline"), safe_serialization=True)


def peer(folder: Path, family: str, args: argparse.Namespace, *, tuned: bool, batch: int) -> Any:
    """A function that draws `count` images with diffusers."""
    import torch
    from diffusers import DiffusionPipeline

    half = torch.float32 if args.device == "cpu" else torch.bfloat16 if tuned else torch.float16
    pipe = DiffusionPipeline.from_pretrained(str(folder / "pipeline"), torch_dtype=half)
    pipe = pipe.to(args.device)
    pipe.set_progress_bar_config(disable=True)
    if tuned:
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.vae.to(memory_format=torch.channels_last)
        if args.device != "cpu":
            pipe.unet = torch.compile(pipe.unet, mode="max-autotune", fullgraph=True)
            pipe.vae.decode = torch.compile(pipe.vae.decode, mode="max-autotune", fullgraph=True)

    def draw(count: int) -> None:
        for start in range(0, count, batch):
            seeds = range(start, start + batch)
            pipe(
                [PROMPT] * batch, negative_prompt=[NEGATIVE] * batch, guidance_scale=SCALE,
                num_inference_steps=args.steps, height=SIDE[family], width=SIDE[family],
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                output_type="np",
            )  # fmt: skip

    return draw


def ours(folder: Path, args: argparse.Namespace, *, compiled: bool) -> tuple[Any, Any]:
    """A function that draws `count` images with negbench, and its generator."""
    from negbench.generators.base import RunOptions
    from negbench.generators.resolve import resolve
    from negbench.types import Guidance, ImageRequest, Negative, Treatment

    generator: Any = resolve(
        str(folder / "pipeline"),
        params={"steps": args.steps, "dtype": "float32" if args.device == "cpu" else "bfloat16"},
        options=RunOptions(device=args.device, compile=compiled),
    )
    treatment = Treatment(
        prompt=PROMPT, negatives=(Negative(text=NEGATIVE),), guidance=Guidance(scale=SCALE)
    )

    def draw(count: int) -> None:
        requests = [
            ImageRequest(generator=generator.ref(), treatment=treatment, seed=seed)
            for seed in range(count)
        ]
        for _ in generator.draw(requests):
            pass

    return draw, generator


def timed(call: Callable[[], Any], device: str) -> float:
    """Seconds of a call, the GPU's queue emptied at both ends."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matrix_rate(device: str) -> float:
    """Operations a second of a large bf16 product, the best of twenty."""
    import torch

    side = 512 if device == "cpu" else 8192
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    best = min(timed(lambda: a @ a, device) for _ in range(20))
    return float(2 * side**3 / best)


def operations(generator: Any, *, steps: int) -> float:
    """Operations of the U-Net for one image: both branches at every step."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from negbench.types import Guidance, ImageRequest, Negative, Treatment

    request = ImageRequest(
        generator=generator.ref(),
        treatment=Treatment(
            prompt=PROMPT, negatives=(Negative(text=NEGATIVE),), guidance=Guidance(scale=SCALE)
        ),
        seed=0,
    )
    network = generator.load()
    rows = 0

    def count(module: Any, args: Any) -> None:
        nonlocal rows
        rows += len(args[0])

    handle = network.unet.register_forward_pre_hook(count)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        list(generator.draw([request]))
    handle.remove()
    total = counter.flop_counts.get(type(network.unet).__name__, counter.flop_counts["Global"])
    return float(sum(total.values())) / rows * 2 * steps


def main() -> None:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", choices=list(SIDE), default="sd15")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the pipeline there")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import diffusers
    import torch

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "pipeline" / "model_index.json").is_file():
            build(args.family, folder, device=args.device)
        name = "cpu" if args.device == "cpu" else torch.cuda.get_device_name(args.device)
        rate = matrix_rate(args.device)
        print(f"{name}, torch {torch.__version__}, diffusers {diffusers.__version__}, "
              f"{args.family}, {SIDE[args.family]} px, {args.steps} steps; bf16 product "
              f"{rate / 1e12:.1f} TFLOP/s")  # fmt: skip
        plain, generator = ours(folder, args, compiled=False)
        runners: dict[str, tuple[Any, int]] = {
            "diffusers, documented": (
                peer(folder, args.family, args, tuned=False, batch=1), max(2, args.images // 16)
            ),
            "negbench": (plain, args.images),
        }  # fmt: skip
        if args.device != "cpu":
            runners["negbench --compile"] = ours(folder, args, compiled=True)[0], args.images
        for batch in args.batches:
            count = max(batch, args.images // batch * batch)
            runner = peer(folder, args.family, args, tuned=True, batch=batch)
            runners[f"diffusers, tuned, batch {batch}"] = runner, count
        best: dict[str, float] = {}
        for label, (draw, count) in list(runners.items()):
            try:
                draw(count)  # loading, compiling and choosing a batch are not measured
            except torch.OutOfMemoryError:
                print(f"{label}: out of memory")
                del runners[label]
                if args.device != "cpu":
                    torch.cuda.empty_cache()
        for _ in range(args.rounds):
            for label, (draw, count) in runners.items():
                taken = timed(lambda d=draw, c=count: d(c), args.device) / count
                best[label] = min(best.get(label, taken), taken)
        work = operations(generator, steps=args.steps)
    mine = min(value for label, value in best.items() if label.startswith("negbench"))
    print(f"{'':28} {'s/image':>9} {'images/s':>9} {'x negbench':>11} {'MFU':>6}")
    rows = {}
    for label, value in sorted(best.items(), key=lambda item: item[1]):
        used = work / value / rate
        print(f"{label:28} {value:>9.4f} {1 / value:>9.2f} {value / mine:>11.2f} {used:>6.1%}")
        rows[label] = {"seconds": value, "mfu": used}
    if args.json:
        about = {"device": name, "family": args.family, "steps": args.steps, "rate": rate}
        args.json.write_text(json.dumps({"about": about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
