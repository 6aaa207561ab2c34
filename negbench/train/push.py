"""`negbench push`: publish a trained checkpoint on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from negbench import hub
from negbench.errors import ConfigError, MissingError, NegbenchError
from negbench.methods import checkpoint as checkpoints
from negbench.train.folder import FACTS, read_facts


def push_checkpoint(folder: str | Path, *, to: str, private: bool = False, api: Any = None) -> str:
    """Publish a checkpoint folder with its card; the card becomes the repository's README.

    Args:
        folder: a checkpoint that `negbench train negopt` wrote.
        to: ``hf:org/name``.
        private: create the repository as a private one.
        api: a `huggingface_hub.HfApi`; default: one with the user's own token.

    Returns:
        Address of the commit.

    Raises:
        ConfigError: `to` is no ``hf:org/name``, or the folder is no seq2seq model.
        MissingError: a file is missing.
        DataError: the hub refuses.
    """
    repo = to.removeprefix("hf:")
    if not to.startswith("hf:") or repo.count("/") != 1 or not all(repo.split("/")):
        raise ConfigError(f"--to {to!r} is not hf:org/name")
    root = Path(folder).expanduser()
    try:
        found = checkpoints.inspect(str(root))
    except NegbenchError as error:
        text = str(error).replace("method negopt: checkpoint=", "checkpoint ")
        raise type(error)(text) from error
    if not root.is_dir():
        raise ConfigError(f"checkpoint {folder} is no folder on this machine; give its path")
    for name in ("README.md", FACTS):
        if not (found.folder / name).is_file():
            raise MissingError(
                f"{found.folder} has no {name}; publish a checkpoint that `negbench train negopt` "
                "wrote"
            )
    facts = read_facts(found.folder)
    from huggingface_hub import CommitOperationAdd

    names = [n for n in (*checkpoints.FILES, "README.md", FACTS) if (found.folder / n).is_file()]
    names += sorted(
        p.name for p in found.folder.iterdir()
        if p.name.endswith(".safetensors") or p.name == checkpoints.INDEX
    )  # fmt: skip
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(found.folder / name))
        for name in names
    ]
    return hub.send(
        repo,
        operations,
        kind="model",
        message=f"NegOpt, {facts.get('stage', 'sft')}, checkpoint {found.digest[:12]}",
        private=private,
        api=api,
    )
