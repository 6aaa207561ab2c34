"""Seconds and memory of a run as it grows, without a model: what the machinery itself costs.

    python benchmarks/growth.py [--images 100 1000 10000] [--json FILE]
    python benchmarks/growth.py --images 100 1000 10000 100000

Draws that many images with the ``fake`` generator (16 px), scores them and writes the record, each
size in a process of its own; then gives the same command again, which draws nothing. Seconds are
CPU seconds (user and system), so other work on the machine weighs little; `wall` is the clock.
Memory is the largest resident set of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

METRICS = ("no_op", "evaluations")


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    cpu: float
    wall: float
    peak_mib: float


def run(arguments: list[str]) -> Cost:
    """Run a command and measure that process alone."""
    before = time.monotonic()
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return Cost(
        usage.ru_utime + usage.ru_stime,
        time.monotonic() - before,
        usage.ru_maxrss / 1024,
    )


def measure(images: int, folder: Path) -> dict[str, Cost | int]:
    """A run of `images` images (half of them twins), then the same again, then its table read."""
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"a castle number {n}\n" for n in range(images // 2)))
    command = [
        sys.executable, "-m", "negbench", "evaluate", "-m", "static", "--generator", "fake",
        "-o", "size=16", "--prompts", str(prompts), "--replicates", "1",
        "--out", str(folder / "runs"), "--cache", str(folder / "cache"), "--json",
    ]  # fmt: skip
    for name in METRICS:
        command += ["--metric", name]
    first = run(command)
    again = run(command)
    [record] = (folder / "runs").rglob("run.json")
    script = f"import negbench; len(negbench.load_record({str(record)!r}).to_pandas())"
    return {
        "images": images,
        "first": first,
        "again": again,
        "read": run([sys.executable, "-c", script]),
    }


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    empty = run([sys.executable, "-m", "negbench", "--help"])
    print(f"negbench --help: {empty.cpu:.2f} s, {empty.peak_mib:.0f} MiB")
    print(f"{'images':>7} {'cpu s':>7} {'ms/image':>8} {'MiB':>6} {'again s':>8} {'wall':>6} "
          f"{'MiB':>6} {'read s':>7}")  # fmt: skip
    rows = []
    for images in options.images:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(images, Path(folder))
        first, again, read = row["first"], row["again"], row["read"]
        print(f"{images:>7} {first.cpu:>7.2f} {1000 * first.cpu / images:>8.2f} "
              f"{first.peak_mib:>6.0f} {again.cpu:>8.2f} {again.wall:>6.2f} "
              f"{again.peak_mib:>6.0f} {read.cpu:>7.2f}", flush=True)  # fmt: skip
        rows.append({k: v if isinstance(v, int) else asdict(v) for k, v in row.items()})
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
