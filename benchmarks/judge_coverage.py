"""How often the stated 95 % of corrected removal rates holds: the table of docs/judges.md.

    python benchmarks/judge_coverage.py [WORLDS]

Each world has prompts with rates of their own, units whose twin shows the concept or not, a removal
that works or not, and a judge that errs on twins and, differently, on treated pictures; people
label a random part. Printed is the share of worlds whose interval covers the rate that the world
was made with.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

import numpy as np

from negbench.judges.corrected import corrected_ratio


@dataclass(frozen=True)
class World:
    """What a world is made with."""

    prompts: int = 60
    each: int = 8
    labelled: int = 200
    shown: float = 0.6
    removed: float = 0.5
    finds: float = 0.9
    finds_after: float = 0.7
    spared: float = 0.9
    likeness: float = 4.0


PLAIN = World()
WORLDS = {
    "judge finds 90 % in twins, 70 % in treated pictures": PLAIN,
    "a good judge (99 %)": replace(PLAIN, finds=0.99, finds_after=0.99, spared=0.99),
    "a bad judge (60 %, 50 %)": replace(PLAIN, finds=0.6, finds_after=0.5, spared=0.6),
    "nearly all removed": replace(PLAIN, removed=0.95),
    "hardly any removed": replace(PLAIN, removed=0.05),
    "few twins show it (20 %)": replace(PLAIN, shown=0.2),
    "20 prompts of 12 units, 100 labelled": replace(PLAIN, prompts=20, each=12, labelled=100),
    "prompts unlike one another": replace(PLAIN, likeness=1.0),
    "60 labelled": replace(PLAIN, labelled=60),
    "nearly all removed, good judge": replace(
        PLAIN, removed=0.97, finds=0.99, finds_after=0.99, spared=0.99
    ),
}


def coverage(world: World, count: int) -> tuple[float, float]:
    """Share of `count` worlds whose interval covers the truth, and the judge's own mean rate."""
    rng = np.random.default_rng(1)
    n = world.prompts * world.each
    names = [f"p{i}" for i in np.arange(world.prompts).repeat(world.each)]
    hits, alone = 0, []

    def rates(mean: float) -> np.ndarray:
        a, b = mean * world.likeness, (1 - mean) * world.likeness
        return rng.beta(a, b, world.prompts).repeat(world.each)

    for _ in range(count):
        shown, removed = rates(world.shown), rates(world.removed)
        twin = rng.random(n) < shown
        arm = np.where(rng.random(n) < removed, False, twin)
        arm = np.where(~twin, rng.random(n) < 0.08, arm)
        said_twin = np.where(twin, rng.random(n) < world.finds, rng.random(n) > world.spared)
        said_arm = np.where(arm, rng.random(n) < world.finds_after, rng.random(n) > world.spared)
        chosen = np.zeros(n, dtype=bool)
        chosen[rng.choice(n, world.labelled, replace=False)] = True
        people = tuple(np.where(chosen, x, np.nan) for x in (twin & ~arm, twin))
        judge = ((said_twin & ~said_arm).astype(float), said_twin.astype(float))
        found = corrected_ratio(judge, people, names)
        hits += found.ci95 is not None and found.ci95[0] <= world.removed <= found.ci95[1]
        alone.append(found.judge)
    return hits / count, float(np.mean(alone))


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(f"| world | covered of {count} | judge alone says | truth |\n|---|---|---|---|")
    for name, world in WORLDS.items():
        covered, alone = coverage(world, count)
        print(f"| {name} | {covered:.1%} | {alone:.3f} | {world.removed} |", flush=True)


if __name__ == "__main__":
    main()
