"""The sequence-to-sequence model that training starts from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from negbench.errors import ConfigError, MissingError, NegbenchError, one_line
from negbench.methods import checkpoint as checkpoints
from negbench.types import canonical_json, sha256_hex

MINIATURE = "miniature"
_T5 = re.compile(r"t5-(small|base|large|3b|11b)")


@dataclass
class Base:
    """A model in float32 on the CPU with its tokenizer.

    Attributes:
        model: a transformers encoder-decoder model.
        tokenizer: its tokenizer.
        name: what the user called it.
        digest: of its weights, or of its architecture if they are drawn at random.
        folder: where it lies; None for the miniature's untrained model.
    """

    model: Any
    tokenizer: Any
    name: str
    digest: str
    folder: Path | None = None


def load_base(spec: str, *, seed: int = 0, option: str = "--base") -> Base:
    """The model that `spec` names.

    Args:
        spec: ``miniature`` (a small T5 with random weights and a vocabulary of the drawn world), a
            hub repo such as ``t5-small`` or ``org/name[@revision]``, or a folder. A folder with
            config and tokenizer but without weights is an architecture: its weights are drawn.
        seed: of weights that are drawn.
        option: the option that messages name.

    Raises:
        MissingError: it is not on this machine.
        ConfigError: it is no encoder-decoder model, or tokenizer and model do not fit.
    """
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    if spec == MINIATURE and option == "--base":
        return _miniature(seed)
    asked = f"google-t5/{spec}" if _T5.fullmatch(spec) and not Path(spec).exists() else spec
    folder = Path(asked).expanduser()
    drawn = folder.is_dir() and (folder / "config.json").is_file() and not _has_weights(folder)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        if drawn:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            if not config.is_encoder_decoder:
                raise ConfigError(
                    f"{option} {spec} is a model of type {config.model_type!r}, not a "
                    "sequence-to-sequence model; give a T5, BART or another encoder-decoder model"
                )
            torch.manual_seed(seed)
            model = AutoModelForSeq2SeqLM.from_config(config)
            digest = sha256_hex(canonical_json(["random weights", config.to_dict(), seed]))
        else:
            found = checkpoints.inspect(asked)
            folder, digest = found.folder, found.digest
            model = AutoModelForSeq2SeqLM.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, dtype=torch.float32
            )
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except NegbenchError as error:
        text = str(error).replace("method negopt: checkpoint=", f"{option} ")
        raise type(error)(text.replace("method negopt: ", f"{option}: ")) from error
    except Exception as error:
        raise ConfigError(
            f"{option} {spec} does not work as a sequence-to-sequence model: "
            f"{type(error).__name__}: {one_line(str(error), limit=250)}"
        ) from error
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ConfigError(
            f"{option} {spec}: the tokenizer has {len(tokenizer)} tokens but the model {rows}; "
            "they do not belong together"
        )
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{option} {spec}: the tokenizer has no end token; take another model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if start_token(model) is None:
        raise ConfigError(f"{option} {spec}: its config has no decoder_start_token_id; add it")
    return Base(model.float(), tokenizer, spec, digest, folder)


def start_token(model: Any) -> int | None:
    """The token that the decoder begins with."""
    for config in (model.generation_config, model.config):
        value = getattr(config, "decoder_start_token_id", None)
        if value is not None:
            return int(value)
    return None


def check_same_vocabulary(first: Base, second: Base) -> None:
    """Refuse two models whose tokens differ.

    Raises:
        ConfigError: they do.
    """
    if first.tokenizer.get_vocab() != second.tokenizer.get_vocab():
        raise ConfigError(
            f"checkpoint {second.name} has another vocabulary than {first.name}; they do not "
            "belong together"
        )


def _has_weights(folder: Path) -> bool:
    names = (checkpoints.WEIGHTS, checkpoints.INDEX, *checkpoints.PICKLES)
    return any((folder / name).is_file() for name in names)


def _miniature(seed: int) -> Base:
    from negbench.miniature.training.negopt import build_negopt, build_negopt_tokenizer

    tokenizer = build_negopt_tokenizer()
    torch.manual_seed(seed)
    model = build_negopt(len(tokenizer))
    digest = sha256_hex(
        canonical_json(
            ["random weights", model.config.to_dict(), sorted(tokenizer.get_vocab()), seed]
        )
    )
    if start_token(model) is None:
        raise MissingError("the miniature's model has no start token; reinstall negbench")
    return Base(model, tokenizer, MINIATURE, digest)
