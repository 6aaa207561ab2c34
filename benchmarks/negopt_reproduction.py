"""NegOpt on the miniature in one command: train both stages, compare with rivals, print tables.

    python benchmarks/negopt_reproduction.py --out negopt-reproduction --seeds 0 1 2

Claims (a) to (c) of docs/reproduction.md. Every part is resumable: the same command goes on.
Needs no network. With two CPU cores and the defaults it takes about two hours; `--claims a` alone
takes less, and the stages can be taken from checkpoints that exist (`--sft`, `--rl`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from negbench.compare.compare import compare_runs
from negbench.compare.tables import as_text
from negbench.evaluate import evaluate
from negbench.plan import make_plan
from negbench.progress import silent
from negbench.record import Record, read_samples
from negbench.reward.fidelity import divergence
from negbench.reward.terms import Reward, read_reward
from negbench.stats import mean_summary, paired_contrast
from negbench.store import FeatureStore, ImageStore, default_cache
from negbench.train.plots import draw_sheet
from negbench.train.rl import MINIATURE_RL, RlSettings, train_rl
from negbench.train.sft import MINIATURE_SFT, SftSettings, train_sft

WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "aesthetic": {"aesthetic": 1, "clip_alignment": 0, "fidelity": 0},
    "alignment": {"aesthetic": 0, "clip_alignment": 1, "fidelity": 0},
    "fidelity": {"aesthetic": 0, "clip_alignment": 0, "fidelity": 1},
}
METRICS = ("inception_score", "aesthetic", "clip_alignment", "ssim", "no_op")
TRANSFER: Mapping[str, Mapping[str, Any]] = {
    "as trained on": {},
    "12 steps": {"generator_params": {"steps": 12}},
    "scale 2": {"scale": 2.0},
    "scale 6": {"scale": 6.0},
    "window [5, 16)": {"guidance": "window", "guidance_params": {"start": 5, "stop": 16}},
    "perp_neg": {"guidance": "perp_neg"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("negopt-reproduction"))
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=MINIATURE_RL["steps"])
    parser.add_argument(
        "--weight-seeds", type=int, nargs="+", default=[0], help="seeds of claim (b)"
    )
    parser.add_argument("--weights", nargs="+", choices=list(WEIGHTS), help="rows of claim (b)")
    parser.add_argument("--claims", default="abc", help="some of a, b and c")
    parser.add_argument("--sft", type=Path, help="a fine-tuned checkpoint in place of a new one")
    parser.add_argument("--rl", type=Path, nargs="*", help="checkpoints in place of new ones")
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="LABEL=CHECKPOINT",
        help="more NegOpt checkpoints for the table of claim (a), such as sft-all=miniature",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=None, help="the first so many prompts")
    parser.add_argument("--search-images", type=int, default=48)
    parser.add_argument("--without-search", action="store_true")
    args = parser.parse_args()
    sft = args.sft or _sft(args)
    rl = list(args.rl) if args.rl else [_rl(args, sft, seed) for seed in args.seeds]
    found: dict[str, Any] = {"sft": str(sft), "rl": [str(path) for path in rl]}
    if "a" in args.claims:
        found["a"] = _claim_a(args, sft, rl)
    if "b" in args.claims:
        found["b"] = _claim_b(args, sft, rl)
    if "c" in args.claims:
        found["c"] = _claim_c(args, sft, rl)
    path = args.out / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    print(f"all numbers: {path}")


def _sft(args: argparse.Namespace) -> Path:
    print("stage 1", file=sys.stderr)
    out: Path = args.out / "sft"
    train_sft(SftSettings.model_validate(MINIATURE_SFT), out=out)
    return out / "checkpoint"


def _rl(
    args: argparse.Namespace, sft: Path, seed: int, *, name: str = "rl",
    reward: Mapping[str, float] | None = None,
) -> Path:  # fmt: skip
    print(f"stage 2, {name}, seed {seed}", file=sys.stderr)
    out: Path = args.out / f"{name}-{seed}"
    asked = {**MINIATURE_RL, "init": str(sft), "seed": seed, "steps": args.steps}
    if reward is not None:
        asked["reward"] = dict(reward)
    train_rl(RlSettings.model_validate(asked), out=out, cache=args.cache)
    return out / "checkpoint"


def _run(args: argparse.Namespace, methods: Sequence[str], **more: Any) -> list[Record]:
    plan = make_plan(
        benchmark="miniature-quality", methods=methods, metrics=METRICS, limit=args.limit,
        out=args.out / "runs", cache=args.cache, progress=silent, **more,
    )  # fmt: skip
    return evaluate(plan)


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for one in record.estimates:
        row[one.metric] = {"value": one.value, "ci95": one.ci95, "n": one.n_scored}
    for pair in record.paired:
        row[f"{pair.metric} - twin"] = {"value": pair.delta, "ci95": pair.ci95, "p": pair.p}
    return row


def _table(title: str, rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> None:
    print(f"\n{title}\n")
    print("| | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name, row in rows.items():
        cells = []
        for column in columns:
            found = row.get(column)
            if not found or found["value"] is None:
                cells.append("")
                continue
            interval = found.get("ci95")
            shown = f"{found['value']:.3f}"
            cells.append(shown + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""))
        print(f"| {name} | " + " | ".join(cells) + " |")


def _negopt(paths: Mapping[str, str | Path]) -> tuple[list[str], dict[str, Any]]:
    methods = [f"{label}=negopt" for label in paths]
    return methods, {f"{label}.checkpoint": str(path) for label, path in paths.items()}


def _claim_a(args: argparse.Namespace, sft: Path, rl: Sequence[Path]) -> dict[str, Any]:
    """SFT+RL against SFT, people, popular tags, none, a placebo and a search."""
    paths: dict[str, str | Path] = {"sft": sft, **{f"rl{i}": path for i, path in enumerate(rl)}}
    for given in args.also:
        label, _, checkpoint = given.partition("=")
        paths[label] = checkpoint
    methods, params = _negopt(paths)
    methods = ["none", "human", "popular", "nearest", "placebo", *methods]
    if not args.without_search:
        methods.append("search")
        params |= {"search.reward": str(rl[0]), "search.images": str(args.search_images)}
    records = _run(args, methods, method_params=params)
    rows = {record.label: _row(record) for record in records}
    columns = ["inception_score", "aesthetic", "clip_alignment", "ssim"]
    _table("(a) methods on the test split", rows, columns)
    gains = [f"{name} - twin" for name in columns[:3]]
    _table("(a) gains over the twin", rows, gains)
    reward = read_reward(rl[0])
    worth = {record.label: _rewards(record, reward) for record in records}
    _table("(a) reward, in SD of the SFT model's gains", {
        label: {"reward": _summary(values)} for label, values in worth.items()
    }, ["reward"])  # fmt: skip
    learnt = [f"rl{i}" for i in range(len(rl))]
    ours = _mean_of([worth[label] for label in learnt])
    others = [label for label in worth if label not in learnt]
    against = {label: {"difference": _difference(ours, worth[label])} for label in others}
    _table("(a) mean reward of all seeds of SFT+RL minus the reward of", against, ["difference"])
    for label, cells in against.items():
        found = cells["difference"]
        print(
            f"against {label}: p = {found['p']:.2g}, detectable at 80 % power: "
            f"{found['detectable']:.2g}, n = {found['n']}, prompts = {found['prompts']}"
        )
    compared = as_text(compare_runs(
        [r for r in records if r.label not in learnt[1:]], metrics=columns[:3], baseline="rl0"
    ))  # fmt: skip
    (args.out / "compare.txt").write_text(compared + "\n")
    _extremes(args, next(r for r in records if r.label == "rl0"), worth["rl0"])
    return {
        "rows": rows, "folders": {r.label: str(r.folder) for r in records},
        "reward": {label: _summary(values) for label, values in worth.items()},
        "against": {label: cells["difference"] for label, cells in against.items()},
    }  # fmt: skip


Worth = dict[tuple[str, int], tuple[str, float]]
"""(case, replicate) -> (prompt, reward)."""


def _rewards(record: Record, reward: Reward) -> Worth:
    """The frozen reward of every sample of a run, from its scores and class probabilities."""
    assert record.folder is not None
    rows = FeatureStore(record.folder, record.metrics["inception_score"], kind="rows")
    terms = {term.name: term for term in reward.terms}
    found: Worth = {}
    for sample in read_samples(record.folder).values():
        total = 0.0
        for name, term in terms.items():
            if name == "fidelity":
                chances = np.stack([rows[sample.treated.image], rows[sample.twin.image]])
                values = divergence(chances, np.asarray(term.params["marginal"]))
                treated, twin = np.minimum(values, term.params["bound"])
            else:
                treated = sample.treated.scores[name].value
                twin = sample.twin.scores[name].value
            total += term.weight * term.sign * float(treated - twin) / term.scale
        found[sample.case, sample.replicate] = (sample.prompt, total)
    return found


def _summary(values: Worth) -> dict[str, Any]:
    found = mean_summary([v for _, v in values.values()], [p for p, _ in values.values()])
    return {"value": found.value, "ci95": found.ci95, "n": found.n_scored}


def _mean_of(all_values: Sequence[Worth]) -> Worth:
    first = all_values[0]
    return {k: (p, float(np.mean([v[k][1] for v in all_values]))) for k, (p, _) in first.items()}


def _difference(ours: Worth, theirs: Worth) -> dict[str, Any]:
    keys = list(ours)
    prompts = [ours[key][0] for key in keys]
    first, second = [ours[key][1] for key in keys], [theirs[key][1] for key in keys]
    found = paired_contrast(first, second, prompts)
    means: dict[str, list[float]] = {}
    for prompt, a, b in zip(prompts, first, second, strict=True):
        means.setdefault(prompt, []).append(a - b)
    sd = float(np.std([np.mean(v) for v in means.values()], ddof=1)) if len(means) > 1 else 0.0
    return {
        "value": found.delta, "ci95": found.ci95, "p": found.p, "n": len(keys),
        "prompts": len(means), "detectable": 2.8 * sd / len(means) ** 0.5,
    }  # fmt: skip


def _extremes(args: argparse.Namespace, record: Record, values: Worth) -> None:
    """Sheets of the largest gains and losses of the first SFT+RL model."""
    assert record.folder is not None
    samples = read_samples(record.folder)
    store = ImageStore(args.cache or default_cache())
    ranked = sorted(values, key=lambda key: values[key][1])
    for name, keys in (("losses", ranked[:6]), ("gains", ranked[::-1][:6])):
        rows = []
        for key in keys:
            sample = samples[key]
            pictures = []
            for title, text, image in (
                ("no negative", "", sample.twin.key),
                (f"reward {values[key][1]:+.1f}", sample.treatment.negative_text(),
                 sample.treated.key),
            ):  # fmt: skip
                stored = store.get(image)
                pixels = store.load(stored) if stored is not None else None
                if pixels is not None:
                    pictures.append((title, text, pixels))
            rows.append((sample.prompt, pictures))
        draw_sheet(rows, args.out / f"largest-{name}.png")


def _claim_b(args: argparse.Namespace, sft: Path, rl: Sequence[Path]) -> dict[str, Any]:
    """Does each weight lift its own metric most?"""
    paths = {f"equal{i}": path for i, path in enumerate(rl)}
    paths |= {f"{name}{seed}": _rl(args, sft, seed, name=f"rl-{name}", reward=weights)
              for name, weights in WEIGHTS.items() for seed in args.weight_seeds
              if not args.weights or name in args.weights}  # fmt: skip
    methods, params = _negopt(paths)
    rows = {r.label: _row(r) for r in _run(args, methods, method_params=params)}
    columns = [f"{m} - twin" for m in ("aesthetic", "clip_alignment", "inception_score")]
    _table("(b) gains over the twin by reward weights", rows, columns)
    return {"rows": rows}


def _claim_c(args: argparse.Namespace, sft: Path, rl: Sequence[Path]) -> dict[str, Any]:
    """Does what reward found carry over to other settings of the generator?"""
    methods, params = _negopt({"sft": sft, "rl": rl[0]})
    rows: dict[str, Any] = {}
    for name, more in TRANSFER.items():
        for record in _run(args, methods, method_params=params, **more):
            rows[f"{record.label}, {name}"] = _row(record)
    columns = [f"{m} - twin" for m in ("aesthetic", "clip_alignment", "inception_score")]
    _table("(c) gains over the twin under other settings", rows, columns)
    return {"rows": rows}


if __name__ == "__main__":
    main()
