"""The generator that runs Stable Diffusion pipelines through our own denoising loop."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from negbench.errors import ConfigError, MissingError, NegbenchError
from negbench.generators.base import Drawn, Generator, RunOptions
from negbench.generators.families import Pipeline
from negbench.generators.schedule import OWN, Schedule
from negbench.guidance.base import EMPTY, POSITIVE, Branch, Rule, Step, negative
from negbench.guidance.binding import bind
from negbench.guidance.effect import refuse_ignored, why_distilled
from negbench.types import Guidance, ImageRequest, Negative, Ref
from negbench.weight_files import file_digest, read_header

if TYPE_CHECKING:
    import torch

    from negbench.generators.loop import Denoiser, Lane
    from negbench.generators.network import Encoding, Network, Rows, Text

DType = Literal["float32", "float16", "bfloat16"]
Mode = Literal["canonical", "reference"]

ROWS_POSITIONS = 8192
"""Latent positions in one call of the U-Net on the CPU: 32 rows of a 16 x 16 latent."""

GPU_POSITIONS = 131_072
"""The same on a GPU: 32 rows of a 64 x 64 latent, 8 of a 128 x 128."""


class Choices(BaseModel):
    """What a user can set of a pipeline; what is left out is the pipeline's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: DType | None = Field(
        default=None, description="precision of the networks: float32 on the CPU, float16 on a GPU"
    )
    scheduler: str = Field(default=OWN, description="own, ddim, pndm, euler, euler_a, dpm++2m, ...")
    steps: int | None = Field(default=None, ge=1, le=1000, description="steps of the scheduler")
    scale: float | None = Field(default=None, description="guidance scale of twins and defaults")
    height: int | None = Field(default=None, ge=8, le=8192, description="in pixels")
    width: int | None = Field(default=None, ge=8, le=8192, description="in pixels")
    long_text: Literal["truncate", "chunk"] = Field(
        default="truncate", description="what to do with texts longer than the encoder's context"
    )
    lora: str | None = Field(
        default=None, description="LoRA files (.safetensors) to fuse: path[:scale], comma between"
    )
    config: str | None = Field(
        default=None, description="for one-file checkpoints: folder or repo with the configs"
    )


@dataclass(frozen=True)
class Lora:
    """One LoRA to fuse."""

    path: Path
    scale: float
    digest: str


def read_lora(text: str | None) -> tuple[Lora, ...]:
    """``path[:scale],path[:scale]`` as checked files.

    Raises:
        ConfigError: no safetensors file, or a scale that is no number.
        MissingError: no such file, or the package peft is not installed.
    """
    from negbench.generators.loading import need_peft

    loras = []
    for item in (text or "").split(","):
        if not item.strip():
            continue
        name, scale = item.strip(), 1.0
        head, colon, tail = name.rpartition(":")
        if colon and not name.endswith(".safetensors"):
            name = head
            try:
                scale = float(tail)
            except ValueError as error:
                raise ConfigError(f"lora={item}: {tail!r} is no number; write path:0.8") from error
        if not name.endswith(".safetensors") or not math.isfinite(scale):
            raise ConfigError(f"lora={item}: a LoRA is a .safetensors file, path or path:scale")
        path = Path(name).expanduser()
        if not path.is_file():
            raise MissingError(f"lora={item}: there is no such file; check the path")
        read_header(path)
        loras.append(Lora(path=path.resolve(), scale=scale, digest=file_digest(path)))
    if loras:
        need_peft()
    return tuple(loras)


class DiffusersGenerator(Generator):
    """Any Stable Diffusion 1.x, 2.x or XL pipeline.

    In ``canonical`` mode every call of a network has one fixed shape, so that on the CPU a picture
    is the same to the bit whatever else is drawn, in which order, batch or process. In
    ``reference`` mode, for plain guidance only, calls have the shapes that diffusers' own pipeline
    gives them, and the pictures equal that pipeline's at the same batch size, in float32 on the
    CPU to the bit.

    Args:
        config: the identity; `resolve` builds it from a user's `Choices`.
        pipeline: the inspected files.
        scale: guidance scale that the model is used with.
        lora: the files behind ``config.lora``.
        options: device and batch size.
        mode: shapes of network calls.
    """

    class Config(BaseModel):
        """What determines pixels beside the request."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        weights: str
        family: str
        dtype: DType
        scheduler: str
        scheduler_config: dict[str, JsonValue]
        steps: int
        height: int
        width: int
        long_text: Literal["truncate", "chunk"]
        lora: tuple[tuple[str, float], ...] = ()

    def __init__(
        self,
        config: Config,
        *,
        pipeline: Pipeline,
        scale: float,
        lora: Sequence[Lora] = (),
        options: RunOptions | None = None,
        mode: Mode = "canonical",
    ) -> None:
        self.config = config
        self.pipeline = pipeline
        self.mode = mode
        self.options = options or RunOptions()
        self._scale = scale
        self._lora = tuple(lora)
        self._schedule = Schedule(
            name=config.scheduler, config=config.scheduler_config, steps=config.steps
        )
        self._calls = self._schedule.calls()
        self._network: Network | None = None
        self._loop: Denoiser | None = None
        self._rules: OrderedDict[tuple[str, tuple[Negative, ...]], _Bound] = OrderedDict()
        self._ref = Ref(
            name="diffusers", version=self.version, params=config.model_dump(mode="json")
        )

    def ref(self) -> Ref:
        """Digests and settings; no path, no repo, no device."""
        return self._ref

    def default_guidance(self) -> Guidance:
        """Plain guidance at the model's scale."""
        return Guidance(kind="cfg", scale=self._scale)

    def check_guidance(self, guidance: Guidance) -> None:
        """Refuse unknown rules, wrong parameters, and rules that do not fit model or schedule."""
        rule, _ = bind(guidance, ())
        rule.check(family=self.config.family, space=self._schedule.space, total=self._calls)
        if self.mode == "reference" and guidance.kind != "cfg":
            raise ConfigError(
                f"guidance rule {guidance.kind} has no counterpart in diffusers' pipelines; "
                "reference mode takes cfg only"
            )

    def refuse_ignored(self, guidance: Guidance, negatives: Sequence[Negative]) -> None:
        """Refuse a rule that never looks at the negatives, or guidance distilled into weights."""
        where = f"generator {self.pipeline.source.spec}"
        refuse_ignored(
            guidance, negatives, total=self._calls, space=self._schedule.space, where=where
        )
        distilled = why_distilled({"scheduler": self.pipeline.scheduler})
        rule, _ = bind(guidance, negatives)
        steered = (step for i in range(self._calls) for step in rule.needs(self._step(i)))
        if distilled is not None and not any(branch.steer is not None for branch in steered):
            raise ConfigError(
                f"{where}: a negative prompt would have no effect: {distilled}; take a rule inside "
                "attention, for example --guidance nag"
            )

    def _step(self, index: int) -> Step:
        return Step(index, self._calls, 0.0, 0.0, self._schedule.space)

    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.config.height, self.config.width

    def evaluations(self, request: ImageRequest) -> int:
        """Rows of U-Net calls that `request` takes."""
        bound = self._bind(request)
        texts = self._texts(request, bound)
        steps = (self._step(i) for i in range(self._calls))
        if self.mode == "reference":
            return bound.rule.count(self._calls, self._schedule.space)
        return sum(len(_distinct(bound.rule.needs(step), texts)) for step in steps)

    def describe(self) -> dict[str, JsonValue]:
        """Where it was loaded from, on what it runs, and with which libraries."""
        from importlib.metadata import version

        source = self.pipeline.source
        about: dict[str, JsonValue] = {
            "name": "diffusers",
            "spec": source.spec,
            "family": self.config.family,
            "device": self.options.device,
            "mode": self.mode,
            **dict(source.origin),
        }
        if self._network is not None:
            import torch

            about["device"] = str(self._network.device)
            if self._network.device.type == "cuda":
                about["gpu"] = torch.cuda.get_device_name(self._network.device)
            about["threads"] = torch.get_num_threads()
        for package in ("torch", "diffusers", "transformers"):
            about[package] = version(package)
        return about

    # Drawing --------------------------------------------------------------------------------

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Drawn]:
        """Draw batch by batch; memory does not grow with the number of requests.

        Raises:
            ConfigError: a request of another generator, or a rule that cannot be carried out.
            NegbenchError: not even one picture fits on the GPU.
        """
        wanted = {request.key(): request for request in requests}
        for request in wanted.values():
            if request.generator != self._ref:
                raise ConfigError("a request names another generator than the one that draws it")
        if not wanted:
            return
        network = self._load()
        waiting: dict[Any, list[str]] = {}
        for key, request in wanted.items():
            waiting.setdefault(self._kind(network, request), []).append(key)
        size = self._batch_size(network)
        for kind, keys in waiting.items():
            start = 0
            while start < len(keys):
                batch = [(key, wanted[key]) for key in keys[start : start + size]]
                drawn = self._try_batch(network, batch, kind)
                if drawn is None:
                    size = self._shrink(network, size)
                    continue
                yield from drawn
                start += len(batch)

    def _try_batch(
        self, network: Network, batch: Sequence[tuple[str, ImageRequest]], kind: Any
    ) -> list[Drawn] | None:
        import torch

        try:
            with torch.inference_mode():
                return self._draw_batch(network, batch, kind)
        except torch.OutOfMemoryError:
            if network.device.type != "cuda":
                raise
        torch.cuda.empty_cache()
        return None

    def _shrink(self, network: Network, size: int) -> int:
        from dataclasses import replace

        rows = network.rows
        if size == 1 and (rows.denoiser or 1) == 1:
            raise NegbenchError(
                "not even one picture fits into the GPU's memory; choose a smaller height and "
                "width, or dtype=float16"
            )
        smaller = {
            name: max(1, value // 2)
            for name in ("text", "denoiser", "decoder")
            if (value := getattr(rows, name)) is not None
        }
        network.rows = replace(rows, **smaller)
        return max(1, size // 2)

    def _draw_batch(
        self, network: Network, batch: Sequence[tuple[str, ImageRequest]], kind: Any
    ) -> list[Drawn]:
        requests = [request for _, request in batch]
        lanes, texts = (
            self._reference_lanes(network, requests)
            if self.mode == "reference"
            else self._lanes(network, requests, chunks=kind)
        )
        state = self._denoiser(network).run(lanes, texts)
        pixels, finite = network.decode(state.latents)
        drawn = []
        for row, (key, request) in enumerate(batch):
            facts: dict[str, JsonValue] = {"truncated_tokens": self._truncated(network, request)}
            if not finite[row]:
                facts["not_finite"] = True
            drawn.append(
                Drawn(key=key, pixels=pixels[row], evaluations=state.spent[row], facts=facts)
            )
        return drawn

    def _lanes(
        self, network: Network, requests: Sequence[ImageRequest], *, chunks: int
    ) -> tuple[list[Lane], Encoding]:
        from negbench.generators.loop import Lane

        index: dict[Text, int] = {}
        lanes = []
        for request in requests:
            bound = self._bind(request)
            rows = {
                branch: index.setdefault(text, len(index))
                for branch, text in self._texts(request, bound).items()
            }
            lanes.append(Lane(seed=request.seed, rule=bound.rule, group=bound.group, texts=rows))
        return lanes, network.encode(list(index), chunks=chunks)

    def _reference_lanes(
        self, network: Network, requests: Sequence[ImageRequest]
    ) -> tuple[list[Lane], Encoding]:
        from negbench.generators.loop import Lane
        from negbench.generators.network import join

        count = len(requests)
        bounds = [self._bind(request) for request in requests]
        texts = [self._texts(*pair) for pair in zip(requests, bounds, strict=True)]
        start = Step(0, self._calls, 0.0, 0.0, self._schedule.space)
        branches = bounds[0].rule.needs(start)
        encodings = [network.encode_together([own[branch] for own in texts]) for branch in branches]
        lanes = [
            Lane(
                seed=request.seed,
                rule=bounds[row].rule,
                group=bounds[0].group,
                texts={branch: level * count + row for level, branch in enumerate(branches)},
            )
            for row, request in enumerate(requests)
        ]
        return lanes, join(encodings)

    def _kind(self, network: Network, request: ImageRequest) -> Any:
        """Requests of one kind can share a batch: equal chunks; in reference mode, equal calls."""
        bound = self._bind(request)
        if self.mode == "reference":
            self.check_guidance(request.guidance)
            return bound.group
        if self.config.long_text == "truncate":
            return 1
        texts = self._texts(request, bound).values()
        return max(network.chunks(text) for text in texts if text is not None)

    def _truncated(self, network: Network, request: ImageRequest) -> int:
        if self.config.long_text == "chunk":
            return 0
        texts = {text for text in self._texts(request, self._bind(request)).values() if text}
        return sum(max(0, network.tokens(text) - network.length) for text in texts)

    def _texts(self, request: ImageRequest, bound: _Bound) -> dict[Branch, Text]:
        """What each branch is conditioned on; the empty prompt is "" unless it is no text."""
        empty: Text = None if self.pipeline.zeros_for_empty else ""
        texts: dict[Branch, Text] = {POSITIVE: request.treatment.prompt, EMPTY: empty}
        for number, item in enumerate(bound.negatives):
            texts[negative(number)] = item.text
        return {branch: texts[branch] for branch in bound.branches}

    def _bind(self, request: ImageRequest) -> _Bound:
        key = (request.guidance.canonical().decode(), request.treatment.negatives)
        bound = self._rules.get(key)
        if bound is None:
            rule, taken = bind(request.guidance, request.treatment.negatives)
            bound = _Bound(rule, taken, (key[0], rule.weights), self._branches(rule))
            self._rules[key] = bound
            if len(self._rules) > 4096:
                self._rules.popitem(last=False)
        return bound

    def _branches(self, rule: Rule) -> tuple[Branch, ...]:
        steps = (self._step(i) for i in range(self._calls))
        needed = (branch for step in steps for branch in rule.needs(step))
        return tuple(dict.fromkeys(plain for branch in needed for plain in branch.texts()))

    # Loading --------------------------------------------------------------------------------

    def _load(self) -> Network:
        if self._network is None:
            import importlib

            import torch

            device = torch.device(choose_device(self.options.device))
            module, _, name = self.pipeline.family.adapter.partition(":")
            adapter: Callable[..., Network] = getattr(importlib.import_module(module), name)
            self._network = adapter(
                self.pipeline,
                size=(self.config.height, self.config.width),
                device=device,
                dtype=_torch_dtype(self.config.dtype),
                rows=self._rows(device),
                lora=[(str(item.path), item.scale) for item in self._lora],
            )
        return self._network

    def _denoiser(self, network: Network) -> Denoiser:
        from negbench.generators.loop import Denoiser

        if self._loop is None:
            self._loop = Denoiser(network, self._schedule, share=self.mode == "canonical")
        return self._loop

    def _rows(self, device: torch.device) -> Rows:
        from negbench.generators.network import Rows

        if self.mode == "reference":
            return Rows()
        factor = self.pipeline.factor
        positions = (self.config.height // factor) * (self.config.width // factor)
        if device.type == "cpu":
            rows = _power_of_two(ROWS_POSITIONS // positions, at_least=2, at_most=32)
            return Rows(text=8, denoiser=rows, decoder=max(1, rows // 4))
        if self.options.batch_size is not None:
            rows = 2 * self.options.batch_size
        else:
            rows = _power_of_two(GPU_POSITIONS // positions, at_least=2, at_most=256)
        return Rows(text=32, denoiser=rows, decoder=max(1, rows // 8))

    def _batch_size(self, network: Network) -> int:
        if self.options.batch_size is not None:
            return max(1, self.options.batch_size)
        rows = network.rows.denoiser or 16
        return rows if network.device.type == "cpu" else max(1, rows // 2)


@dataclass(frozen=True)
class _Bound:
    """A request's rule, the negatives as the rule takes them, and every branch it will ask for."""

    rule: Rule
    negatives: tuple[Negative, ...]
    group: tuple[Any, ...]
    branches: tuple[Branch, ...]


def _distinct(branches: Sequence[Branch], texts: Mapping[Branch, Text]) -> set[Any]:
    """The predictions behind `branches`; branches of equal texts share one."""
    return {(branch.steer, *(texts[plain] for plain in branch.texts())) for branch in branches}


def choose_device(name: str) -> str:
    """``auto`` is the first CUDA device, else the CPU.

    Raises:
        ConfigError: a device that torch does not have here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}; write cpu, cuda, cuda:1 or auto") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name} is not supported; write cpu, cuda, cuda:1 or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name} is not at hand: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    return name


def default_dtype(device: str) -> DType:
    """float16 on a GPU, float32 on the CPU."""
    return "float32" if choose_device(device).startswith("cpu") else "float16"


def _torch_dtype(name: str) -> torch.dtype:
    import torch

    dtypes: Mapping[str, torch.dtype] = {
        "float32": torch.float32,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }
    return dtypes[name]


def _power_of_two(value: int, *, at_least: int, at_most: int) -> int:
    return max(at_least, min(at_most, 1 << max(0, value.bit_length() - 1)))
