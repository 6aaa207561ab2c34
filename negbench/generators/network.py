"""The networks of a pipeline behind one small interface: encode texts, predict, decode.

With `rows` set, every call of a network has that many rows, padded: what a row gives then depends
on nothing but the row, not on its neighbours or its place. Without, calls have the shapes that
diffusers' own pipeline would give them.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from negbench.embedding import Embedding
from negbench.errors import DataError, MissingError, one_line
from negbench.generators.families import Pipeline
from negbench.generators.layers import KeysAndValues, TextMemory
from negbench.generators.sharing import Embedded, Text
from negbench.types import embedding_place

MEMORY = 256 << 20
"""Bytes of text encodings that are kept."""

CALLS = 8
"""Calls whose texts are kept as the denoiser takes them: branches of a batch, and some to spare."""


@dataclass(frozen=True)
class Rows:
    """Rows of each network's calls, or None for as many as there are."""

    text: int | None = None
    denoiser: int | None = None
    decoder: int | None = None


@dataclass(frozen=True)
class Encoding:
    """What the text encoders make of one or more texts.

    Attributes:
        context: (texts, positions, width) for cross-attention.
        pooled: (texts, width) for the added conditioning of Stable Diffusion XL and of
            transformers, else None.
        known: keys and values of `context` in each cross-attention layer, if they were kept.
    """

    context: torch.Tensor
    pooled: torch.Tensor | None
    known: list[KeysAndValues] | None = None

    def take(self, index: torch.Tensor) -> Encoding:
        """The rows of `index`."""
        pooled = None if self.pooled is None else self.pooled[index]
        return Encoding(self.context[index], pooled)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        tensors = (self.context, *(() if self.pooled is None else (self.pooled,)))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def join(encodings: Sequence[Encoding]) -> Encoding:
    """Encodings of equal length as one, in order."""
    pooled = [item.pooled for item in encodings if item.pooled is not None]
    return Encoding(
        torch.cat([item.context for item in encodings]), torch.cat(pooled) if pooled else None
    )


class Network(ABC):
    """The loaded networks of one pipeline.

    Attributes:
        unet: the network that predicts; a transformer in families of the kind.
        length: positions of one chunk of text, the first encoder's context.
        lengths: the same of every encoder.
        embedded_scale: guidance scale that the denoiser takes as an input, None if it takes none.
        embeddings: by digest, those that texts name.
        apart: whether the pipeline of diffusers makes a call of its own for each branch.
    """

    apart: ClassVar[bool] = False

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        size: tuple[int, int],
        device: torch.device,
        dtype: torch.dtype,
        rows: Rows,
        lora: Sequence[tuple[str, float]] = (),
        embedded_scale: float | None = None,
    ) -> None:
        from negbench.generators.loading import load_parts, quiet

        self.pipeline = pipeline
        self.embedded_scale = embedded_scale
        self.size = size
        self.device = device
        self.dtype = dtype
        self.rows = rows
        parts = load_parts(pipeline, lora=lora)
        self.unet: Any = parts.denoiser
        self.vae: Any = parts.vae
        self.encoders: list[Any] = parts.encoders
        self.tokenizers: list[Any] = parts.tokenizers
        self.lengths: list[int] = self.text_lengths()
        self.length: int = self.lengths[0]
        with quiet():
            for module in (self.unet, self.vae, *self.encoders):
                module.eval().requires_grad_(False).to(device=device, dtype=dtype)
            if rows.denoiser is not None:
                convolutional = (self.vae,) if pipeline.family.flow else (self.unet, self.vae)
                for module in convolutional:
                    module.to(memory_format=torch.channels_last)
        self.embeddings: Mapping[str, Embedding] = {}
        self._learned: dict[str, list[str]] = {}
        self._compiled: Any = None
        self._memory = None
        if rows.denoiser is not None and device.type == "cpu" and not pipeline.family.flow:
            self._memory = TextMemory(self.unet)
        self._calls: OrderedDict[tuple[int, tuple[int, ...]], tuple[Encoding, Encoding]] = (
            OrderedDict()
        )
        self._kept: OrderedDict[tuple[Text, int], Encoding] = OrderedDict()
        self._kept_bytes = 0

    # Text -----------------------------------------------------------------------------------

    def text_lengths(self) -> list[int]:
        """Positions of each encoder's context; the first is `length`.

        The encoders of one context (CLIP) are given the shortest, so that their outputs fit.
        """
        shortest = min(
            min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
            for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True)
        )
        return [shortest] * len(self.tokenizers)

    def truncated(self, text: str | Embedded) -> int:
        """Tokens of `text` that no encoder gets to read."""
        return max(0, self.tokens(text) - self.length)

    def tokens(self, text: str | Embedded) -> int:
        """Tokens of `text` with its begin and end marks, uncut; the most of any tokenizer."""
        words = self._words(text)
        return max(len(_ids(tokenizer, words)) for tokenizer in self.tokenizers)

    def chunks(self, text: str | Embedded) -> int:
        """Chunks of the encoder's context that `text` takes, at least 1."""
        return max(1, -(-(self.tokens(text) - 2) // (self.length - 2)))

    def encode(self, texts: Sequence[Text], *, chunks: int = 1) -> Encoding:
        """Encodings of `texts`, remembered; chunk encodings stand one after another.

        Args:
            texts: what to encode; None is the pipeline's empty prompt.
            chunks: chunks of every text; shorter ones are filled with empty chunks. With one
                chunk, longer texts are cut at its end.
        """
        self._fill(texts, chunks)
        encoding = join([self._kept[text, chunks] for text in texts])
        self._forget()
        return encoding

    def remember(self, texts: Sequence[Text], *, chunks: int = 1) -> None:
        """Make encodings that will soon be asked for, in full calls."""
        self._fill(texts, chunks)
        self._forget()

    def _fill(self, texts: Sequence[Text], chunks: int) -> None:
        wanted = [text for text in dict.fromkeys(texts) if (text, chunks) not in self._kept]
        size = self.rows.text or len(wanted) or 1
        for start in range(0, len(wanted), size):
            block = wanted[start : start + size]
            for text, row in zip(block, self._encode_block(block, chunks, size), strict=True):
                self._kept[text, chunks] = row
                self._kept_bytes += row.nbytes
        for text in texts:
            self._kept.move_to_end((text, chunks))

    def _forget(self) -> None:
        while self._kept_bytes > MEMORY and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= dropped.nbytes

    def encode_together(self, texts: Sequence[Text]) -> Encoding:
        """Encodings of `texts` in one call, equal texts too, as diffusers' pipeline makes them."""
        if all(text is None for text in texts):
            return self.empty(len(texts), 1)
        encoding = self.encode_ids([self._cut_ids(i, texts) for i in range(len(self.tokenizers))])
        if not any(isinstance(text, Embedded) for text in texts):
            return encoding
        rows = (encoding.take(torch.tensor([row])) for row in range(len(texts)))
        return join([self._replaced(*pair) for pair in zip(texts, rows, strict=True)])

    def _encode_block(self, block: Sequence[Text], chunks: int, size: int) -> list[Encoding]:
        padded = [*block, *([""] * (size - len(block)))]
        parts = []
        for number in range(chunks):
            ids = [
                self._cut_ids(i, padded) if chunks == 1 else self._chunk_ids(i, padded, number)
                for i in range(len(self.tokenizers))
            ]
            parts.append(self.encode_ids(ids))
        rows = []
        for row, text in enumerate(block):
            if text is None and self.pipeline.zeros_for_empty:
                rows.append(self.empty(1, chunks))
                continue
            context = torch.cat([part.context[row] for part in parts])[None]
            pooled = parts[0].pooled
            whole = Encoding(context.clone(), None if pooled is None else pooled[row][None])
            rows.append(self._replaced(text, whole))
        return rows

    def _words(self, text: Text) -> str:
        """What tokenizers read: in the place of an embedding stand tokens of its vectors.

        They are put there as ``load_textual_inversion`` of diffusers puts them, with the same ids,
        so that pooled texts agree too: an encoder configured with ``eos_token_id`` 2, as those of
        Stable Diffusion XL are, pools at the largest id of a text, which is then the last vector's.
        """
        if not isinstance(text, Embedded):
            return text or ""
        embedding = self.embeddings[text.digest]
        place = embedding_place(text.digest)
        if embedding.whole:
            return text.text.replace(place, "")
        return text.text.replace(place, " ".join(self._learn(embedding)))

    def _learn(self, embedding: Embedding) -> list[str]:
        """The tokens of an embedding's vectors, new to tokenizers and encoders the first time."""
        tokens = self._learned.get(embedding.digest)
        if tokens is not None:
            return tokens
        tokens = [f"<{embedding.digest}:{number}>" for number in range(embedding.vectors)]
        for tokenizer, encoder, array in zip(
            self.tokenizers, self.encoders, embedding.tensors.values(), strict=True
        ):
            tokenizer.add_tokens(tokens)
            ids = tokenizer.convert_tokens_to_ids(tokens)
            table = encoder.get_input_embeddings()
            with torch.inference_mode(False):
                rows = table.weight.detach()
                lacking = max(0, max(ids) + 1 - len(rows))
                rows = torch.cat([rows, rows.new_zeros(lacking, rows.shape[1])])
                rows[ids] = torch.tensor(array).to(rows)
                table.weight = torch.nn.Parameter(rows, requires_grad=False)
            table.num_embeddings = len(rows)
        self._learned[embedding.digest] = tokens
        return tokens

    def _replaced(self, text: Text, encoding: Encoding) -> Encoding:
        """`encoding` of `text`, a whole conditioning in the place of its first chunk."""
        embedding = self.embeddings[text.digest] if isinstance(text, Embedded) else None
        if embedding is None or not embedding.whole:
            return encoding
        context, pooled = encoding.context, encoding.pooled
        own = torch.tensor(embedding.tensors["context"])[None].to(context)
        if pooled is not None:
            pooled = torch.tensor(embedding.tensors["pooled"]).to(pooled)
        return Encoding(torch.cat([own, context[:, self.length :]], dim=1), pooled)

    def _cut_ids(self, which: int, texts: Sequence[Text]) -> dict[str, torch.Tensor]:
        return _on(
            self.tokenizers[which](
                [self._words(text) for text in texts],
                padding="max_length",
                max_length=self.lengths[which],
                truncation=True,
                return_tensors="pt",
            ),
            self.device,
        )

    def _chunk_ids(self, which: int, texts: Sequence[Text], number: int) -> dict[str, torch.Tensor]:
        tokenizer = self.tokenizers[which]
        inside = self.length - 2
        lines = []
        for text in texts:
            ids = _ids(tokenizer, self._words(text))
            first, last = ids[0], ids[-1]
            window = ids[1:-1][number * inside : (number + 1) * inside]
            lines.append([first, *window, last])
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else lines[0][-1]
        full = [line + [pad] * (self.length - len(line)) for line in lines]
        mask = [[1] * len(line) + [0] * (self.length - len(line)) for line in lines]
        return _on({"input_ids": full, "attention_mask": mask}, self.device)

    @abstractmethod
    def encode_ids(self, ids: Sequence[dict[str, torch.Tensor]]) -> Encoding:
        """One call of each text encoder.

        Args:
            ids: for each tokenizer ``input_ids`` and ``attention_mask``, (rows, length).
        """

    @abstractmethod
    def empty(self, rows: int, chunks: int) -> Encoding:
        """The empty prompt's encoding, where it is no text; else that of the text ""."""

    # Pictures -------------------------------------------------------------------------------

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a latent."""
        height, width = self.size
        factor = self.pipeline.factor
        return self.pipeline.channels, height // factor, width // factor

    def compile(self) -> None:
        """Compile the denoiser; the first call after that takes long, or raises `MissingError`."""
        from torch._dynamo.exc import BackendCompilerFailed

        # the compiled parts of a small network are short: on a CPU calling them from Python counts
        on_cpu: dict[str, Any] = {"cpp_wrapper": True}
        options = on_cpu if self.device.type == "cpu" else None
        fast: Callable[..., Any] = torch.compile(self.unet, dynamic=False, options=options)

        def call(*args: Any, **options: Any) -> Any:
            try:
                return fast(*args, **options)
            except BackendCompilerFailed as error:
                raise MissingError(
                    "--compile: torch.compile cannot build the denoiser here "
                    f"({one_line(str(error), limit=160)}); install a C++ compiler such as g++, "
                    "or leave --compile out"
                ) from error

        self._compiled = call

    @contextlib.contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Inside, the denoiser is run as it is, for calls whose layers are changed."""
        kept, self._compiled = self._compiled, None
        try:
            yield
        finally:
            self._compiled = kept

    @property
    def denoise(self) -> Any:
        """The denoiser to call, compiled if it was asked for."""
        return self.unet if self._compiled is None else self._compiled

    def texts_of_call(self, texts: Encoding, rows: Sequence[int]) -> Encoding:
        """Those rows of `texts` for a call, and what its layers make of them where that is kept.

        A batch asks for the same rows at every step.
        """
        if self._memory is None:
            return texts.take(torch.tensor(rows, device=texts.context.device))
        key = (id(texts), tuple(rows))
        if key not in self._calls:
            taken = texts.take(torch.tensor(rows))
            taken = replace(taken, known=self._memory.of(taken.context))
            self._calls[key] = (texts, taken)  # `texts` lives as long as its id is a key
            if len(self._calls) > CALLS:
                self._calls.popitem(last=False)
        self._calls.move_to_end(key)
        return self._calls[key][1]

    def reading(self, texts: Encoding) -> contextlib.AbstractContextManager[None]:
        """Inside, the denoiser's calls are about `texts`, as `texts_of_call` gave them."""
        return contextlib.nullcontext() if self._memory is None else self._memory.told(texts.known)

    @abstractmethod
    def predict(self, x: torch.Tensor, timestep: torch.Tensor, texts: Encoding) -> torch.Tensor:
        """One call of the denoiser: (rows, channels, height, width) in, the same out."""

    @abstractmethod
    def unscale(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as the decoder takes them."""

    def decode(self, latents: torch.Tensor) -> tuple[npt.NDArray[np.uint8], list[bool]]:
        """Pixels of latents, and whether each picture came out finite.

        Args:
            latents: (rows, channels, height, width).

        Returns:
            uint8 (rows, height, width, 3), RGB, and one flag a row; what is not finite is 0.
        """
        size = self.rows.decoder or len(latents)
        pictures = []
        for start in range(0, len(latents), size):
            block = latents[start : start + size]
            filled = pad_rows(block, size)
            pictures.append(self._decode_block(filled)[: len(block)])
        image = torch.cat(pictures)
        finite = image.isfinite().flatten(1).all(dim=1)
        # diffusers' VaeImageProcessor: denormalize, then round to the nearest grey level.
        unit = (image * 0.5 + 0.5).clamp(0, 1).float().nan_to_num(0.0)
        bytes_ = (unit.permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
        return np.ascontiguousarray(bytes_.cpu().numpy()), finite.tolist()

    def _decode_block(self, latents: torch.Tensor) -> torch.Tensor:
        scaled = self.unscale(latents).to(self.vae.dtype)
        return self.vae.decode(scaled, return_dict=False)[0]  # type: ignore[no-any-return]


def pad_rows(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """`tensor` with its last row repeated until there are `rows`."""
    lacking = rows - len(tensor)
    if lacking <= 0:
        return tensor
    return torch.cat([tensor, tensor[-1:].expand(lacking, *tensor.shape[1:])])


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids = tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"]
    if len(ids) < 2:
        raise DataError("the tokenizer sets no begin and end marks, which long_text needs")
    return list(ids)


def _on(batch: Any, device: torch.device) -> dict[str, torch.Tensor]:
    return {key: torch.as_tensor(batch[key]).to(device) for key in ("input_ids", "attention_mask")}
