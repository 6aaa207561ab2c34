"""Repos of the Hugging Face Hub: what lies in its cache on this machine, and how it gets there.

Only `fetch` and `send` go online: ``negbench prefetch`` calls the one, commands that publish the
other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from negbench.errors import ConfigError, DataError, MissingError, NegbenchError, one_line
from negbench.files import storage_error

_SPEC = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Repo:
    """A repo and, if one was named, its revision."""

    name: str
    revision: str | None = None


def parse(spec: str) -> Repo | None:
    """``org/name[@revision]`` as a repo, or None if `spec` cannot be one."""
    match = _SPEC.fullmatch(spec)
    return None if match is None else Repo(match["repo"], match["revision"])


def cached_snapshot(repo: Repo, *, owner: str) -> Path | None:
    """The folder of the repo in the hub's cache, or None; its name is the commit.

    Raises:
        ConfigError: the hub refuses the name; `owner` begins the message.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo.name, revision=repo.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ConfigError(f"{owner}: {one_line(str(error), limit=160)}") from error


def cached_file(repo: str, filename: str, *, revision: str | None = None) -> Path | None:
    """A file of a repo if it lies in the hub's cache, else None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, filename, revision=revision)
    return Path(found) if isinstance(found, str) else None


def fetch(
    repo: Repo, wanted: Sequence[str] | Callable[[list[str]], list[str]], *, owner: str
) -> Path:
    """Fetch files of a repo into the hub's cache; the folder they lie in.

    Args:
        repo: which repo.
        wanted: names or patterns, or a function that chooses among the repo's files.
        owner: begins every message.

    Raises:
        MissingError: no connection, or no such repo or revision.
        NegbenchError: what `wanted` refused.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        patterns = (
            wanted(HfApi().list_repo_files(repo.name, revision=repo.revision))
            if callable(wanted)
            else list(wanted)
        )
        return Path(snapshot_download(repo.name, revision=repo.revision, allow_patterns=patterns))
    except NegbenchError:
        raise
    except HFValidationError as error:
        raise ConfigError(f"{owner}: {one_line(str(error), limit=160)}") from error
    except Exception as error:  # the hub client's transport errors have no common base class
        if isinstance(error, OSError) and error.errno is not None and error.filename:
            raise storage_error(error, Path(str(error.filename))) from error
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        raise MissingError(
            f"{owner}: {repo.name} cannot be fetched from the Hugging Face Hub: "
            f"{one_line(str(root), limit=120) or type(root).__name__}; on a machine with internet "
            "run the same command and copy its Hugging Face cache from there to here"
        ) from error


def send(
    repo: str,
    operations: Sequence[Any],
    *,
    kind: Literal["model", "dataset"],
    message: str,
    private: bool = False,
    api: Any = None,
) -> str:
    """Commit files to a repo of the user's, which is made if there is none.

    Args:
        repo: ``org/name``.
        operations: the `huggingface_hub.CommitOperationAdd` of all files.
        kind: of the repo.
        message: of the commit.
        private: make the repo a private one.
        api: a `huggingface_hub.HfApi`; default: one with the user's own token.

    Returns:
        Address of the commit.

    Raises:
        DataError: the hub refuses.
    """
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        commit = api.create_commit(
            repo_id=repo, repo_type=kind, operations=list(operations), commit_message=message
        )
    except Exception as error:  # the hub client's errors have no common base class
        raise DataError(
            f"the hub refused {repo}: {one_line(str(error), limit=200)}; log in with "
            "`hf auth login`"
        ) from error
    return str(getattr(commit, "commit_url", commit))
