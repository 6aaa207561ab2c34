"""Small runs of the fake generator for tests: metrics one can check by hand, prompts, options."""

from __future__ import annotations

import numpy as np

from negbench.metrics import SetMetric, metrics
from negbench.metrics.base import ImageMetric
from negbench.registry import Entry
from negbench.types import Score

CASES = "id,prompt,concept,category,related\n" + "".join(
    f"c{n},a castle number {n // 2},{concept},noun_object,\n"
    for n, concept in enumerate(["moat", "flag", "tower", "knight", "drawbridge", "banner"])
)
"""What to remove, two cases a prompt."""


class Brightness(ImageMetric):
    """Mean grey level."""

    unit = "grey"

    def score(self, items):
        return [Score.of(item.pixels.mean()) for item in items]


class Sameness(ImageMetric):
    """Share of values that an image has in common with its twin."""

    needs_twin = True

    def score(self, items):
        return [
            Score.missing("no twin")
            if item.twin is None
            else Score.of((item.pixels == item.twin).mean())
            for item in items
        ]


class MeanRow(SetMetric):
    """Mean of the first pixel over a set."""

    unit = "grey"

    def rows(self, items):
        return np.stack([item.pixels[0, 0].astype(np.float32) for item in items])

    def value(self, rows):
        return float(rows.mean())


class StubPresence(ImageMetric):
    """Seen where the first pixels are bright; depends on image and concept alone."""

    unit = "share"
    bounds = (0.0, 1.0)
    higher_is_better = False

    def score(self, items):
        shifts = [sum(map(ord, str(item.case.concept))) % 7 for item in items]
        return [
            Score.of(float(item.pixels.reshape(-1)[shift : shift + 3].mean() / 255))
            for item, shift in zip(items, shifts, strict=True)
        ]


def use_metrics(monkeypatch, **kinds):
    """Metrics by name, for one test: in place of all local ones and of built-ins of that name."""
    found = {name: Entry(name, "a test", "", kind) for name, kind in kinds.items()}
    monkeypatch.setattr(metrics, "_local", found)


def castles(count, *, even="noisy"):
    """CSV of prompts; negatives are "blurry" and, of every other prompt, `even`."""
    return "id,prompt,negative\n" + "".join(
        f"c{n},a castle number {n},{'blurry' if n % 2 else even}\n" for n in range(count)
    )


def plan_options(folder, *, size=16, steps=4):
    """What `make_plan` needs, beside methods and prompts, to have tiny pictures drawn."""
    return {
        "generator": "fake",
        "generator_params": {"size": size, "steps": steps},
        "replicates": 2,
        "out": folder / "runs",
        "cache": folder / "cache",
    }


def write_castles(folder, *, wanted, replicates=2):
    """A removal benchmark with the metrics `wanted`, and beside it `CASES` as cases.csv."""
    bench = folder / "castles.toml"
    bench.write_text(
        'name = "castles"\nversion = 1\nprotocol = "removal"\nsummary = "s"\n'
        f'replicates = {replicates}\ngenerator = "fake"\n[data]\nsource = "none"\n'
        "[guidance]\nscale = 4.0\n" + "".join(f"[metrics.{name}]\n" for name in wanted)
    )
    (folder / "cases.csv").write_text(CASES)
    return bench


def removal_options(bench, *, steps=4):
    """What `make_plan` needs, beside methods, for a benchmark of `write_castles`."""
    return {
        "benchmark": str(bench),
        "generator_params": {"size": 16, "steps": steps},
        "prompts": bench.parent / "cases.csv",
        "out": bench.parent / "runs",
        "cache": bench.parent / "cache",
    }
