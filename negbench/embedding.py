"""Embeddings in place of words: files of learned vectors, known by what they hold.

Two kinds, both in safetensors, since pickles are never loaded:

- Textual inversion (Gal et al., arXiv 2208.01618): k vectors that take the places of k tokens of a
  text. Automatic1111 calls the tensor ``emb_params``, diffusers by the token; Stable Diffusion XL
  has two, ``clip_l`` and ``clip_g``. A vector alone is (d,), several are (k, d).
- A whole conditioning, such as ReNeg learns (arXiv 2412.19637): what a text encoder makes of a
  negative prompt, replaced as a whole. It is (1, L, d) with L the positions of the encoder, or
  (77, d); for Stable Diffusion XL with the pooled text beside it, under diffusers' names
  ``negative_prompt_embeds`` and ``negative_pooled_prompt_embeds``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.errors import ConfigError, DataError, MissingError, one_line
from negbench.types import canonical_json, embedding_place, sha256_hex
from negbench.weight_files import read_header

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_FILE = 16 << 20
"""Largest file, in bytes: a conditioning of Stable Diffusion XL in float32 has 0.6 million."""

MAX_VECTORS = 1024
"""Most vectors of one tensor; encoders take 75, and less is refused when one is known."""

CLIP_POSITIONS = 77
"""Positions of CLIP's text encoders: so many vectors can only be a whole conditioning."""

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
DTYPES = ("F64", "F32", "F16", "BF16")
BOTH = ("clip_l", "clip_g")
_POOLED = {f"{sign}pooled_prompt_embeds": f"{sign}prompt_embeds" for sign in ("", "negative_")}


@dataclass(frozen=True)
class Embedding:
    """Learned vectors, float32.

    Attributes:
        tensors: (k, d) each. Of a textual inversion one for each text encoder, in their order; of a
            whole conditioning ``context`` (L, d) and, where there is one, ``pooled`` (1, d).
        whole: whether it is a whole conditioning.
        source: the file as the user named it; no part of the identity.
        digest: sha256 over kind, names, shapes and values, whatever the file's precision or the
            name that it gives its token.
    """

    tensors: Mapping[str, npt.NDArray[np.float32]]
    whole: bool
    source: str
    digest: str

    @classmethod
    def of(
        cls, tensors: Mapping[str, npt.NDArray[np.float32]], *, whole: bool, source: str
    ) -> Embedding:
        """The embedding of these tensors, digested."""
        facts = [
            [name, list(array.shape), hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()]
            for name, array in tensors.items()
        ]
        kind = "conditioning" if whole else "tokens"
        digest = sha256_hex(canonical_json(["negbench-embedding", 1, kind, facts]))
        return cls(dict(tensors), whole, source, digest)

    @property
    def place(self) -> str:
        """What stands for it in a text."""
        return embedding_place(self.digest)

    @property
    def vectors(self) -> int:
        """How many tokens or positions it takes."""
        return len(next(iter(self.tensors.values())))

    def describe(self) -> str:
        """Kind and shape, for people."""
        widths = " and ".join(str(array.shape[1]) for array in self.tensors.values())
        kind = "a whole conditioning" if self.whole else "a textual inversion"
        count = f"{self.vectors} {'positions' if self.whole else 'vectors'}"
        return f"{kind} of {count if self.vectors != 1 else count[:-1]}, {widths} wide"


def read_embedding(path: Path, *, source: str | None = None) -> Embedding:
    """Read and check a file.

    Args:
        path: a safetensors file.
        source: what messages call it; None for the path.

    Raises:
        MissingError: there is no such file.
        ConfigError: a pickle, or tensors that are no embedding.
        DataError: a torn file, or values that are not finite.
    """
    said = one_line(source or str(path), limit=200)
    if not path.is_file():
        raise MissingError(f"embedding {said}: there is no such file; check the path")
    if path.suffix.lower() in PICKLES:
        raise ConfigError(
            f"embedding {said} is a pickle, which could run code and is never loaded; convert it "
            "with safetensors.torch.save_file where you trust it"
        )
    if path.stat().st_size > MAX_FILE:
        raise ConfigError(
            f"embedding {said} has {path.stat().st_size >> 20} MiB; an embedding has at most "
            f"{MAX_FILE >> 20}, so this is another kind of file"
        )
    header = read_header(path)
    roles, whole = _roles(header, said)
    arrays = _load(path, said)
    tensors = {}
    for role, key in roles.items():
        array = arrays[key]
        tensors[role] = array.reshape(-1, array.shape[-1])
    if len({len(array) for role, array in tensors.items() if role != "pooled"}) > 1:
        counts = " and ".join(str(len(array)) for array in tensors.values())
        raise ConfigError(
            f"embedding {said} has {counts} vectors for the two text encoders; they have to be "
            "equally many"
        )
    return Embedding.of(tensors, whole=whole, source=said)


def _roles(header: Mapping[str, Any], said: str) -> tuple[dict[str, str], bool]:
    """Role -> key in the file, and whether it is a whole conditioning; shapes are checked."""
    if not header:
        raise ConfigError(f"embedding {said} holds no tensors; give another file")
    for key, item in header.items():
        shape = list(item["shape"])
        if item["dtype"] not in DTYPES:
            raise ConfigError(
                f"embedding {said}: {_name(key)} has dtype {str(item['dtype'])[:20]}; an embedding "
                f"has one of {', '.join(DTYPES)}"
            )
        fits = 1 <= len(shape) <= 2 or (len(shape) == 3 and shape[0] == 1)
        if not fits or not math.prod(shape) or math.prod(shape[:-1]) > MAX_VECTORS:
            raise ConfigError(
                f"embedding {said}: {_name(key)} has shape {tuple(shape)!s:.60}; expected (d,) or "
                "(k, d), or (1, L, d) for a whole conditioning"
            )
    keys = set(header)
    if keys == set(BOTH):
        return {key: key for key in BOTH}, False
    for pooled, context in _POOLED.items():
        if keys == {pooled, context} and math.prod(header[pooled]["shape"][:-1]) == 1:
            return {"context": context, "pooled": pooled}, True
    if len(keys) > 1:
        shown = ", ".join(_name(key) for key in sorted(keys)[:4])
        raise ConfigError(
            f"embedding {said} holds {len(keys)} tensors ({shown}{', ...' if len(keys) > 4 else ''}"
            "); known are one tensor, clip_l with clip_g, and negative_prompt_embeds with "
            "negative_pooled_prompt_embeds"
        )
    (key,) = keys
    shape = header[key]["shape"]
    whole = len(shape) == 3 or key in _POOLED.values() or shape[:-1] == [CLIP_POSITIONS]
    return {"context" if whole else "tokens": key}, whole


def _load(path: Path, said: str) -> dict[str, npt.NDArray[np.float32]]:
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        reason = one_line(str(error), limit=200)
        raise DataError(f"embedding {said} cannot be read: {reason}") from error
    arrays = {key: np.ascontiguousarray(item.float().numpy()) for key, item in tensors.items()}
    for key, array in arrays.items():
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise DataError(
                f"embedding {said}: {bad} of {array.size} values of {_name(key)} are not finite "
                "numbers; train or fetch it again"
            )
    return arrays


def _name(key: str) -> str:
    return repr(one_line(key, limit=40))
