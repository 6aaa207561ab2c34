"""Small leaderboards for tests, drawn by the fake generator, and ways to tamper with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from negbench.evaluate import evaluate
from negbench.leaderboard import lock
from negbench.leaderboard.add import add_run
from negbench.leaderboard.entry import Entry, pretty
from negbench.plan import make_plan
from negbench.types import _normal, canonical_json, sha256_hex

TOML = """
name = "small"
version = 1
summary = "Eight prompts of the miniature, drawn by nobody"
replicates = 2
generator = "fake"

[data]
source = "miniature"
cases = 8

[guidance]
scale = 7.5

[metrics.ssim]
[metrics.psnr]
[metrics.aesthetic]
[metrics.inception_score]
[metrics.no_op]
[metrics.evaluations]
"""
METHODS = (
    ("none", {}, None),
    ("human", {}, None),
    ("static", {"text": "blurry"}, None),
    ("static", {"text": "noisy, cropped"}, "perp_neg"),
)


def make_runs(folder: Path) -> list[Path]:
    """Runs of a small benchmark, one a method."""
    toml = folder / "small.toml"
    toml.write_text(TOML)
    runs = []
    for method, params, rule in METHODS:
        resolved = make_plan(
            benchmark=str(toml),
            methods=[method],
            method_params=params,
            guidance=rule,
            generator_params={"size": 32, "steps": 4},
            out=folder / "runs",
            cache=folder / "cache",
        )
        [record] = evaluate(resolved)
        runs.append(record.folder)
    return runs


def make_board(folder: Path) -> Path:
    """A leaderboard of these runs."""
    board = folder / "board"
    for run in make_runs(folder):
        add_run(run, board, texts=True)
    return board


def copied(board: Path, folder: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(board, folder / "copy"))


def entries(board: Path) -> list[Path]:
    """Files of all entries."""
    return sorted((board / "entries").rglob("*.json"))


def edit(path: Path, change) -> Path:
    """Change an entry's JSON and seal it anew: plan digest, seal, place and lock all fit."""
    board = next(parent for parent in path.parents if (parent / lock.LOCK).is_file())
    data = json.loads(path.read_text())
    old_name, old_sidecar = path.relative_to(board / "entries").as_posix(), data["values"]["file"]
    change(data)
    data = _normal(data)
    data["plan_digest"] = sha256_hex(canonical_json(data["plan"]))
    draft = Entry.model_construct(**{**data, "plan": _plan(data["plan"])})
    sidecar = path.with_name(old_sidecar)
    data["values"]["file"] = f"{draft.stem}.values.parquet"
    data["seal"] = ""
    data["seal"] = sha256_hex(canonical_json(data))
    target = board / "entries" / draft.path
    target.parent.mkdir(parents=True, exist_ok=True)
    if sidecar.name != data["values"]["file"] or target.parent != path.parent:
        for file, name in ((sidecar, data["values"]["file"]), (
            path.with_name(data["values"]["twins"]), data["values"]["twins"])):  # fmt: skip
            if not (target.parent / name).exists():
                shutil.copy(file, target.parent / name)
        sidecar.unlink()
        path.unlink()
    target.write_bytes(pretty(data))
    relock(board, old_name, draft.path)
    return target


def _plan(data):
    from negbench.record import Plan

    return Plan.model_validate(data)


def relock(board: Path, old: str, new: str) -> None:
    """Say in the lock that the entry always was as it is now."""
    lines = []
    for line in lock.read_lock(board / lock.LOCK):
        if line.entry == old and isinstance(line, lock.Added):
            data = (board / "entries" / new).read_bytes()
            values = json.loads(data)["values"]["sha256"]
            lines.append(lock.Added(entry=new, sha256=sha256_hex(data), values=values))
        else:
            lines.append(line)
    (board / lock.LOCK).write_bytes(b"".join(line.canonical() + b"\n" for line in lines))


def edit_values(path: Path, change) -> Path:
    """Change an entry's sidecar as a dict of columns, and seal everything anew."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path.with_name(json.loads(path.read_text())["values"]["file"])
    table = pq.read_table(file)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    change(columns)
    arrays = {
        name: pa.array(
            column, table.schema.field(name).type if name in table.column_names else None
        )
        for name, column in columns.items()
    }
    pq.write_table(pa.table(arrays), file)
    digest = sha256_hex(file.read_bytes())
    return edit(path, lambda data: data["values"].update(sha256=digest))
