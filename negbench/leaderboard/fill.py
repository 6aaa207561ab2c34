"""Fill a leaderboard: every method and every rule on the miniature benchmarks, resumable.

Rules carry one method, so that what a rule does is not mixed with what a text says: `human` for
quality, `concept` for removal. A method or rule that needs parameters, weights or files that nobody
gave is left out, and said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from negbench.errors import NegbenchError, one_line
from negbench.evaluate import evaluate
from negbench.generators.base import RunOptions
from negbench.leaderboard.add import Addition, add_run
from negbench.leaderboard.build import write
from negbench.leaderboard.checks import read_board
from negbench.leaderboard.entry import Declared
from negbench.plan import Resolved, make_plan
from negbench.progress import Progress, silent
from negbench.protocols import load_benchmark

BENCHMARKS = ("miniature-quality", "miniature-removal")
CARRIED = {"quality": "human", "removal": "concept"}
"""Protocol -> the method that rules carry."""

LEFT_OUT = {
    "llm": "needs a language model's weights",
    "search": "draws as many images as it likes",
    "embedding": "needs a file of an embedding",
}
BY_REWARD = "negopt by reward"
PARAMS = {"static": {"list": "miniature"}, BY_REWARD: {"checkpoint": "miniature-rl"}}
"""Label -> parameters without which a method would not be at home on the miniature."""

RULE_PARAMS = {"window": {"start": 5, "stop": 16}}
"""Parameters without which a rule would be plain CFG: the window of Ban et al. (2406.02965)."""

DEAF = "says the same whatever the concept, so its net removal is 0 by construction"


@dataclass
class Filled:
    """What came of it: entries, and what was left out and why."""

    added: list[Addition] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def fill(
    board: Path,
    *,
    out: Path,
    cache: Path | None = None,
    benchmarks: Sequence[str] = BENCHMARKS,
    methods: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    options: RunOptions | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Filled:
    """Draw, score and add what is missing, then build.

    Args:
        board: folder of the leaderboard.
        out: folder of runs; a killed run goes on there.
        cache: folder of images and scores.
        benchmarks: names.
        methods: of these methods only; None for all that there are.
        rules: of these rules only; None for all that there are.
        options: device and batch size.
        progress: a bar a stage.
        say: called with a line for each run.
    """
    found = Filled()
    for benchmark in benchmarks:
        for label, method, rule in combinations(benchmark, methods=methods, rules=rules):
            why = LEFT_OUT.get(method)
            if load_benchmark(benchmark).protocol == "removal" and method != CARRIED["removal"]:
                why = DEAF
            if why is not None and methods is None:
                found.left_out.append((f"{benchmark}: {label}", why))
                continue
            try:
                resolved = _plan(
                    benchmark, method, rule, label=label, out=out, cache=cache, options=options
                )
                say(f"{benchmark}: {label}")
                [record] = evaluate(
                    resolved,
                    progress=progress,
                    command=f"negbench leaderboard fill --benchmark {benchmark}",
                )
                assert record.folder is not None
                declared = Declared(overlap=_overlap(method, resolved))
                found.added.append(add_run(record.folder, board, declared=declared))
            except NegbenchError as error:
                found.left_out.append((f"{benchmark}: {label}", one_line(str(error), limit=300)))
        if found.added:
            write(read_board(board))
    return found


def combinations(
    benchmark: str, *, methods: Sequence[str] | None = None, rules: Sequence[str] | None = None
) -> list[tuple[str, str, str | None]]:
    """Label, method and rule (None for plain CFG) of all runs on a benchmark."""
    from negbench.guidance import rules as all_rules
    from negbench.methods import methods as all_methods

    carried = CARRIED[load_benchmark(benchmark).protocol]
    names = sorted(all_methods.names())
    made: list[tuple[str, str, str | None]] = [
        (name, name, None) for name in names if methods is None or name in methods
    ]
    if any(method == "negopt" for _, method, _ in made):
        made.append((BY_REWARD, "negopt", None))
    made += [
        (f"{carried} + {rule}", carried, rule)
        for rule in sorted(all_rules.names())
        if rule != "cfg" and (rules is None or rule in rules)
    ]
    return made


def _plan(
    benchmark: str,
    method: str,
    rule: str | None,
    *,
    label: str,
    out: Path,
    cache: Path | None,
    options: RunOptions | None,
) -> Resolved:
    return make_plan(
        benchmark=benchmark,
        methods=[method],
        method_params=PARAMS.get(label, {}),
        guidance=rule,
        guidance_params=RULE_PARAMS.get(rule or "", {}),
        out=out,
        cache=cache,
        options=options,
    )


def _overlap(method: str, resolved: Resolved) -> str:
    """What is known of a built-in method's training: it is our own."""
    from negbench.methods import methods

    if method == "human":
        return "the benchmark's own negative prompts, written with the prompts"
    if methods.get(method).uses_training or method == "negopt":
        split = resolved.benchmark.data.source
        return (
            f"learnt from the training split of {split}; no test prompt, no near-duplicate of one"
        )
    return "none: nothing was learnt"
