"""Where a T5 reads the text beside CLIP: contexts of several lengths, and half precision."""

from __future__ import annotations

from typing import Any

import torch

from negbench.generators.network import Network
from negbench.generators.sharing import Embedded


class T5Network(Network):
    """A pipeline whose last text encoder is a T5.

    CLIP cuts texts at its own context; T5 reads them up to ``t5_length`` tokens. A text counts as
    truncated by what the T5 does not read.

    Attributes:
        t5_length: tokens that the T5 reads, the default of the pipeline in diffusers.
    """

    t5_length: int = 256

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.dtype == torch.float16:
            # As transformers keeps it: the last projection of each block overflows in float16.
            for encoder in self.encoders:
                for name, module in encoder.named_modules():
                    if name.endswith(".wo"):
                        module.to(torch.float32)

    @property
    def has_t5(self) -> bool:
        """Whether the pipeline comes with its T5; Stable Diffusion 3 can do without."""
        return any("T5" in name for name in self.pipeline.encoders.values())

    def text_lengths(self) -> list[int]:
        """The tokenizers' own lengths for CLIP, `t5_length` for the T5."""
        lengths = [int(tokenizer.model_max_length) for tokenizer in self.tokenizers]
        if self.has_t5:
            lengths[-1] = self.t5_length
        return lengths

    def truncated(self, text: str | Embedded) -> int:
        """Tokens that the T5 does not read, or that CLIP does not where there is no T5."""
        tokenizer = self.tokenizers[-1]
        words = self._words(text)
        count = len(tokenizer(words, truncation=False, padding=False, verbose=False)["input_ids"])
        return max(0, count - self.lengths[-1])
