"""Seconds a picture with 1 to N Ray workers on this machine, beside one process without Ray.

    python benchmarks/ray_scaling.py [--workers 1 2] [--images 64] [--json FILE]

The miniature, drawn with one thread a worker, so that N workers need N cores. Pictures are compared
byte for byte with those of the one process. Starting the cluster and loading are not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from negbench.cluster import RayPool
from negbench.generators.base import RunOptions
from negbench.generators.resolve import resolve
from negbench.types import Guidance, ImageRequest, Negative, Treatment


def requests_of(generator: Any, images: int, *, first: int) -> list[ImageRequest]:
    """`images` different requests."""
    treatment = Treatment(
        prompt="a professor", negatives=(Negative(text="glasses"),), guidance=Guidance(scale=4.0)
    )
    return [
        ImageRequest(generator=generator.ref(), treatment=treatment, seed=first + seed)
        for seed in range(images)
    ]


def timed(drawer: Any, requests: list[ImageRequest]) -> tuple[float, dict[str, bytes]]:
    """Seconds, and the pixels by key."""
    start = time.perf_counter()
    drawn = {item.key: item.pixels.tobytes() for item in drawer.draw(requests)}
    return time.perf_counter() - start, drawn


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    generator = resolve("miniature", params={"steps": args.steps}, options=RunOptions(device="cpu"))
    work = requests_of(generator, args.images, first=0)
    warm = requests_of(generator, 64, first=10_000)
    timed(generator, warm[:2])
    alone, pixels = timed(generator, work)
    print(f"{args.images} images, {args.steps} steps, one thread a worker, {os.cpu_count()} cores")
    print(f"{'':12} {'s/image':>9} {'x one process':>14} {'same pixels':>12}")
    print(f"{'one process':12} {alone / args.images:>9.4f} {1.0:>14.2f}")
    rows = {"0": alone / args.images}
    for count in args.workers:
        fresh = resolve("miniature", params={"steps": args.steps}, options=generator.options)
        pool = RayPool(fresh, address="local", workers=count)
        try:
            timed(pool, warm)
            seconds, drawn = timed(pool, work)
        finally:
            pool.close()
        rows[str(count)] = seconds / args.images
        same = sum(drawn[key] == pixels[key] for key in pixels)
        print(
            f"{count:>2} workers   {seconds / args.images:>9.4f} {alone / seconds:>14.2f} "
            f"{same:>8} of {len(pixels)}",
            flush=True,
        )
    if args.json is not None:
        args.json.write_text(json.dumps({"images": args.images, "seconds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
