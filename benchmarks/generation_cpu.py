"""Seconds an image: negbench's denoising loop beside diffusers' pipeline, same weights, same work.

    python benchmarks/generation_cpu.py [--pipeline FOLDER] [--images 64] [--rounds 3] [--json FILE]

Both draw the same prompts with the same negative prompts, steps and scale. Rounds alternate between
the two, so that other work on the machine weighs on both, and each is judged by its best round; on
a busy machine ``--clock cpu`` is the fairer one. diffusers runs one prompt a call and at batch
sizes 8, 32 and 64; the ratio is to its best. negbench runs as it is and as ``--compile`` makes it,
where this machine has a C++ compiler; compiling itself is timed apart.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPTS = ("a professor", "a house in the snow", "a red car", "a man with a hat")
NEGATIVES = ("glasses", "tree", "blurry", "beard")


def default_pipeline() -> Path | None:
    """The miniature, if this installation has its weights."""
    from negbench.miniature import pipeline_dir

    folder = pipeline_dir()
    return folder if (folder / "model_index.json").is_file() else None


def negbench_runner(
    folder: Path, *, steps: int, scale: float, images: int, compiled: bool = False
) -> Callable[[], Any]:
    """Draws all images with the generator in canonical mode."""
    from negbench.generators.base import RunOptions
    from negbench.generators.resolve import resolve
    from negbench.types import Guidance, ImageRequest, Negative, Treatment

    generator = resolve(
        str(folder), params={"steps": steps, "dtype": "float32"},
        options=RunOptions(device="cpu", compile=compiled),
    )  # fmt: skip
    requests = [
        ImageRequest(
            generator=generator.ref(),
            treatment=Treatment(
                prompt=PROMPTS[i % len(PROMPTS)],
                negatives=(Negative(text=NEGATIVES[i % len(NEGATIVES)]),),
                guidance=Guidance(scale=scale),
            ),
            seed=i,
        )
        for i in range(images)
    ]
    return lambda: sum(item.pixels.size for item in generator.draw(requests))


def diffusers_runner(
    pipe: Any, batch: int, *, steps: int, scale: float, images: int
) -> Callable[[], Any]:
    """Draws all images with ``StableDiffusionPipeline``, `batch` at a time."""
    import torch

    def run() -> None:
        for start in range(0, images, batch):
            rows = range(start, min(images, start + batch))
            pipe(
                [PROMPTS[i % len(PROMPTS)] for i in rows],
                negative_prompt=[NEGATIVES[i % len(NEGATIVES)] for i in rows],
                guidance_scale=scale,
                num_inference_steps=steps,
                generator=[torch.Generator("cpu").manual_seed(i) for i in rows],
            )

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pipeline", type=Path, default=None)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="judge by processor seconds where other work keeps the machine busy",
    )
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    folder = args.pipeline or default_pipeline()
    if folder is None:
        parser.error("this installation has no miniature; give --pipeline FOLDER")

    import diffusers
    import torch

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(str(folder), low_cpu_mem_usage=False)
    for part in (pipe.text_encoder, pipe.unet, pipe.vae):
        part.to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    work = {"steps": args.steps, "scale": args.scale}
    images = {f"diffusers, batch {size}": args.images for size in args.batches}
    if 1 in args.batches:
        images["diffusers, batch 1"] = max(4, args.images // 8)  # slow, and linear in images
    runners: dict[str, Callable[[], Any]] = {
        name: diffusers_runner(pipe, size, images=count, **work)
        for (name, count), size in zip(images.items(), args.batches, strict=True)
    }
    ours = {"negbench": False}
    if shutil.which("g++"):
        ours["negbench --compile"] = True
    started: dict[str, float] = {}
    for name, compiled in ours.items():
        images[name] = args.images
        runners[name] = negbench_runner(folder, images=args.images, compiled=compiled, **work)
    for name in (*ours, next(iter(runners))):
        begin = time.perf_counter()
        runners[name]()  # loading and first calls are not measured with the others
        started[name] = time.perf_counter() - begin
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    taken: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in runners} for kind in clocks
    }
    for _ in range(args.rounds):
        for name, run in runners.items():
            start = {kind: clock() for kind, clock in clocks.items()}
            run()
            for kind, clock in clocks.items():
                taken[kind][name].append((clock() - start[kind]) / images[name])
    best = {name: min(values) for name, values in taken[args.clock].items()}
    peer = min((name for name in best if name not in ours), key=lambda name: best[name])
    print(
        f"{torch.get_num_threads()} threads, {args.images} images, {args.steps} steps, "
        f"{args.clock} seconds an image, best of {args.rounds} rounds, {folder}"
    )
    for name, value in sorted(best.items(), key=lambda item: item[1]):
        print(f"{name:24} {value:8.4f}   {value / best['negbench']:6.2f} x negbench")
    ratios = {name: best[peer] / best[name] for name in ours}
    for name, ratio in ratios.items():
        print(f"{name} draws {ratio:.2f} times the images a second of {peer}, its best")
    if "negbench --compile" in ours:
        extra = started["negbench --compile"] - started["negbench"]
        print(
            f"compiling took {extra:.0f} s at the first call (less where torch has it in its cache)"
        )
    if args.json is not None:
        about = {
            "machine": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "pipeline": folder.name,
            "images": args.images,
            "steps": args.steps,
        }
        report = {"about": about, "seconds_per_image": taken, "peer": peer, "ratios": ratios}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
