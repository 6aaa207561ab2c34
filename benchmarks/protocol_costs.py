"""What whole protocols cost in denoiser evaluations, beside drawing each picture alone.

    python benchmarks/protocol_costs.py                 # counts only: nothing is drawn
    python benchmarks/protocol_costs.py --rules 16      # also seconds a picture under each rule

Three protocols on the miniature: a quality run of eight methods, a removal run of every rule with
all its arms, a sweep of windows. "alone" draws the treated picture, its twin and every arm for each
method by itself, as scripts that know nothing of one another do; "distinct" leaves out equal
requests; "needed" also shares the model calls that pictures of one noise have in common. With
``--rules N`` the same N pictures are drawn under every guidance rule, rounds alternating.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from negbench.generators.base import RunOptions
from negbench.plan import Resolved, make_plan

METHODS = ("none", "static", "human", "popular", "nearest", "placebo", "negopt", "sampled=negopt")
RULES = ("composable_not", "perp_neg", "sld", "ccfg", "nag", "nasa", "vsf")


def quality() -> Resolved:
    """Eight methods on miniature-quality."""
    return make_plan(
        methods=METHODS,
        method_params={"static.list": "miniature", "sampled.decode": "sample"},
    )


def joined(plans: Iterable[Resolved]) -> Resolved:
    """Several plans of one benchmark as one."""
    first, *others = plans
    for other in others:
        first.jobs += other.jobs
    return first


def removal() -> Resolved:
    """Every rule on miniature-removal."""
    return joined(
        make_plan(benchmark="miniature-removal", methods=["concept"], guidance=rule)
        for rule in (None, "window", *RULES)
    )


def windows() -> Resolved:
    """Ten windows on miniature-removal, as a sweep draws them."""
    return joined(
        make_plan(
            benchmark="miniature-removal",
            methods=["concept"],
            guidance="window",
            guidance_params={"start": start, "stop": 25},
        )
        for start in range(0, 20, 2)
    )


def count(resolved: Resolved) -> dict[str, int]:
    """Evaluations of a plan: alone, distinct, needed."""
    draw = resolved.generator
    known: dict[str, int] = {}
    alone = 0
    for job in resolved.jobs:
        for wanted in resolved.mine(job):
            for key, request in wanted.requests().items():
                known.setdefault(key, draw.evaluations(request))
            alone += sum(known[key] for key in wanted.keys().values())
    return {
        "runs": len(resolved.jobs),
        "pictures": len(known),
        "alone": alone,
        "distinct": sum(known.values()),
        "needed": draw.needed(list(resolved.requests().values())),
    }


def rules(images: int, *, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Seconds and evaluations a picture under each rule."""
    from negbench.generators.resolve import resolve
    from negbench.guidance import rules as registry
    from negbench.types import Guidance, ImageRequest, Negative, Treatment

    generator = resolve("miniature", params={"steps": steps}, options=RunOptions(device="cpu"))
    work: dict[str, list[ImageRequest]] = {}
    for kind in ("cfg", *RULES):
        config = registry.get(kind).Config()
        params = config.model_dump(mode="json")
        work[kind] = [
            ImageRequest(
                generator=generator.ref(),
                treatment=Treatment(
                    prompt="a professor",
                    negatives=(Negative(text="glasses"),),
                    guidance=Guidance(kind=kind, scale=4.0, params=params),
                ),
                seed=seed,
            )
            for seed in range(images)
        ]
    best = dict.fromkeys(work, float("inf"))
    for number in range(rounds + 1):
        for kind, requests in work.items():
            start = time.perf_counter()
            for _ in generator.draw(requests):
                pass
            if number:
                best[kind] = min(best[kind], (time.perf_counter() - start) / images)
    return {
        kind: {"seconds": best[kind], "evaluations": generator.evaluations(work[kind][0])}
        for kind in work
    }


def main() -> None:
    """Count, perhaps draw, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rules", type=int, default=0, metavar="N", help="pictures a rule")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": platform.processor() or platform.machine()}
    heads = ("pictures", "alone", "distinct", "needed")
    print(
        f"{'protocol':34} {'pictures':>9} {'alone':>9} {'distinct':>9} {'needed':>9} {'share':>6}"
    )
    for name, make in (
        ("quality, 8 methods", quality),
        ("removal, 9 rules, 3 arms", removal),
        ("sweep of 10 windows, 3 arms", windows),
    ):
        row = count(make())
        report[name] = row
        cells = "".join(f"{row[head]:>10}" for head in heads)
        print(f"{name:30}{cells}{row['needed'] / row['alone']:>8.1%}", flush=True)
    if args.rules:
        found = rules(args.rules, rounds=args.rounds, steps=args.steps)
        plain = found["cfg"]["seconds"]
        print(f"\n{'rule':16} {'evaluations':>11} {'s/picture':>10} {'x plain CFG':>12}")
        for kind, row in found.items():
            print(
                f"{kind:16} {row['evaluations']:>11.0f} {row['seconds']:>10.4f} "
                f"{row['seconds'] / plain:>12.2f}"
            )
        report["rules"] = found
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
