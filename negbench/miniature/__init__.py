"""The miniature: a small drawn world and small models of the real kinds trained on it.

Everything here is shipped inside the package, works offline and takes seconds on a CPU.
Importing this module loads no heavy library.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def weights_dir() -> Path:
    """Folder of all shipped weights."""
    return _HERE / "weights"


def pipeline_dir() -> Path:
    """The text-to-image model: a `StableDiffusionPipeline` folder."""
    return weights_dir() / "pipeline"


def clip_dir() -> Path:
    """The CLIP model: an open_clip `local-dir:` folder."""
    return weights_dir() / "clip"


def inception_dir() -> Path:
    """Inception Score's network: a classifier of the subject."""
    return weights_dir() / "inception"


def judge_dir() -> Path:
    """The presence judge."""
    return weights_dir() / "judge"


def aesthetic_path() -> Path:
    """The aesthetic predictor: a head on the miniature CLIP's normalised image embedding."""
    return weights_dir() / "aesthetic" / "model.safetensors"


def negopt_dir() -> Path:
    """The first NegOpt checkpoint: a T5 folder with its tokenizer."""
    return weights_dir() / "negopt"


def negopt_rl_dir() -> Path:
    """The NegOpt checkpoint of both stages: by imitation, and then by reward."""
    return weights_dir() / "negopt-rl"


def db_dir() -> Path:
    """The miniature Negative Prompts DB: `train`, `validation` and `test` as parquet."""
    return _HERE / "db"


def card_path() -> Path:
    """The model card with all calibration figures."""
    return _HERE / "CARD.md"
