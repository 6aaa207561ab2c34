"""Every guidance rule on miniature-removal: what each takes out, by chance or not, at what cost.

python benchmarks/removal_rules.py --replicates 4 > table.md

Prints a Markdown table with intervals by prompt, Holm's p over the rules, and the command of each
row. All rules share twins and the arm of plain guidance; a killed run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from negbench.evaluate import evaluate
from negbench.numbers import p_value
from negbench.plan import Resolved, make_plan
from negbench.progress import progress_bar
from negbench.protocols.removal_table import holm_of
from negbench.record import Record

RULES: dict[str, tuple[str, dict[str, object]]] = {
    "cfg at every step": ("cfg", {}),
    "window 0..4": ("window", {"start": 0, "stop": 5}),
    "window 5..15": ("window", {"start": 5, "stop": 16}),
    "window 5..24": ("window", {"start": 5}),
    "composable_not": ("composable_not", {}),
    "perp_neg": ("perp_neg", {}),
    "sld": ("sld", {}),
    "ccfg": ("ccfg", {}),
    "nag": ("nag", {}),
    "nasa": ("nasa", {}),
    "vsf": ("vsf", {}),
}
SHOWN = ("net_removal", "rsr", "rsr_placebo", "rrsr", "cr", "reverse_activation", "ssim")


def command(rule: str, params: dict[str, object], options: argparse.Namespace) -> str:
    given = "".join(f" -g {key}={value}" for key, value in params.items())
    guidance = "" if rule == "cfg" else f" --guidance {rule}{given}"
    limit = f" --limit {options.limit}" if options.limit else ""
    return (
        f"negbench evaluate -b {options.benchmark} -m concept{guidance} "
        f"--replicates {options.replicates}{limit}"
    )


def cell(record: Record, metric: str) -> str:
    found = next((e for e in record.estimates if e.metric == metric), None)
    if found is None or found.value is None:
        return "-"
    ends = "" if found.ci95 is None else " [{:.2f}, {:.2f}]".format(*found.ci95)
    return f"{found.value:.2f}{ends}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmark", default="miniature-removal")
    parser.add_argument("--replicates", type=int, default=4)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--rule", action="append", choices=list(RULES), help="default: all")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    options = parser.parse_args()
    chosen = {name: RULES[name] for name in options.rule or RULES}
    whole: Resolved | None = None
    for rule, params in chosen.values():
        setting = make_plan(
            benchmark=options.benchmark,
            methods=["concept"],
            guidance=rule,
            guidance_params=params,
            replicates=options.replicates,
            limit=options.limit,
            out=options.out,
        )
        if whole is None:
            whole = setting
        else:
            whole.jobs += setting.jobs
    assert whole is not None
    started = time.monotonic()
    records = evaluate(whole, progress=progress_bar, command=" ".join(sys.argv))
    print(
        f"{whole.benchmark.title}, {len(whole.cases)} cases, {options.replicates} noises each, "
        f"{len(whole.requests())} pictures, {time.monotonic() - started:.0f} s"
    )
    print()
    print("| rule | " + " | ".join(SHOWN) + " | p (Holm) | n |")
    print("|---" * (len(SHOWN) + 3) + "|")
    for name, record, p in zip(chosen, records, holm_of(records), strict=True):
        n = next(e.n_scored for e in record.estimates if e.metric == "net_removal")
        cells = [name, *(cell(record, metric) for metric in SHOWN), p_value(p), str(n)]
        print("| " + " | ".join(cells) + " |")
    print()
    for name, (rule, params) in chosen.items():
        print(f"    {command(rule, params, options)}    # {name}")


if __name__ == "__main__":
    main()
