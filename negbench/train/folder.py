"""A training run on disk, such that a kill at any moment leaves a good checkpoint and a way on.

<out>/run.json              what was asked; another question needs another folder
<out>/state.pt              model, optimizer and step, replaced at once
<out>/metrics.jsonl         a line a logged step; cut back to the state's step when going on
<out>/checkpoints/step-*    plain transformers folders with a card
<out>/checkpoint            link to the newest good one, replaced at once
"""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from negbench.errors import ConfigError, MissingError, RecordError
from negbench.files import make_folder, read_json, read_lines, storage_error, write_atomic
from negbench.files import write_json as write_json_file
from negbench.types import canonical_json, sha256_hex

KEPT = 2
FACTS = "negbench.json"


@contextlib.contextmanager
def held(out: Path, *, leads: bool = True) -> Iterator[None]:
    """Keep other training runs out of a folder while this one is inside.

    A process that dies lets go of it. Where the file system has no locks, nobody is kept out.

    Args:
        out: the folder of the run.
        leads: False in processes that only read.

    Raises:
        ConfigError: another run is inside.
        StorageError: the folder cannot be written.
    """
    if not leads:
        yield
        return
    path = make_folder(out) / ".lock"
    try:
        file = path.open("ab")
    except OSError as error:
        raise storage_error(error, path) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another training run is writing to {out}; wait for it, or choose another --out"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise storage_error(error, path, "lock") from error
        yield


class RunFolder:
    """Where a training run keeps its state, its log and its checkpoints.

    Args:
        out: the folder.
        settings: everything that decides the result.
        restart: begin anew in place of going on.
        leads: False in processes that only read.

    Raises:
        ConfigError: the folder holds a run with other settings.
    """

    def __init__(
        self, out: Path, settings: Mapping[str, Any], *, restart: bool, leads: bool = True
    ) -> None:
        self.out = out
        self.leads = leads
        self._board: Any = None
        header = out / "run.json"
        digest = sha256_hex(canonical_json(settings))
        if not leads:
            return
        make_folder(out)
        if restart:
            self._clear()
        if header.is_file():
            before = read_json(header)
            if before.get("digest") != digest:
                raise ConfigError(
                    f"{out} holds a training run with other settings"
                    f"{_first_difference(before.get('settings'), settings)}; choose another --out, "
                    "or give --restart to begin anew"
                )
        write_json_file(header, {"settings": dict(settings), "digest": digest})

    def _clear(self) -> None:
        for name in ("run.json", "state.pt", "metrics.jsonl", "checkpoint"):
            (self.out / name).unlink(missing_ok=True)
        for name in ("checkpoints", "tensorboard", "samples"):
            shutil.rmtree(self.out / name, ignore_errors=True)

    @property
    def checkpoint(self) -> Path:
        """The newest good checkpoint."""
        return self.out / "checkpoint"

    @property
    def metrics(self) -> Path:
        """The log."""
        return self.out / "metrics.jsonl"

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None at the beginning.

        Raises:
            RecordError: the file was altered.
        """
        path = self.out / "state.pt"
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise RecordError(
                f"{path} cannot be read ({type(error).__name__}); the last good checkpoint is "
                f"{self.checkpoint}; give --restart to train anew"
            ) from error
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep the state.

        Raises:
            StorageError: the disk is full; the state before is still there.
        """
        if self.leads:
            buffer = io.BytesIO()
            torch.save(dict(state), buffer)
            write_atomic(self.out / "state.pt", buffer.getvalue())

    def cut_log(self, step: int) -> None:
        """Drop lines beyond `step`: those steps are done again."""
        if not self.leads or not self.metrics.is_file():
            return
        kept = [line for line in read_lines(self.metrics) if line.get("step", 0) <= step]
        write_atomic(self.metrics, b"".join(canonical_json(line) + b"\n" for line in kept))

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line; numbers go to TensorBoard too, if that is on."""
        if not self.leads:
            return
        try:
            with self.metrics.open("ab") as file:
                file.write(canonical_json(dict(line)) + b"\n")
        except OSError as error:
            raise storage_error(error, self.metrics) from error
        if self._board is not None:
            for key, value in line.items():
                if isinstance(value, int | float) and key != "step":
                    self._board.add_scalar(key, value, line["step"])
            self._board.flush()

    def lines(self) -> list[dict[str, Any]]:
        """All lines of the log."""
        return list(read_lines(self.metrics)) if self.metrics.is_file() else []

    def open_board(self) -> None:
        """Write the log for TensorBoard as well.

        Raises:
            MissingError: the package is not installed.
        """
        if not self.leads:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingError(
                "--tensorboard needs the package tensorboard; install negbench[tensorboard], or "
                "read metrics.jsonl"
            ) from error
        self._board = SummaryWriter(str(self.out / "tensorboard"))

    def publish(
        self, model: Any, tokenizer: Any, *, step: int, card: str, facts: Mapping[str, Any],
        half: bool,
    ) -> Path:  # fmt: skip
        """Write a whole checkpoint folder and point `checkpoint` at it.

        Args:
            model: a transformers model.
            tokenizer: its tokenizer.
            step: names the folder.
            card: Markdown of its README.
            facts: what `negbench.json` says.
            half: store the weights as float16.

        Raises:
            StorageError: the disk is full; the checkpoint before is still there.
        """
        name = f"step-{step:06d}"
        folder = self.out / "checkpoints" / name
        if not self.leads:
            return folder
        part = make_folder(folder.parent) / f".{name}"
        shutil.rmtree(part, ignore_errors=True)
        try:
            write_model(model, tokenizer, part, half=half)
            (part / "README.md").write_text(card, encoding="utf-8")
            write_json_file(part / FACTS, dict(facts))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
            link = self.out / ".checkpoint"
            link.unlink(missing_ok=True)
            link.symlink_to(Path("checkpoints") / name)
            os.replace(link, self.checkpoint)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise storage_error(error, part) from error
        for old in sorted(folder.parent.glob("step-*"))[:-KEPT]:
            if old != self.checkpoint.resolve():
                shutil.rmtree(old, ignore_errors=True)
        return folder


def write_model(model: Any, tokenizer: Any, folder: Path, *, half: bool) -> None:
    """Write a plain transformers folder with safetensors.

    Raises:
        OSError: the disk is full.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    # a copy keeps what is tied tied; single halved tensors would be written several times
    saved = copy.deepcopy(model).half() if half else model
    try:
        saved.save_pretrained(folder)
    except SafetensorError as error:
        full = "No space" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(folder)) from error
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    described = json.loads((folder / "tokenizer_config.json").read_bytes())
    if described.get("tokenizer_class") in ("TokenizersBackend", None):
        # the name that every version of transformers knows
        described["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_json_file(folder / "tokenizer_config.json", described)


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """What `negbench.json` of a checkpoint says; empty if it has none."""
    path = checkpoint / FACTS
    return read_json(path) if path.is_file() else {}


def _first_difference(before: Any, now: Mapping[str, Any]) -> str:
    if not isinstance(before, dict):
        return ""
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            return f" ({key} was {str(before.get(key))[:60]}, is {str(now.get(key))[:60]})"
    return ""
