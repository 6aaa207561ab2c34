"""The start / stop grid of a negative prompt: what drawing nothing twice saves.

    python benchmarks/grid_sharing.py [--calls 30] [--cases 1] [--pipeline FOLDER] [--json FILE]

A grid is one twin and one picture for every window [start, stop) of the schedule, all of one prompt
and one noise. It is drawn twice: with what the pictures have in common drawn once, and every
picture on its own, both in full batches by the same loop. Denoiser evaluations are counted where
the network is called; the pictures are compared byte for byte. ``--every 3`` takes every third
start and stop only, for a slow machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from pathlib import Path
from typing import Any

CASES = (
    ("a professor", "glasses"),
    ("a house in the snow", "tree"),
    ("a red car", "flag"),
    ("a cat", "hat"),
)


def grid(generator: Any, *, calls: int, every: int, cases: int, scale: float) -> list[Any]:
    """The requests of `cases` grids."""
    from negbench.types import Guidance, ImageRequest, Negative, Treatment

    edges = [*range(0, calls, every), calls]
    requests = []
    for number in range(cases):
        prompt, text = CASES[number % len(CASES)]
        treatments = [Treatment(prompt=prompt, guidance=Guidance(scale=scale))]
        treatments += [
            Treatment(
                prompt=prompt,
                negatives=(Negative(text=text),),
                guidance=Guidance(
                    kind="window", scale=scale, params={"start": start, "stop": stop}
                ),
            )
            for start, stop in itertools.combinations(edges, 2)
        ]
        requests += [
            ImageRequest(generator=generator.ref(), treatment=item, seed=number)
            for item in treatments
        ]
    return requests


def measure(generator: Any, requests: list[Any]) -> tuple[dict[str, Any], float, int, int]:
    """Pictures by key, seconds, evaluations as reported, and rows of the denoiser's calls."""
    rows = 0
    network = generator.load()  # loading is not measured

    def count(module: Any, args: Any) -> None:
        nonlocal rows
        rows += len(args[0])

    handle = network.unet.register_forward_pre_hook(count)
    start = time.perf_counter()
    drawn = {item.key: item for item in generator.draw(requests)}
    seconds = time.perf_counter() - start
    handle.remove()
    made = sum(item.evaluations - item.shared for item in drawn.values())
    return drawn, seconds, made, rows


def main() -> None:
    """Count, draw and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pipeline", default="miniature")
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--scheduler", default="ddim")
    parser.add_argument("--count-only", action="store_true", help="draw nothing")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()

    import torch

    from negbench.generators.base import RunOptions
    from negbench.generators.resolve import resolve

    generator: Any = resolve(
        args.pipeline,
        params={"steps": args.calls, "scheduler": args.scheduler, "dtype": "float32"},
        options=RunOptions(device="cpu"),
    )
    work = {"every": args.every, "cases": args.cases, "scale": args.scale}
    calls = generator.evaluations(grid(generator, calls=1, **{**work, "cases": 1})[0]) // 2
    requests = grid(generator, calls=calls, **work)
    naive = sum(generator.evaluations(request) for request in requests)
    needed = generator.needed(requests)
    report: dict[str, Any] = {
        "pictures": len(requests),
        "model_calls": calls,
        "scheduler": args.scheduler,
        "evaluations_naive": naive,
        "evaluations_needed": needed,
        "share": needed / naive,
    }
    print(f"{len(requests)} pictures of {calls} model calls, {args.cases} prompts")
    print(f"evaluations  {naive} if every picture is drawn alone")
    print(f"             {needed} needed, {needed / naive:.1%}")
    if not args.count_only:
        shared, fast, made, rows = measure(generator, requests)
        generator.share = False
        alone, slow, made_alone, rows_alone = measure(generator, requests)
        same = sum(bool((shared[key].pixels == alone[key].pixels).all()) for key in alone)
        print(f"made         {made} with sharing, {made_alone} without")
        print(f"rows         {rows} with sharing, {rows_alone} without, padding included")
        print(f"seconds      {fast:.1f} with sharing, {slow:.1f} without: {slow / fast:.2f} times")
        print(f"same pixels  {same} of {len(requests)} pictures")
        report |= {
            "evaluations_made": [made, made_alone],
            "rows": [rows, rows_alone],
            "seconds": [fast, slow],
            "speedup": slow / fast,
            "same_pixels": same,
            "threads": torch.get_num_threads(),
            "machine": platform.processor() or platform.machine(),
        }
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
