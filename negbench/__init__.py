"""negbench: a dataset and benchmark toolkit for negative prompts in text-to-image generation.

Importing this package loads no heavy library: names are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "Case": "negbench.types",
    "Estimate": "negbench.types",
    "Guidance": "negbench.types",
    "ImageRequest": "negbench.types",
    "Negative": "negbench.types",
    "Ref": "negbench.types",
    "Score": "negbench.types",
    "Treatment": "negbench.types",
    "NegbenchError": "negbench.errors",
    "Method": "negbench.methods.base",
    "Record": "negbench.record",
    "evaluate": "negbench.evaluate",
    "load_db": "negbench.database.load",
    "load_record": "negbench.record",
    "make_plan": "negbench.plan",
}

if TYPE_CHECKING:
    from negbench.database.load import load_db
    from negbench.errors import NegbenchError
    from negbench.evaluate import evaluate
    from negbench.methods.base import Method
    from negbench.plan import make_plan
    from negbench.record import Record, load_record
    from negbench.types import (
        Case,
        Estimate,
        Guidance,
        ImageRequest,
        Negative,
        Ref,
        Score,
        Treatment,
    )

__all__ = [
    "Case",
    "Estimate",
    "Guidance",
    "ImageRequest",
    "Method",
    "Negative",
    "NegbenchError",
    "Record",
    "Ref",
    "Score",
    "Treatment",
    "__version__",
    "evaluate",
    "load_db",
    "load_record",
    "make_plan",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'negbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
