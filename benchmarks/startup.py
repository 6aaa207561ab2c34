"""How long `--help` takes: negbench beside lm-eval, mteb and helm, each in its own environment.

    python benchmarks/startup.py [--peers lm-eval mteb helm] [--venvs FOLDER] [--json FILE]

Peers are installed by uv into temporary environments (gigabytes: some of them bring torch). Rounds
alternate between the programs, the first one only warms the disk's cache, and each program is
judged by its best round, in CPU seconds (user and system) and by the clock. A peer that cannot be
installed is named with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEERS = {
    "lm-eval": ("lm_eval", "lm_eval"),
    "mteb": ("mteb", "mteb"),
    "helm": ("crfm-helm", "helm-run"),
}
"""Name -> package and command."""


def install(name: str, folder: Path) -> list[str] | str:
    """The command that shows a peer's help, or why it cannot be installed."""
    package, program = PEERS[name]
    place = folder / name
    command = place / "bin" / program
    if not command.exists():
        for step in (
            ["uv", "venv", "--quiet", "--python", "3.11", str(place)],
            ["uv", "pip", "install", "--quiet", "--python", str(place / "bin/python"), package],
        ):
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                return (done.stderr.strip().splitlines() or ["failed"])[-1][:200]
    return [str(command), "--help"] if command.exists() else f"{package} has no {program}"


def once(command: list[str]) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and exit code of one call."""
    started = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "CI": "1"}
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    return cpu, time.monotonic() - started, process.returncode


def main() -> None:
    """Measure and print a table with ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--venvs", type=Path, help="keep the environments there")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.venvs or Path(temporary)
        commands = {"negbench": [str(Path(sys.executable).with_name("negbench")), "--help"]}
        for name in options.peers:
            found = install(name, folder)
            if isinstance(found, str):
                print(f"{name}: not measured: {found}")
            else:
                commands[name] = found
        best = {name: (float("inf"), float("inf")) for name in commands}
        for number in range(options.rounds + 1):
            for name, command in list(commands.items()):
                cpu, wall, code = once(command)
                if code:
                    print(f"{name}: not measured: --help ends with {code}")
                    del commands[name], best[name]
                elif number:
                    best[name] = min(best[name][0], cpu), min(best[name][1], wall)
    own = best["negbench"]
    print(f"{'program':10} {'cpu s':>7} {'wall s':>7} {'x negbench (cpu)':>17}")
    for name, (cpu, wall) in best.items():
        print(f"{name:10} {cpu:>7.2f} {wall:>7.2f} {cpu / own[0]:>17.1f}")
    if options.json:
        rows = {name: {"cpu": cpu, "wall": wall} for name, (cpu, wall) in best.items()}
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
