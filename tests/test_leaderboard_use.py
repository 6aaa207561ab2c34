"""Ranks that are right, drawing again, publishing with faults, serving, exporting."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from math import comb

import boards
import numpy as np
import pytest
import yaml
from boards import edit_values, entries
from hub_stand_in import Hub

from negbench.errors import ConfigError, DataError, MissingError, RecordError, UnknownNameError
from negbench.leaderboard import exports, lock
from negbench.leaderboard.build import make_table, write
from negbench.leaderboard.checks import check, read_board
from negbench.leaderboard.citations import bibtex
from negbench.leaderboard.publish import files_of, publish
from negbench.leaderboard.ranks import Pair, paired_contrasts, rank_sets, sign_flips
from negbench.leaderboard.serve import make_server
from negbench.leaderboard.verify import choose, detection_power, surely_caught, verify
from negbench.stats import holm, paired_contrast, sign_flip
from negbench.stats.summary import Contrast

# sockets of the stand-in hub's faults, which the collector finds in a later test
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaderboard")
    board = boards.make_board(folder)
    write(read_board(board))
    return folder, board


@pytest.fixture
def board(made, tmp_path):
    return boards.copied(made[1], tmp_path)


# Ranks -------------------------------------------------------------------------------------------


def test_many_sign_flips_are_each_the_sign_flip_test():
    rng = np.random.default_rng(1)
    totals = rng.normal(size=(40, 5)) + np.array([0, 0.1, 0.2, 0.4, 0.8])
    many = sign_flips(totals, draws=19_999)
    one = [sign_flip(totals[:, at])[0] for at in range(5)]
    assert np.allclose(many, one, atol=0.012)
    few = np.where(np.arange(40)[:, None] < 9, totals, 0.0)
    assert sign_flips(few, draws=99) == [sign_flip(few[:, at])[0] for at in range(5)]


def test_contrasts_of_pairs_are_paired_contrasts():
    rng = np.random.default_rng(2)
    prompts = [f"p{i // 2:02d}" for i in range(80)]
    first, second = (list(map(float, rng.normal(size=80))) for _ in range(2))
    first[3] = None
    [found] = paired_contrasts([(first, second)], prompts)
    expected = paired_contrast(first, second, prompts)
    assert found.delta == pytest.approx(expected.delta)
    assert found.ci95 == pytest.approx(expected.ci95)
    assert found.p == pytest.approx(expected.p, abs=0.015)
    assert (found.n, found.n_dropped, found.n_prompts) == (79, 1, 40)


def pair(a, b, delta, p):
    return Pair(a, b, Contrast(delta, None, p, 9, 0, 9), p)


def test_rank_sets_by_hand():
    pairs = [pair("a", "b", 1.0, 0.5), pair("a", "c", 2.0, 0.001), pair("b", "c", 1.0, 0.2)]
    assert rank_sets("abc", pairs, higher_is_better=True) == {"a": (1, 2), "b": (1, 3), "c": (2, 3)}
    assert rank_sets("abc", pairs, higher_is_better=False) == {
        "a": (2, 3), "b": (1, 3), "c": (1, 2),
    }  # fmt: skip
    untested = [pair("a", "b", 0.0, None)]
    assert rank_sets("ab", untested, higher_is_better=True) == {"a": (1, 2), "b": (1, 2)}


@pytest.mark.parametrize("true", [(0, 0, 0, 0, 0), (0, 0, 0, 0.5, 0.5), (0, 0.3, 0.6, 0.9, 1.2)])
def test_all_true_ranks_lie_in_their_sets_at_once_as_often_as_claimed(true):
    """Correlated methods over shared prompts; at most 5 % of repetitions may miss a true rank."""
    rng = np.random.default_rng(int(10 * sum(true)))
    names = "abcde"
    couples = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    misses, repetitions = 0, 300
    for _ in range(repetitions):
        shared = rng.normal(size=(30, 1))
        scores = np.array(true) + shared + rng.gamma(2.0, 0.5, size=(30, 5))
        totals = np.stack([scores[:, i] - scores[:, j] for i, j in couples], axis=1)
        p = holm(sign_flips(totals, draws=999, seed=int(rng.integers(1e9))))
        pairs = [
            pair(names[i], names[j], float(totals[:, at].mean()), p[at])
            for at, (i, j) in enumerate(couples)
        ]
        found = rank_sets(names, pairs, higher_is_better=True)
        for at, name in enumerate(names):
            best = 1 + sum(other > true[at] for other in true)
            worst = 5 - sum(other < true[at] for other in true)
            if not (found[name][0] <= best and worst <= found[name][1]):
                misses += 1
                break
    # 99.9 % of a binomial with 5 %: 27 of 300
    assert misses <= 27


# Drawing again -----------------------------------------------------------------------------------


def human(board):
    return next(path for path in entries(board) if path.name.startswith("human-"))


def again(made, board, path, **options):
    return verify(board, str(path), benchmark=str(made[0] / "small.toml"),
                  generator_params={"size": 32, "steps": 4}, **options)  # fmt: skip


def test_an_honest_entry_is_accepted_byte_for_byte(made, board):
    for path in entries(board):
        found = again(made, board, path, sample=5)
        assert found.accepted, found.as_text()
        assert found.exact
        assert found.same_bytes == found.images
        assert "accepted" in found.as_text()


@pytest.mark.parametrize("column", ["treated.aesthetic", "treated.inception_score.0", "twin.ssim"])
def test_an_altered_sample_is_found_if_it_is_drawn(made, board, column):
    def alter(columns):
        if column in columns:
            columns[column][7] = (columns[column][7] or 0.0) + 0.3
        else:
            columns["treated:image"][7] = bytes(8)

    path = edit_values(human(board), alter)
    found = again(made, board, path, sample=16)
    assert not found.accepted
    assert len(found.differing) >= 1
    missed = [at for at in range(16) if at != 7]
    seed = next(s for s in range(10_000) if set(choose(16, 4, seed=s)) <= set(missed))
    assert again(made, board, path, sample=4, seed=seed).accepted


def test_scores_are_compared_where_bytes_need_not_agree(made, board):
    def other_bytes(columns):
        columns["treated:image"][7] = bytes(8)

    path = edit_values(human(board), other_bytes)
    assert not again(made, board, path, sample=16).accepted
    found = again(made, board, path, sample=16, exact=False)
    assert found.accepted
    assert found.same_bytes == found.images - 1


def test_the_stated_power_is_the_share_of_altered_entries_that_are_found():
    rng = np.random.default_rng(5)
    for total, altered, drawn in ((256, 3, 32), (256, 26, 32), (60, 5, 20), (40, 1, 40)):
        hits = 0
        for seed in range(2000):
            touched = set(rng.choice(total, size=altered, replace=False).tolist())
            hits += bool(touched & set(choose(total, drawn, seed=seed)))
        power = detection_power(total, altered, drawn)
        error = 4 * np.sqrt(power * (1 - power) / 2000) + 1e-9
        assert abs(hits / 2000 - power) <= error
    assert detection_power(10, 10, 1) == 1.0
    assert detection_power(10, 0, 5) == 0.0
    assert detection_power(50, 5, 10) == pytest.approx(1 - comb(45, 10) / comb(50, 10))
    sure = surely_caught(256, 32)
    assert detection_power(256, sure, 32) >= 0.95 > detection_power(256, sure - 1, 32)
    assert surely_caught(10, 0) is None


def test_what_is_here_has_to_make_the_same_plan(made, board):
    with pytest.raises(DataError, match="generator fake"):
        verify(board, str(human(board)), benchmark=str(made[0] / "small.toml"), sample=1)
    with pytest.raises(MissingError, match="no entry"):
        again(made, board, "../../etc/passwd")
    with pytest.raises(ConfigError, match="at least 1"):
        again(made, board, human(board), sample=0)


# Publishing --------------------------------------------------------------------------------------


def test_a_folder_is_published_and_an_interrupted_one_finished(board, tmp_path, monkeypatch):
    target = tmp_path / "site"
    found = read_board(board)
    import negbench.leaderboard.publish as module

    whole, left = module.write_atomic, [7]

    def stops(path, data):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        whole(path, data)

    monkeypatch.setattr(module, "write_atomic", stops)
    with pytest.raises(KeyboardInterrupt):
        publish(found, str(target))
    assert not (target / "index.html").exists()
    monkeypatch.setattr(module, "write_atomic", whole)
    done = publish(found, str(target))
    assert done.kept >= 5
    assert check(target).problems == []
    assert publish(found, str(target)).sent == []
    (target / "pages" / "old.html").write_text("old")
    assert publish(found, str(target)).removed == ["pages/old.html"]


def test_a_folder_of_something_else_is_left_alone(board, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="other things"):
        publish(read_board(board), str(tmp_path / "site"))
    with pytest.raises(ConfigError, match="itself"):
        publish(read_board(board), str(board))


def test_history_that_others_published_is_not_overwritten(board, tmp_path):
    publish(read_board(board), str(tmp_path / "site"))
    theirs = tmp_path / "site" / lock.LOCK
    line = lock.Added(entry="x/y/z-1.json", sha256="0" * 64, values="1" * 64)
    theirs.write_bytes(theirs.read_bytes() + line.canonical() + b"\n")
    with pytest.raises(RecordError, match="somebody else published"):
        publish(read_board(board), str(tmp_path / "site"))


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import _http

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    _http.close_session()
    with Hub() as stand_in:
        stand_in.api = huggingface_hub.HfApi(endpoint=stand_in.address, token="hf_x")
        yield stand_in
    _http.close_session()


def test_the_hub_gets_every_file_and_nothing_twice(board, hub):
    found = read_board(board)
    done = publish(found, "hf:org/name", api=hub.api)
    expected = files_of(found)
    assert {name: data for name, data in hub.files.items() if name != "README.md"} == expected
    assert hub.created["type"] == "dataset"
    assert hub.commits[-1] == ["index.html"]
    assert set(done.sent) == {"README.md", *expected}
    commits = len(hub.commits)
    assert publish(found, "hf:org/name", api=hub.api).sent == []
    assert len(hub.commits) == commits
    assert hub.files["README.md"].startswith(b"---\n")
    assert yaml.safe_load(hub.files["README.md"].decode().split("---")[1])["configs"]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["/repos/create"], 403),
        (["/preupload/"], 401),
        (["/objects/batch"], 400),
        (["/lfs/"], 400),
        (["/commit/"], 500),
        (["/commit/"], 412),
        (["/commit/"], 0),
        (["/tree/"], 404),
    ],
)
def test_what_a_fault_left_half_done_is_finished_by_the_same_command(
    board, hub, words, status, monkeypatch
):
    import negbench.leaderboard.publish as module

    monkeypatch.setattr(module, "BATCH", 4)
    found = read_board(board)
    half = status in (500, 412, 0)
    if half:  # the third commit fails: two batches are there already
        whole, seen = hub.answer, []

        def third(handler, path, body):
            seen.append(path)
            whole(handler, path, body)
            if sum("/commit/" in p for p in seen) == 2:
                hub.fail(words, status)
                seen.clear()

        hub.answer = third
    else:
        hub.fail(words, status, times=1 if status in (401, 403, 400) else 9)
    if status == 404:
        hub.created = {"organization": "org", "name": "name"}
    try:
        with pytest.raises(DataError) as error:
            publish(found, "hf:org/name", api=hub.api)
    finally:
        hub.faults.clear()
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)
    assert "index.html" not in hub.files
    if half:
        assert 0 < len(hub.files) < len(files_of(found))
        hub.answer = whole
    before = len(hub.files)
    done = publish(found, "hf:org/name", api=hub.api)
    assert done.kept == before
    assert {**files_of(found)}.items() <= hub.files.items()


def test_the_hub_keeps_what_others_added_and_loses_what_was_withdrawn(board, hub):
    from negbench.leaderboard.add import withdraw

    publish(read_board(board), "hf:org/name", api=hub.api)
    theirs = hub.files[lock.LOCK]
    line = lock.Added(entry="x/y/z-1.json", sha256="0" * 64, values="1" * 64)
    hub.files[lock.LOCK] = theirs + line.canonical() + b"\n"
    with pytest.raises(RecordError, match="somebody else published"):
        publish(read_board(board), "hf:org/name", api=hub.api)
    hub.files[lock.LOCK] = theirs
    name = human(board).relative_to(board).as_posix()
    withdraw(str(human(board)), board, reason="a mistake")
    done = publish(read_board(board), "hf:org/name", api=hub.api)
    assert name in done.removed
    assert name not in hub.files


@pytest.mark.parametrize("to", ["hf:name", "hf:a/b/c", "hf:models/a/b", "hf:../../x"])
def test_targets_that_are_no_repo(board, to):
    with pytest.raises(ConfigError, match="is not hf:"):
        publish(read_board(board), to)


# Serving and exporting ---------------------------------------------------------------------------


def test_the_server_gives_the_folder_and_nothing_else(board, tmp_path):
    (board / ".secret").write_text("x")
    (board / "link").symlink_to("/etc/passwd")
    server = make_server(board)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        with urllib.request.urlopen(f"{base}/") as reply:
            assert b"leaderboard" in reply.read()
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
        for path in ("/entries/", "/.secret", "/link", "/../../etc/passwd", "/%2e%2e/%2e%2e/x"):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(base + path)
            assert error.value.code == 404
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(MissingError, match=r"index\.html"):
        make_server(tmp_path)


def test_exports_name_their_entries(made):
    found = read_board(made[1])
    table = make_table(found)[0]
    [row] = [r for r in table.groups[0].rows if r.title == "human"]
    only = exports.chosen(table, [row.entry])
    assert exports.as_csv(only).count("\n") == 1 + len(row.cells)
    latex = exports.as_latex(only)
    assert latex.count(r"\\") == 2
    assert "human &" in latex
    text = exports.as_hf_eval(only, dataset="org/bench", metric="inception_score")
    [item] = yaml.safe_load(text)
    assert item["dataset"]["id"] == "org/bench"
    assert "inception_score" in item["dataset"]["task_id"]
    assert item["value"] == row.cells["inception_score"].value
    assert "95 % interval" in item["notes"]
    with pytest.raises(ConfigError, match="knows no direction"):
        exports.as_hf_eval(only, dataset="org/bench", metric="evaluations")
    with pytest.raises(UnknownNameError, match="did you mean aesthetic"):
        exports.as_hf_eval(only, dataset="org/bench", metric="aestetic")
    with pytest.raises(UnknownNameError, match="no entry"):
        exports.chosen(table, ["nobody"])


def test_bibtex_has_what_was_used_once(made):
    text = bibtex([checked.entry for checked in read_board(made[1]).entries.values()])
    assert text.count("2304.04968") == 1
    assert "1606.03498" in text
    assert "2211.05105" not in text
    assert text.count("@") == text.count("\n}\n")
    assert text.count("{") == text.count("}")
