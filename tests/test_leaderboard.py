"""The leaderboard: entries say what their values say, tampering of any kind is caught."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import boards
import pytest
from boards import edit, edit_values, entries

from negbench.errors import DataError, NegbenchError, RecordError
from negbench.leaderboard import lock
from negbench.leaderboard.add import add_run, withdraw
from negbench.leaderboard.build import build, write
from negbench.leaderboard.checks import check, read_board
from negbench.leaderboard.entry import holds_path, read_entry, without_paths
from negbench.leaderboard.schema import schemas
from negbench.leaderboard.table import Table
from negbench.record import load_record

SHIPPED = Path(__file__).parent.parent / "leaderboard"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaderboard")
    board = boards.make_board(folder)
    write(read_board(board))
    return folder, board


@pytest.fixture
def board(made, tmp_path):
    return boards.copied(made[1], tmp_path)


def problems(board, **options):
    try:
        return check(board, **options).problems
    except NegbenchError as error:
        return [str(error)]


def test_an_honest_folder_holds_and_two_builds_give_equal_bytes(made):
    board = made[1]
    found = check(board)
    assert found.problems == []
    assert len(found.entries) == 4
    assert any("not shipped" in remark for remark in found.remarks)
    assert build(read_board(board)) == build(read_board(board))
    for name, data in build(read_board(board)).items():
        assert (board / name).read_bytes() == data


def test_adding_the_same_run_again_changes_nothing(made, board):
    before = {p: p.read_bytes() for p in board.rglob("*") if p.is_file()}
    run = next((made[0] / "runs").rglob("run.json")).parent
    assert not add_run(run, board, texts=True).new
    assert {p: p.read_bytes() for p in board.rglob("*") if p.is_file()} == before


def test_an_entry_has_the_estimates_of_its_run_and_nothing_of_the_machine(made):
    folder, board = made
    for path in entries(board):
        entry = read_entry(path)
        [record] = [
            r
            for r in (load_record(p.parent) for p in (folder / "runs").rglob("run.json"))
            if r.plan_digest == entry.plan_digest
        ]
        assert list(entry.estimates) == record.estimates
        assert list(entry.paired) == record.paired
        assert str(folder) not in path.read_text()
        assert not holds_path(entry.model_dump(mode="json"))


def test_paths_are_cut_from_notes():
    assert without_paths("from /home/me/models/x.bin (12)") == "from …/x.bin (12)"
    assert without_paths("~me/a/b, C:\\Users\\me\\c.txt") == "…/b, …/c.txt"
    assert without_paths("3/4 of org/name at https://x.org/a/b") == (
        "3/4 of org/name at https://x.org/a/b"
    )
    assert holds_path({"a": ["/etc/passwd"]})
    assert not holds_path({"a": ["org/name", "and/or", "1/2", "/ slash"]})


def test_the_table_ranks_within_one_benchmark_generator_and_metrics(made):
    table = Table.model_validate_json((made[1] / "leaderboard.json").read_bytes())
    [group] = table.groups
    assert group.benchmark == "small@1"
    assert {row.title for row in group.rows} == {
        "none", "human", "static", "static + perp_neg",
    }  # fmt: skip
    columns = {column.metric: column for column in group.columns}
    assert columns["aesthetic"].ranked
    assert columns["inception_score"].ranked
    assert not columns["no_op"].ranked
    assert columns["evaluations"].kind == "cost"
    for row in group.rows:
        low, high = row.cells["inception_score"].rank
        assert 1 <= low <= high <= 4
    none = next(row for row in group.rows if row.title == "none")
    assert none.cells["psnr"].value is None
    assert none.cells["psnr"].rank is None


def test_another_generator_is_another_group(board):
    def other(data):
        data["plan"]["generator"]["params"]["size"] = 64

    # its keys no longer fit, so this only looks at the grouping
    edit(entries(board)[0], other)
    from negbench.leaderboard.build import make_table

    table, _ = make_table(read_board(board))
    assert sorted(len(group.rows) for group in table.groups) == [1, 3]


def test_a_column_in_which_no_entry_has_a_value_has_no_rank(board):
    from negbench.leaderboard.build import make_table

    for path in entries(board):
        if not path.name.startswith("none-"):
            path.unlink()
    table, _ = make_table(read_board(board))
    [group] = table.groups
    [row] = group.rows
    assert row.cells["psnr"].value is None
    assert row.cells["psnr"].rank is None


# Tampering ---------------------------------------------------------------------------------------


def human(board):
    return next(path for path in entries(board) if path.name.startswith("human-"))


def raw(change):
    """Edit the JSON text itself, without sealing it."""

    def tamper(board):
        path = human(board)
        path.write_text(change(path.read_text()))

    return tamper


def resealed(change):
    return lambda board: edit(human(board), change)


def in_values(change):
    return lambda board: edit_values(human(board), change)


def estimate(data, part="estimates", name="aesthetic"):
    return next(item for item in data[part] if item["metric"] == name)


def set_value(data):
    estimate(data)["value"] += 0.25


def set_interval(data):
    estimate(data)["ci95"][0] += 1e-6


def set_p(data):
    estimate(data, "paired")["p"] = 0.01


def set_n(data):
    estimate(data)["n_scored"] += 10


def set_note(data):
    estimate(data)["note"] = "best of all"


def set_twin(data):
    estimate(data, "twin_estimates")["value"] -= 0.25


def set_customary(data):
    estimate(data, name="inception_score")["customary"] = {"mean of 10 splits": 9.9}


def flip_direction(data):
    data["metrics"]["ssim"]["higher_is_better"] = False
    estimate(data, name="ssim")["higher_is_better"] = False


def drop_estimate(data):
    data["estimates"] = [e for e in data["estimates"] if e["metric"] != "ssim"]


def drop_paired(data):
    data["paired"] = data["paired"][1:]


def double_estimate(data):
    data["estimates"].append(data["estimates"][0])


def fewer_cases(data):
    data["plan"]["n_cases"] = 5


def other_method(data):
    data["plan"]["method"]["name"] = "../../../etc/cron.d/x"


def other_scale(data):
    data["plan"]["guidance"]["scale"] = 8.5


def a_path(data):
    data["notes"] = ["/home/somebody/secret"]


def withhold(data):
    data["values"]["texts"] = False


def one_score(columns):
    columns["treated.aesthetic"][3] += 1.0


def not_a_number(columns):
    columns["treated.aesthetic"][3] = float("nan")


def neither(columns):
    columns["treated.aesthetic"][3] = None


def out_of_bounds(columns):
    columns["treated.ssim"][3] = 1.5


def one_row(columns):
    columns["treated.inception_score.0"][0] += 0.5


def fewer(columns):
    for column in columns.values():
        column.pop()


def doubled(columns):
    for column in columns.values():
        column[1] = column[0]


def other_seed(columns):
    columns["seed"][0] += 1


def other_text(columns):
    columns["treatment"][0] = columns["treatment"][0].replace('"prompt":"', '"prompt":"pretty ')


def other_cluster(columns):
    columns["cluster"] = [0] * len(columns["cluster"])


def more_columns(columns):
    columns["extra"] = columns["seed"]


TAMPERED = {
    "value": raw(lambda t: t.replace('"value": ', '"value": 1', 1)),
    "nan": raw(lambda t: t.replace('"n_cases": 8', '"n_cases": NaN')),
    "extra field": raw(lambda t: t.replace('"estimates":', '"bonus": 1,\n "estimates":', 1)),
    "key twice": raw(lambda t: t.replace('"notes":', '"notes": [],\n "notes":', 1)),
    "layout": raw(lambda t: t.replace("\n", " ")),
    "no json": raw(lambda t: t[:100]),
    "deep": raw(lambda t: "[" * 100_000),
    "long": raw(lambda t: t + " " * 2_000_000),
    "future schema": resealed(lambda d: d.update(schema_version=2)),
    "resealed extra field": resealed(lambda d: d.update(bonus=1)),
    "resealed value": resealed(set_value),
    "resealed interval": resealed(set_interval),
    "resealed p": resealed(set_p),
    "resealed n": resealed(set_n),
    "resealed note": resealed(set_note),
    "resealed twin": resealed(set_twin),
    "resealed customary": resealed(set_customary),
    "resealed direction": resealed(flip_direction),
    "estimate dropped": resealed(drop_estimate),
    "difference dropped": resealed(drop_paired),
    "estimate doubled": resealed(double_estimate),
    "fewer cases": resealed(fewer_cases),
    "other scale": resealed(other_scale),
    "a path": resealed(a_path),
    "texts withheld": resealed(withhold),
    "script link": resealed(lambda d: d["declared"].update(paper="javascript:alert(1)")),
    "http link": resealed(lambda d: d["declared"].update(code="http://x.org/")),
    "100 kB": resealed(lambda d: d["declared"].update(overlap="x" * 100_000)),
    "score": in_values(one_score),
    "score nan": in_values(not_a_number),
    "score without reason": in_values(neither),
    "score out of bounds": in_values(out_of_bounds),
    "row": in_values(one_row),
    "samples fewer": in_values(fewer),
    "samples doubled": in_values(doubled),
    "seed": in_values(other_seed),
    "text": in_values(other_text),
    "cluster": in_values(other_cluster),
    "column": in_values(more_columns),
    "sidecar bytes": lambda b: _flip(human(b).with_suffix(".values.parquet")),
    "sidecar gone": lambda b: human(b).with_suffix(".values.parquet").unlink(),
    "twins bytes": lambda b: _flip(next(human(b).parent.glob("twins-*"))),
    "twins gone": lambda b: next(human(b).parent.glob("twins-*")).unlink(),
    "entry gone": lambda b: human(b).unlink(),
    "entry moved": lambda b: human(b).rename(human(b).with_name("best-000000000000.json")),
    "entry twice": lambda b: shutil.copy(human(b), human(b).with_name("human-0.json")),
    "entry linked": lambda b: human(b).with_name("x.json").symlink_to(human(b)),
    "entry unlocked": lambda b: _lock_without(b, human(b).name),
    "stray file": lambda b: (human(b).parent / "notes.txt").write_text("hello"),
    "lock torn": lambda b: (b / lock.LOCK).write_bytes((b / lock.LOCK).read_bytes()[:-20]),
    "lock added twice": lambda b: _lock_twice(b),  # noqa: PLW0108
    "table": lambda b: _append(b / "leaderboard.json"),
    "csv": lambda b: _append(b / "leaderboard.csv"),
    "page": lambda b: _append(b / "index.html"),
    "parquet": lambda b: _flip(b / "leaderboard.parquet"),
    "page gone": lambda b: next(b.glob("pages/**/*.html")).unlink(),
    "page left over": lambda b: next(b.glob("pages/**/*.html")).with_name("x.html").write_text("x"),
    "schema": lambda b: _append(b / "schema" / "entry-v1.json"),
}


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def _append(path):
    path.write_bytes(path.read_bytes() + b" ")


def _lock_without(board, name):
    lines = (board / lock.LOCK).read_bytes().splitlines(keepends=True)
    (board / lock.LOCK).write_bytes(b"".join(x for x in lines if name.encode() not in x))


def _lock_twice(board):
    lines = (board / lock.LOCK).read_bytes()
    (board / lock.LOCK).write_bytes(lines + lines.splitlines(keepends=True)[0])


@pytest.mark.parametrize("kind", TAMPERED)
def test_tampering_is_caught(board, kind):
    TAMPERED[kind](board)
    found = problems(board)
    assert found
    assert all("\n" not in problem and len(problem) < 800 for problem in found)


def test_a_path_in_a_method_name_stays_below_the_folder(board):
    edit(human(board), other_method)
    [path] = [p for p in entries(board) if "etc" in p.name]
    assert path.parent == human_folder(board)
    assert not read_board(board).problems


def human_folder(board):
    return next((board / "entries").glob("*/*"))


def test_a_consistent_lie_in_a_score_passes_every_check_but_drawing_again(board):
    """What `check` cannot see is what `verify` is for."""
    from negbench.leaderboard.checks import read_entry_files
    from negbench.leaderboard.recompute import recompute

    edit_values(human(board), one_score)
    checked = read_entry_files(board, human(board).relative_to(board / "entries").as_posix())
    summary, _ = recompute(checked.entry.plan, checked.entry.metrics, checked.values)

    def believe(data):
        for part in ("estimates", "twin_estimates", "paired"):
            data[part] = [e.model_dump(mode="json") for e in getattr(summary, part)]

    edit(human(board), believe)
    assert problems(board, built=False) == []


def test_an_older_lock_shows_what_went_missing(board, tmp_path):
    older = tmp_path / "older.lock"
    older.write_bytes((board / lock.LOCK).read_bytes())
    assert problems(board, against=older) == []
    path = human(board)
    _lock_without(board, path.name)
    path.with_suffix(".values.parquet").unlink()
    path.unlink()
    write(read_board(board))
    assert problems(board) == []
    assert any("went missing" in problem for problem in problems(board, against=older))


def test_a_withdrawn_entry_leaves_its_reason(board, tmp_path):
    older = tmp_path / "older.lock"
    older.write_bytes((board / lock.LOCK).read_bytes())
    withdraw(str(human(board)), board, reason="drawn with\nthe wrong <b>weights</b>")
    write(read_board(board))
    assert problems(board, against=older) == []
    page = (board / "index.html").read_text()
    assert "drawn with the wrong &lt;b&gt;weights" in page
    with pytest.raises(NegbenchError, match="no entry"):
        withdraw("small@1/none.json", board, reason="why")


def test_what_is_no_whole_run_is_refused(made, tmp_path):
    folder = made[0]
    run = next(p.parent for p in (folder / "runs").rglob("run.json") if "human" in str(p))
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    header = json.loads((copy / "run.json").read_text())

    def attempt(change):
        data = json.loads(json.dumps(header))
        change(data)
        (copy / "run.json").write_text(json.dumps(data))
        return add_run(copy, tmp_path / "board")

    with pytest.raises(RecordError, match="15 of 16"):
        attempt(lambda d: d.update(status="partial", n_samples=15))
    with pytest.raises(RecordError, match="aesthetic"):
        attempt(lambda d: estimate(d).update(value=9.9))
    with pytest.raises(RecordError, match="disagree"):
        attempt(lambda d: d["plan"].update(n_cases=3))

    def named(d):
        from negbench.record import Plan

        d["plan"]["method"]["params"]["file"] = "/home/me/words.txt"
        d["plan_digest"] = Plan.model_validate(d["plan"]).digest()

    with pytest.raises(DataError, match="path of this machine"):
        attempt(named)
    assert not (tmp_path / "board").exists()


def test_limited_and_rescaled_runs_of_a_shipped_benchmark_are_no_entries():
    from negbench.leaderboard.add import whole_benchmark
    from negbench.plan import make_plan
    from negbench.protocols import load_benchmark

    bench = load_benchmark("miniature-quality")
    options = {"methods": ["none"], "generator": "fake", "metrics": ["no_op"]}
    whole = make_plan(**options).jobs[0].plan
    assert whole_benchmark(whole, bench) == []
    for change, word in (({"limit": 5}, "--limit"), ({"scale": 2.0}, "--scale"),
                         ({"replicates": 1}, "noises")):  # fmt: skip
        plan = make_plan(**options, **change).jobs[0].plan
        assert any(word in problem for problem in whole_benchmark(plan, bench))


def test_schemas_are_those_of_the_types_and_entries_fit_them(made):
    for name, data in schemas().items():
        assert (made[1] / "schema" / name).read_bytes() == data
        if (SHIPPED / "schema").is_dir():
            assert (SHIPPED / "schema" / name).read_bytes() == data
    schema = json.loads(schemas()["entry-v1.json"])
    entry = json.loads(entries(made[1])[0].read_text())
    assert set(schema["properties"]) == set(entry)
    assert schema["additionalProperties"] is False


def test_withheld_texts_leave_no_prompt_behind(made, tmp_path):
    run = next(p.parent for p in (made[0] / "runs").rglob("run.json") if "human" in str(p))
    added = add_run(run, tmp_path / "board", texts=False)
    record = load_record(run)
    folder = added.path.parent
    whole = b"".join(p.read_bytes() for p in folder.iterdir())
    assert not any(s.prompt.encode() in whole for s in record.samples() if len(s.prompt) > 12)
    assert problems(tmp_path / "board", built=False) == []


def test_the_csv_of_a_spreadsheet_starts_no_formula(made):
    from negbench.leaderboard.exports import csv_text

    text = csv_text(("a", "b"), [{"a": "=1+1", "b": -2.5}, {"a": "@x", "b": "-y"}])
    assert text.splitlines()[1:] == ["'=1+1,-2.5", "'@x,'-y"]
    assert "=" not in (made[1] / "leaderboard.csv").read_text().partition("\n")[2].replace(
        "text=", ""
    )


@pytest.mark.skipif(not (SHIPPED / "entries.lock").is_file(), reason="no entry is shipped yet")
def test_the_shipped_leaderboard_holds():
    found = check(SHIPPED)
    assert found.problems == []
    assert found.entries
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    assert size < 3_000_000


def test_the_command_names_a_checkpoint_that_is_not_the_usual_one():
    from negbench.leaderboard.rerun import command_of

    found = read_board(SHIPPED)
    commands = {
        checked.entry.plan.method.params["sha256:checkpoint"]: command_of(checked.entry)
        for checked in found.entries.values()
        if checked.entry.plan.method.name == "negopt"
    }
    [usual] = [text for text in commands.values() if text.endswith("-m negopt")]
    [other] = [(digest, text) for digest, text in commands.items() if text != usual]
    assert other[1].endswith(f"-p checkpoint=CHECKPOINT-{other[0][:12]}")
