"""Kills a run at random points and starts it again: `python kill_harness.py FOLDER POINTS SEED`.

Everything is imported once; each run is a fork of this process that calls the command line as a
user does. Half of the kills come at a random time from outside, half at a random file operation
from inside, a write then being torn in the middle. Prints one JSON object.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

PLUGIN = '''
import numpy as np

from negbench.metrics import SetMetric, metrics
from negbench.metrics.base import ImageMetric, Network
from negbench.types import Ref, Score


class Colors(Network):
    """Mean colour."""

    def ref(self):
        return Ref(name="colors")

    def check(self):
        pass

    def embed_images(self, images):
        return np.stack([image.mean(axis=(0, 1)) for image in images]).astype(np.float32)

    def embed_texts(self, texts):
        return np.stack([np.float32([len(text), 1, 2]) for text in texts])


COLORS = Colors()


@metrics.register("warmth")
class Warmth(ImageMetric):
    """Red minus blue."""

    def networks(self):
        return {"colors": COLORS}

    def texts(self, case, negative):
        return [("colors", case.prompt)]

    def score(self, items):
        return [Score.of(i.features["colors"][0] - i.features["colors"][2]) for i in items]


@metrics.register("corner")
class Corner(SetMetric):
    """Mean of the first pixel over a set."""

    def rows(self, items):
        return np.stack([item.pixels[0, 0].astype(np.float32) for item in items])

    def value(self, rows):
        return float(rows.mean())
'''
IMPORTED_ONCE = (
    "negbench.evaluate", "negbench.generators.diffusers", "negbench.generators.fake",
    "negbench.metrics.damage", "negbench.plan", "negbench.stats", "negbench.tables",
    "scipy.special",
)  # fmt: skip
OPERATIONS = {"open", "os.rename", "os.mkdir", "os.chmod", "os.remove", "os.listdir"}


def command(folder: Path, home: Path) -> list[str]:
    return [
        "negbench", "evaluate", "-m", "human", "-m", "s=static", "-p", "s.text=ugly",
        "--generator", "fake", "-o", "size=16", "-o", "steps=3", "--device", "cpu",
        "--prompts", str(home / "prompts.csv"), "--plugin", str(home / "parts.py"),
        "--metric", "no_op", "--metric", "warmth", "--metric", "corner", "--json",
        "--out", str(folder / "runs"), "--cache", str(folder / "cache"),
    ]  # fmt: skip


def start(arguments: list[str], log: Path, *, die_at: int | None = None) -> int:
    """A child that runs the command; with `die_at` it kills itself at that file operation."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        count = [0]
        if die_at is not None:
            _die(die_at, count)
        sys.argv = arguments
        from negbench import cli

        cli.main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os._exit(code)
    return 0


def _die(at: int, count: list[int]) -> None:
    """Die at the operation with this number; a negative one only counts and tells at the end."""

    def tick(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith((".py", ".pyc")):
            return
        if event in OPERATIONS:
            count[0] += 1
            if count[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

    whole = os.write

    def torn(handle: int, data: bytes) -> int:
        count[0] += 1
        if count[0] == at:
            whole(handle, bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(handle, data)

    os.write = torn
    sys.addaudithook(tick)
    if at < 0:
        exit_now = os._exit

        def tell(code: int) -> None:
            Path(f"{os.getpid()}.count").write_text(str(count[0]))
            exit_now(code)

        os._exit = tell


def finish(pid: int) -> int:
    """Exit status; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def essence(folder: Path) -> object:
    """What must not depend on how a run came about."""
    from negbench.record import find_runs, load_record

    found = []
    for path in sorted(find_runs([folder / "runs"])):
        record = load_record(path)
        header = record.model_dump(mode="json", exclude={"provenance"})
        samples = [sample.model_dump(mode="json") for sample in record.samples()]
        found.append([path.name, header, samples])
    return json.loads(json.dumps(found))


def disturbed(folder: Path, home: Path, rng: random.Random, seconds: float, operations: int) -> str:
    """Kill a run once to three times, then let it finish: "" or what went wrong."""
    folder.mkdir()
    arguments = command(folder, home)
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            code = finish(start(arguments, folder / "log", die_at=rng.randint(1, operations)))
        else:
            pid = start(arguments, folder / "log")
            time.sleep(rng.random() * seconds)
            os.kill(pid, signal.SIGKILL)
            code = finish(pid)
        if code not in (0, -signal.SIGKILL):
            return f"a disturbed run ended with {code}"
    code = finish(start(arguments, folder / "log"))
    return "" if code == 0 else f"the last run ended with {code}"


def crowd(folder: Path, home: Path, rng: random.Random) -> str:
    """Three runs at once in one cache, two of them in one folder of runs, one of them killed."""
    folder.mkdir()
    arguments = command(folder, home)
    other = [*arguments[:-3], str(folder / "elsewhere"), *arguments[-2:]]
    pids = [start(given, folder / "log") for given in (arguments, arguments, other, arguments)]
    time.sleep(rng.random() * 0.1)
    os.kill(pids[3], signal.SIGKILL)
    codes = [finish(pid) for pid in pids]
    if codes[:3] != [0, 0, 0]:
        return f"runs side by side ended with {codes}"
    code = finish(start(arguments, folder / "log"))
    return "" if code == 0 else f"the last run ended with {code}"


def main() -> None:
    """Undisturbed once, then as many disturbed runs as asked for, then some side by side."""
    home, points, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    (home / "parts.py").write_text(PLUGIN)
    (home / "prompts.csv").write_text(
        "id,prompt,negative\n"
        + "".join(f"c{n},a castle {n},{'blurry' if n % 2 else ''}\n" for n in range(7))
    )
    for name in IMPORTED_ONCE:
        importlib.import_module(name)
    rng = random.Random(seed)
    os.chdir(home)
    first = home / "undisturbed"
    first.mkdir()
    arguments = command(first, home)
    pid = start(arguments, first / "log", die_at=-1)
    assert finish(pid) == 0, (first / "log").read_text()
    operations = int((home / f"{pid}.count").read_text())
    (home / "timed").mkdir()
    began = time.monotonic()
    assert finish(start(command(home / "timed", home), home / "timed" / "log")) == 0
    seconds = time.monotonic() - began
    wanted = essence(first)
    failures = []
    for number in range(points):
        folder = home / f"killed-{number}"
        said = disturbed(folder, home, rng, seconds, operations)
        if said or essence(folder) != wanted:
            failures.append([number, said or "another record", (folder / "log").read_text()[-500:]])
    for number in range(max(1, points // 10)):
        folder = home / f"crowd-{number}"
        said = crowd(folder, home, rng)
        if said or essence(folder) != wanted:
            failures.append([number, said or "another record", (folder / "log").read_text()[-500:]])
    result = {"operations": operations, "seconds": seconds, "failures": failures}
    sys.stdout.write(json.dumps({**result, "samples": len(wanted[0][2])}) + "\n")


if __name__ == "__main__":
    main()
