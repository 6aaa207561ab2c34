"""Negative prompts for a person to paste."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from negbench.errors import ConfigError, DataError, NegbenchError
from negbench.files import storage_error
from negbench.methods.checkpoint import MINIATURE, inspect
from negbench.methods.texts import tidied
from negbench.train.schedule import seed_for
from negbench.types import MAX_TEXT

ROUNDS = 4
"""Samples are drawn again at most so often where they repeat."""
MAX_PROMPTS = 100_000


def suggest(
    prompts: Sequence[str], *, n: int = 1, checkpoint: str = MINIATURE, seed: int = 0
) -> list[list[str]]:
    """Up to `n` different negative prompts for each prompt: beam search first, then samples.

    Args:
        prompts: what pictures are wanted.
        n: how many for each.
        checkpoint: model folder, hub repo or ``miniature``.
        seed: of the samples.

    Returns:
        For each prompt its negatives, the likeliest first; fewer than `n` where the model repeats
        itself.

    Raises:
        MissingError: the checkpoint is not on this machine.
        ConfigError: it is no seq2seq model, or `n` is no count.
    """
    if not 1 <= n <= 1000:
        raise ConfigError(f"--n must be between 1 and 1000, got {n}")
    try:
        found = inspect(checkpoint)
    except NegbenchError as error:
        text = str(error).replace("method negopt: checkpoint=", "--checkpoint ")
        raise type(error)(text) from error
    from negbench.methods.seq2seq import Writer

    settings = {"num_beams": 4, "max_new_tokens": 96, "temperature": 1.0, "top_p": 0.95}
    first = Writer(found, decode="beam", **settings)  # type: ignore[arg-type]
    answers: list[dict[str, None]] = [
        {text: None} if (text := tidied(raw)) else {}
        for raw in first.write(prompts, seeds=[0] * len(prompts))
    ]
    if n == 1:
        return [list(one) for one in answers]
    sampler = Writer(found, decode="sample", **settings)  # type: ignore[arg-type]
    for turn in range(ROUNDS):
        short = [i for i, one in enumerate(answers) if len(one) < n]
        asked = [(i, k) for i in short for k in range(n)]
        written = sampler.write(
            [prompts[i] for i, _ in asked],
            seeds=[seed_for("suggest", seed, turn, k, prompts[i]) for i, k in asked],
        )
        for (i, _), raw in zip(asked, written, strict=True):
            text = tidied(raw)
            if text and len(answers[i]) < n:
                answers[i].setdefault(text)
    return [list(one) for one in answers]


def read_prompts(given: Sequence[str], *, file: Path | None) -> list[str]:
    """Prompts from the command line, a file with one a line, or stdin (``-``, or nothing given).

    Raises:
        DataError: there is none, one is too long, or the file is not text.
    """
    lines: Iterable[str] = given
    if file is not None or list(given) == ["-"] or not given:
        if given and list(given) != ["-"]:
            raise ConfigError("give prompts or --file, not both")
        try:
            data = (
                file.read_bytes()
                if file is not None and str(file) != "-"
                else sys.stdin.buffer.read()
            )
        except OSError as error:
            raise storage_error(error, file or Path("-"), "read") from error
        try:
            lines = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"prompts are not UTF-8 at byte {error.start}; convert them") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise DataError('no prompt given; write for example negbench suggest "a castle at dusk"')
    if len(prompts) > MAX_PROMPTS:
        raise DataError(f"{len(prompts)} prompts; at most {MAX_PROMPTS} at once, split the file")
    for number, prompt in enumerate(prompts, start=1):
        if len(prompt) > MAX_TEXT:
            raise DataError(f"prompt {number} has {len(prompt)} characters; at most {MAX_TEXT}")
    return prompts
