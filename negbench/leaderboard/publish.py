"""Put a leaderboard where people find it: a folder that any static host serves, or the hub.

Both ways send only what is not there yet, entries first and the index last, so that what was
interrupted is finished by the same command, and a reader never sees an index of absent pages. What
was published before is history: a target whose lock has lines that ours lacks is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from negbench.errors import ConfigError, DataError, RecordError, one_line
from negbench.files import make_folder, write_atomic
from negbench.leaderboard import lock
from negbench.leaderboard.build import build
from negbench.leaderboard.checks import Board
from negbench.progress import Progress, silent

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OWN = ("entries/", "pages/", "schema/")
"""Folders of a published leaderboard from which files may be taken away again."""

BATCH = 64
"""Files in one commit to the hub."""

_HUB = re.compile(r"hf:(?:(?P<kind>datasets|spaces)/)?(?P<repo>[\w.-]+/[\w.-]+)")


@dataclass
class Published:
    """What was sent.

    Attributes:
        target: where to.
        address: where it can be read.
        sent: files sent, in order.
        removed: files taken away.
        kept: files that were there already.
    """

    target: str
    address: str
    sent: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: int = 0


def files_of(board: Board) -> dict[str, bytes]:
    """Every file of a published leaderboard in the order of sending: entries first, index last.

    Raises:
        RecordError: the board has problems.
    """
    made = build(board)
    found: dict[str, bytes] = {}
    for name, checked in sorted(board.entries.items()):
        path = board.root / "entries" / name
        values = checked.entry.values
        for file in (values.twins, values.file, path.name):
            found[f"entries/{name.rsplit('/', 1)[0]}/{file}"] = path.with_name(file).read_bytes()
    found[lock.LOCK] = (board.root / lock.LOCK).read_bytes()
    found |= {name: made[name] for name in sorted(made) if name != "index.html"}
    return found | {"index.html": made["index.html"]}


def publish(
    board: Board, to: str, *, private: bool = False, progress: Progress = silent, api: Any = None
) -> Published:
    """Publish to a folder, or to ``hf:org/name`` or ``hf:spaces/org/name``.

    Args:
        board: as `read_board` gave it.
        to: the target.
        private: create the repo as a private one.
        progress: a bar.
        api: a `huggingface_hub.HfApi`; default: one with the user's own token.

    Raises:
        RecordError: the board has problems, or the target holds entries that ours lacks.
        DataError: the hub refuses.
    """
    if not board.entries:
        raise RecordError(f"{board.root} has no entry; add one with `negbench leaderboard add`")
    if to.startswith("hf:"):
        match = _HUB.fullmatch(to)
        if match is None:
            raise ConfigError(f"--to {to!r} is not hf:org/name or hf:spaces/org/name")
        kind = (match["kind"] or "datasets").removesuffix("s")
        return _to_hub(board, match["repo"], kind, private=private, progress=progress, api=api)
    return _to_folder(board, Path(to), progress=progress)


# A folder ---------------------------------------------------------------------------------------


def _to_folder(board: Board, target: Path, *, progress: Progress) -> Published:
    if target.resolve() == board.root.resolve():
        raise ConfigError(f"--to {target} is the leaderboard itself; it can be served as it is")
    theirs = target / lock.LOCK
    if target.is_dir() and any(target.iterdir()) and not theirs.is_file():
        started = target / ".negbench-leaderboard"
        if not started.is_file():
            raise ConfigError(f"--to {target} holds other things; give a new or an empty folder")
    _refuse_unknown(board, lock.read_lock(theirs), where=str(target))
    files = files_of(board)
    make_folder(target)
    write_atomic(target / ".negbench-leaderboard", b"")
    found = Published(target=str(target), address=(target / "index.html").resolve().as_uri())
    with progress("publishing", len(files)) as bar:
        for name, data in files.items():
            path = target / name
            if path.is_file() and path.read_bytes() == data:
                found.kept += 1
            else:
                write_atomic(path, data)
                found.sent.append(name)
            bar.update()
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if path.is_file() and name.startswith(OWN) and name not in files:
            path.unlink()
            found.removed.append(name)
    return found


def _refuse_unknown(
    board: Board, theirs: Sequence[lock.Added | lock.Withdrawn], *, where: str
) -> None:
    gone = lock.lost(board.lines, theirs)
    if gone:
        raise RecordError(
            f"{where} has {len(gone)} lines in its lock that are not here (first: {gone[0]}); "
            "somebody else published: fetch theirs, add yours to it, then publish"
        )


# The hub ----------------------------------------------------------------------------------------


def card(board: Board, kind: str) -> bytes:
    """README.md for the hub: what it is, and where the viewer finds the table."""
    head: dict[str, str] = {"title": "negbench leaderboard"}
    if kind == "space":
        head |= {"sdk": "static", "app_file": "index.html", "pinned": "false"}
        extra = ""
    else:
        head = {"pretty_name": "negbench leaderboard"}
        extra = (
            "configs:\n- config_name: leaderboard\n  data_files: leaderboard.parquet\n"
            "- config_name: comparisons\n  data_files: comparisons.csv\n"
        )
    lines = "".join(f"{key}: {value}\n" for key, value in head.items())
    benchmarks = sorted({checked.entry.benchmark for checked in board.entries.values()})
    text = (
        f"---\n{lines}{extra}---\n\n# negbench leaderboard\n\n"
        f"{len(board.entries)} entries on {', '.join(benchmarks)}: what negative prompts do, every "
        "picture beside its twin without one.\n\n"
        "`index.html` is the table, `entries/` holds each entry with the values of every case, "
        "`comparisons.csv` every pair. `negbench leaderboard check --board .` computes every "
        "number again; `negbench leaderboard verify ENTRY --board .` draws a sample again.\n"
    )
    return text.encode("utf-8")


def _to_hub(
    board: Board, repo: str, kind: str, *, private: bool, progress: Progress, api: Any
) -> Published:
    hub: HfApi = api if api is not None else _api()
    files = {"README.md": card(board, kind), **files_of(board)}
    where = f"hf:{kind}s/{repo}"
    with _told(where):
        made = hub.create_repo(
            repo,
            repo_type=kind,
            private=private,
            exist_ok=True,
            space_sdk="static" if kind == "space" else None,
        )
    with _told(where):
        remote = _remote(hub, repo, kind)
        theirs = _remote_lock(hub, repo, kind) if lock.LOCK in remote else []
    _refuse_unknown(board, theirs, where=where)
    found = Published(target=where, address=str(getattr(made, "url", made)))
    todo = [name for name, data in files.items() if not _equal(remote.get(name), data)]
    found.kept = len(files) - len(todo)
    gone = sorted(name for name in remote if name.startswith(OWN) and name not in files)
    with progress("publishing", len(todo) + len(gone)) as bar:
        for batch in _batches(todo):
            with _told(where):
                _commit(hub, repo, kind, {name: files[name] for name in batch}, ())
            found.sent += batch
            bar.update(len(batch))
        if gone:
            with _told(where):
                _commit(hub, repo, kind, {}, gone)
            found.removed = gone
            bar.update(len(gone))
    return found


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()


def _batches(names: Sequence[str]) -> Iterator[list[str]]:
    """Names in order, the index in a batch of its own at the end."""
    rest = [name for name in names if name != "index.html"]
    for at in range(0, len(rest), BATCH):
        yield rest[at : at + BATCH]
    if "index.html" in names:
        yield ["index.html"]


def _remote(hub: HfApi, repo: str, kind: str) -> dict[str, tuple[str | None, str | None]]:
    """Path -> git blob id and, for large files, sha256, of what the repo has."""
    from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    try:
        listed = list(hub.list_repo_tree(repo, repo_type=kind, recursive=True))
    except (EntryNotFoundError, RevisionNotFoundError):
        return {}
    return {
        item.path: (item.blob_id, item.lfs.sha256 if item.lfs is not None else None)
        for item in listed
        if isinstance(item, RepoFile)
    }


def _remote_lock(hub: HfApi, repo: str, kind: str) -> list[lock.Added | lock.Withdrawn]:
    with TemporaryDirectory(prefix="negbench-publish-") as folder:
        path = hub.hf_hub_download(repo, lock.LOCK, repo_type=kind, local_dir=folder)
        return lock.read_lock(Path(path))


def _equal(remote: tuple[str | None, str | None] | None, data: bytes) -> bool:
    if remote is None:
        return False
    blob, sha256 = remote
    if sha256 is not None:
        return sha256 == hashlib.sha256(data).hexdigest()
    # a git blob's name; git's choice of digest, not a matter of security
    head = f"blob {len(data)}\0".encode()
    return blob == hashlib.sha1(head + data, usedforsecurity=False).hexdigest()


def _commit(
    hub: HfApi, repo: str, kind: str, files: Mapping[str, bytes], gone: Sequence[str]
) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()
    ]
    operations += [CommitOperationDelete(path_in_repo=name) for name in gone]
    entries = sum(name.startswith("entries/") and name.endswith(".json") for name in files)
    message = f"{entries} entries" if entries else "leaderboard" if files else "withdrawn entries"
    hub.create_commit(repo_id=repo, repo_type=kind, operations=operations, commit_message=message)


class _told:  # noqa: N801
    """Turn what the hub's client raises into one line."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if error is None or not isinstance(error, Exception):
            return
        if isinstance(error, (RecordError, DataError, ConfigError)):
            return
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            why = "the hub refuses you; log in with `hf auth login`, with a token that may write"
        elif status in (409, 412):
            why = "somebody else published at this moment; give the same command again"
        elif status == 404:
            why = "no such repo or user; check the name"
        else:
            root: BaseException = error
            while root.__cause__ is not None:
                root = root.__cause__
            said = one_line(str(root), limit=160) or type(root).__name__
            why = f"{said}; what was sent stays, the same command finishes it"
        raise DataError(f"{self.where}: {why}") from error
