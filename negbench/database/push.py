"""`negbench db push`: publish a data set on the Hugging Face hub, if its licences allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from negbench import hub
from negbench.database.check import check_db
from negbench.database.manifest import may_be_shared, read_manifest
from negbench.errors import ConfigError, DataError, RecordError


def push_db(folder: str | Path, *, repo: str, private: bool = False, api: Any = None) -> str:
    """Publish a whole, verified data set; the card becomes the repository's README.

    Args:
        folder: the data set.
        repo: ``org/name``.
        private: create the repository as a private one.
        api: a `huggingface_hub.HfApi`; default: one with the user's own token.

    Returns:
        Address of the commit.

    Raises:
        DataError: a source's licence or terms forbid it, or the hub refuses.
        RecordError: the data set is not whole.
    """
    root = Path(folder)
    manifest = read_manifest(root)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ConfigError(f"--repo {repo!r} is not org/name")
    for source in manifest["sources"]:
        if not may_be_shared(source):
            licence = source.get("license") or "none declared"
            raise DataError(
                f"{source['name']} may not be published (licence: {licence}); build without it, or "
                "share evaluation/*.json, which holds ids and no text"
            )
    problems = check_db(root)
    if problems:
        raise RecordError(f"{root} is not whole: {problems[0]}; build it again")
    from huggingface_hub import CommitOperationAdd

    name = manifest["name"]
    operations = [
        CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(root / path))
        for path in [*manifest["files"], "manifest.json"]
        if not path.startswith("data_cards/") or path.startswith(f"data_cards/{name}/")
    ]
    for operation in operations:
        operation.path_in_repo = operation.path_in_repo.removeprefix("data_cards/")
    card = root / "data_cards" / f"{name}.md"
    stats = root / "data_cards" / f"{name}.stats.json"
    operations.append(CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=str(card)))
    operations.append(
        CommitOperationAdd(path_in_repo=f"{name}.stats.json", path_or_fileobj=str(stats))
    )
    return hub.send(
        repo,
        operations,
        kind="dataset",
        message=f"{name}, {sum(manifest['rows'].values())} pairs",
        private=private,
        api=api,
    )
