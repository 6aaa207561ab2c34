"""The generator that runs Stable Diffusion pipelines through our own denoising loop."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from negbench.embedding import Embedding
from negbench.errors import ConfigError, MissingError, NegbenchError
from negbench.generators.base import Drawn, Generator, RunOptions
from negbench.generators.choices import DType, Lora, choose_device
from negbench.generators.embeddings import check_embedding
from negbench.generators.families import Pipeline
from negbench.generators.schedule import HISTORY, Schedule, flow_shift
from negbench.generators.sharing import (
    Course,
    Embedded,
    Node,
    Root,
    Text,
    Track,
    count_alone,
    count_together,
    plan_rule,
    roots_of,
    spans_of,
    tree_of,
)
from negbench.guidance.base import EMPTY, POSITIVE, Branch, Rule, Step, negative
from negbench.guidance.binding import bind
from negbench.guidance.effect import refuse_ignored, why_distilled
from negbench.types import Guidance, ImageRequest, Negative, Ref, embedding_place

if TYPE_CHECKING:
    import torch

    from negbench.generators.loop import Denoiser, Lane
    from negbench.generators.network import Encoding, Network, Rows
    from negbench.generators.waves import Finished

__all__ = ["DiffusersGenerator", "Mode", "choose_device"]

Mode = Literal["canonical", "reference"]

ROWS_POSITIONS = 8192
"""Latent positions in one call of the U-Net on the CPU: 32 rows of a 16 x 16 latent."""

GPU_POSITIONS = 131_072
"""The same on a GPU: 32 rows of a 64 x 64 latent, 8 of a 128 x 128."""


NOTHING_FITS = (
    "not even one picture fits into the GPU's memory; choose a smaller height and width, or "
    "dtype=float16"
)


class DiffusersGenerator(Generator):
    """Any pipeline of Stable Diffusion 1.x, 2.x, XL, 3 or 3.5, or FLUX.1.

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

    Attributes:
        share: what images of one call of `draw` have in common is drawn once; without it the
            images are the same, for more.
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
        embedded_scale: float | None = None

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
        self.share = mode == "canonical" and config.scheduler in HISTORY
        self._scale = scale
        self._lora = tuple(lora)
        self._schedule = _schedule(config, pipeline)
        self._calls = self._schedule.calls()
        self._network: Network | None = None
        self._loop: Denoiser | None = None
        self._embeddings: dict[str, Embedding] = {}
        self._rules: OrderedDict[tuple[str, tuple[Negative, ...]], _Bound] = OrderedDict()
        params = config.model_dump(mode="json")
        if config.embedded_scale is None:
            del params["embedded_scale"]  # as before there were models that take one
        self._ref = Ref(name="diffusers", version=self.version, params=params)

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
        """Refuse a rule that never looks at the negatives, or guidance distilled into weights.

        So is an embedding that this generator was not given.
        """
        where = f"generator {self.pipeline.source.spec}"
        embedded = why_distilled({"transformer": self.pipeline.denoiser})
        given = any(item.text.strip() and item.weight != 0 for item in negatives)
        if embedded is not None and guidance.scale == 1 and given:
            raise ConfigError(
                f"{where}: a negative prompt would have no effect: {embedded}; take --scale above "
                "1, which is true_cfg_scale in diffusers"
            )
        refuse_ignored(
            guidance, negatives, total=self._calls, space=self._schedule.space, where=where
        )
        distilled = why_distilled({"scheduler": self.pipeline.scheduler})
        rule, taken = bind(guidance, negatives)
        for item in taken:
            self._text(item)
        steered = (step for i in range(self._calls) for step in rule.needs(self._step(i)))
        if distilled is not None and not any(branch.steer is not None for branch in steered):
            raise ConfigError(
                f"{where}: a negative prompt would have no effect: {distilled}; take a rule inside "
                "attention, for example --guidance nag"
            )

    def take_embedding(self, embedding: Embedding) -> None:
        """Keep an embedding that fits the model's text encoders."""
        check_embedding(embedding, self.pipeline)
        self._embeddings[embedding.digest] = embedding

    def _step(self, index: int) -> Step:
        return Step(index, self._calls, 0.0, 0.0, self._schedule.space)

    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.config.height, self.config.width

    def evaluations(self, request: ImageRequest) -> int:
        """Rows of U-Net calls that `request` takes, drawn alone."""
        if self.mode == "reference":
            return self._bind(request).rule.count(self._calls, self._schedule.space)
        return count_alone(self._track(request).spans)

    def needed(self, requests: Sequence[ImageRequest]) -> int:
        """Rows of U-Net calls that `requests` take together, what they share counted once.

        With ``long_text=chunk`` some may share less: how long texts are is known to the tokenizer.
        """
        unique = {request.key(): request for request in requests}
        if not self.share:
            return super().needed(list(unique.values()))
        roots = self._roots(list(unique.values()))
        return sum(count_together(Node(root.tracks()), calls=self._calls) for root in roots)

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
            **({"compiled": True} if self.options.compile else {}),
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
        kinds: dict[Any, list[ImageRequest]] = {}
        for request in wanted.values():
            kinds.setdefault(self._kind(network, request), []).append(request)
        for kind, alike in kinds.items():
            if self.mode == "reference":
                yield from self._draw_reference(network, alike)
            else:
                yield from self._draw_tree(network, alike, chunks=kind)

    def _draw_tree(
        self, network: Network, requests: Sequence[ImageRequest], *, chunks: int
    ) -> Iterator[Drawn]:
        """Draw what requests have in common once, in full batches."""
        import torch

        from negbench.generators.waves import Waves

        denoiser = self._denoiser(network)
        roots = self._roots(requests)
        target = 2 * self._batch_size(network)
        waves = Waves(denoiser, network, roots, chunks=chunks, target=target)
        ready: list[Finished[ImageRequest]] = []
        left = True
        while left or ready:
            drawn: list[Drawn] = []
            size = network.rows.decoder or 1
            try:
                with torch.inference_mode():
                    if ready and (len(ready) >= size or not left):
                        drawn = self._decode(network, ready[:size])
                        del ready[:size]
                    else:
                        finished = waves.turn()
                        left = finished is not None
                        ready.extend(finished or ())
            except torch.OutOfMemoryError:
                if not on_gpu(network.device):
                    raise
                waves.target = 2 * self._shrink(network, waves.target // 2)
            yield from drawn

    def _decode(self, network: Network, finished: Sequence[Finished[ImageRequest]]) -> list[Drawn]:
        import torch

        pixels, finite = network.decode(torch.cat([one.latent for one in finished]))
        drawn = []
        for row, one in enumerate(finished):
            for place, request in enumerate(one.items):
                paid = one.paid if place == 0 else 0
                facts: dict[str, JsonValue] = {
                    "truncated_tokens": self._truncated(network, request)
                }
                if not finite[row]:
                    facts["not_finite"] = True
                drawn.append(
                    Drawn(
                        key=request.key(),
                        pixels=pixels[row],
                        evaluations=one.spent,
                        shared=one.spent - paid,
                        facts=facts,
                    )
                )
        return drawn

    def _draw_reference(
        self, network: Network, requests: Sequence[ImageRequest]
    ) -> Iterator[Drawn]:
        """Draw batch by batch in calls of the shapes that diffusers' pipelines make."""
        import torch

        from negbench.generators.waves import Finished

        size, start = self._batch_size(network), 0
        while start < len(requests):
            batch = requests[start : start + size]
            try:
                with torch.inference_mode():
                    lanes, texts = self._reference_lanes(network, batch)
                    state = self._denoiser(network).run(lanes, texts)
                    finished = [
                        Finished(state.latents[i : i + 1], [request], state.spent[i], state.paid[i])
                        for i, request in enumerate(batch)
                    ]
                    drawn = self._decode(network, finished)
            except torch.OutOfMemoryError:
                if not on_gpu(network.device):
                    raise
                size = self._shrink(network, size)
                continue
            yield from drawn
            start += len(batch)

    def _shrink(self, network: Network, size: int) -> int:
        """Half the rows of every call and half the batch, after memory ran out."""
        from dataclasses import replace

        import torch

        torch.cuda.empty_cache()
        rows = network.rows
        if size == 1 and (rows.denoiser or 1) == 1:
            raise NegbenchError(NOTHING_FITS)
        smaller = {
            name: max(1, value // 2)
            for name in ("text", "denoiser", "decoder")
            if (value := getattr(rows, name)) is not None
        }
        network.rows = replace(rows, **smaller)
        return max(1, size // 2)

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
        return sum(network.truncated(text) for text in texts)

    def _roots(self, requests: Sequence[ImageRequest]) -> list[Root[ImageRequest]]:
        """Trees of requests that begin alike: of one noise and prompt."""

        def tree(place: int, request: ImageRequest) -> Hashable:
            return tree_of(request) if self.share else place

        return roots_of(
            ((tree(*pair), pair[1].seed, pair[1]) for pair in enumerate(requests)), self._track
        )

    def _track(self, request: ImageRequest) -> Track[ImageRequest]:
        bound = self._bind(request)
        texts = self._texts(request, bound)
        return Track(request, spans_of(bound.rule, bound.course, texts))

    def _texts(self, request: ImageRequest, bound: _Bound) -> dict[Branch, Text]:
        """What each branch is conditioned on; the empty prompt is "" unless it is no text."""
        empty: Text = None if self.pipeline.zeros_for_empty else ""
        texts: dict[Branch, Text] = {POSITIVE: request.treatment.prompt, EMPTY: empty}
        for number, item in enumerate(bound.negatives):
            texts[negative(number)] = self._text(item)
        return {branch: texts[branch] for branch in bound.course.branches}

    def _text(self, item: Negative) -> Text:
        if item.embedding is None:
            return item.text
        known = self._embeddings.get(item.embedding)
        if known is None:
            raise MissingError(
                f"generator {self.pipeline.source.spec} was not given the embedding "
                f"{embedding_place(item.embedding)} of a negative; give it to take_embedding first"
            )
        if known.whole and item.text.strip() != known.place:
            raise ConfigError(
                f"embedding {known.source} takes the place of a whole negative prompt, and the "
                "guidance rule joins other words to it; take one that keeps negatives apart"
            )
        return Embedded(item.text, item.embedding)

    def _bind(self, request: ImageRequest) -> _Bound:
        key = (request.guidance.canonical().decode(), request.treatment.negatives)
        bound = self._rules.get(key)
        if bound is None:
            rule, taken = bind(request.guidance, request.treatment.negatives)
            course = plan_rule(rule, (self._step(i) for i in range(self._calls)))
            bound = _Bound(rule, taken, (key[0], rule.weights), course)
            self._rules[key] = bound
            if len(self._rules) > 4096:
                self._rules.popitem(last=False)
        return bound

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
                embedded_scale=self.config.embedded_scale,
            )
            self._network.embeddings = self._embeddings
            if self.options.compile:
                self._network.compile()
            if on_gpu(device) and self.options.batch_size is None and self.mode == "canonical":
                self._fit(self._network)
        return self._network

    def _fit(self, network: Network) -> None:
        """Rows of a call at which this GPU draws fastest."""
        from dataclasses import replace

        import torch

        from negbench.generators.fitting import fastest_rows, time_call

        start = network.rows.denoiser or 2
        try:
            with network.uncompiled():
                rows = fastest_rows(
                    lambda count: time_call(network, count),
                    start=max(2, start // 4),
                    most=4 * start,
                )
        except torch.OutOfMemoryError as error:
            raise NegbenchError(NOTHING_FITS) from error
        network.rows = replace(network.rows, denoiser=rows, decoder=max(1, rows // 8))

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
    """A request's rule, the negatives as the rule takes them, and what it does call by call."""

    rule: Rule
    negatives: tuple[Negative, ...]
    group: tuple[Any, ...]
    course: Course


def _schedule(config: DiffusersGenerator.Config, pipeline: Pipeline) -> Schedule:
    family = pipeline.family
    mu = None
    if family.flow:
        side = pipeline.factor * family.patch
        tokens = (config.height // side) * (config.width // side)
        # What the pipelines of diffusers take where the configuration has no max_shift.
        highest = 1.15 if family.name == "flux" else 1.16
        mu = flow_shift(config.scheduler_config, tokens=tokens, highest=highest)
    return Schedule(
        name=config.scheduler,
        config=config.scheduler_config,
        steps=config.steps,
        mu=mu,
        even=family.name == "flux",
    )


def on_gpu(device: torch.device) -> bool:
    """Whether memory that runs out there can be got back by smaller batches."""
    return device.type == "cuda"


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
