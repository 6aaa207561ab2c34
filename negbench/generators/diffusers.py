"""The generator that runs Stable Diffusion pipelines through our own denoising loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from negbench.embedding import Embedding
from negbench.errors import ConfigError
from negbench.generators.base import Drawn, Generator, RunOptions
from negbench.generators.choices import DType, Lora, choose_device
from negbench.generators.families import Pipeline
from negbench.generators.reading import Reader
from negbench.generators.schedule import HISTORY, Schedule, flow_shift
from negbench.generators.sharing import Node, count_alone, count_together
from negbench.guidance.binding import bind
from negbench.guidance.effect import refuse_ignored, why_distilled
from negbench.types import Guidance, ImageRequest, Negative, Ref

if TYPE_CHECKING:
    from negbench.generators.loop import Denoiser, Lane
    from negbench.generators.network import Encoding, Network
    from negbench.generators.waves import Finished

Mode = Literal["canonical", "reference"]


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
        schedule: the model calls.
        reader: says what a request asks of the networks.
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
        self.schedule = _schedule(config, pipeline)
        self.reader = Reader(pipeline, self.schedule)
        self._network: Network | None = None
        self._loop: Denoiser | None = None
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
        rule.check(family=self.config.family, space=self.schedule.space, total=self.reader.calls)
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
            guidance, negatives, total=self.reader.calls, space=self.schedule.space, where=where
        )
        distilled = why_distilled({"scheduler": self.pipeline.scheduler})
        rule, taken = bind(guidance, negatives)
        for item in taken:
            self.reader.text(item)
        calls = range(self.reader.calls)
        steered = (branch for i in calls for branch in rule.needs(self.reader.step(i)))
        if distilled is not None and not any(branch.steer is not None for branch in steered):
            raise ConfigError(
                f"{where}: a negative prompt would have no effect: {distilled}; take a rule inside "
                "attention, for example --guidance nag"
            )

    def take_embedding(self, embedding: Embedding) -> None:
        """Keep an embedding that fits the model's text encoders."""
        self.reader.take_embedding(embedding)

    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.config.height, self.config.width

    def evaluations(self, request: ImageRequest) -> int:
        """Rows of U-Net calls that `request` takes, drawn alone."""
        if self.mode == "reference":
            rule = self.reader.bind(request).rule
            return rule.count(self.reader.calls, self.schedule.space)
        return count_alone(self.reader.track(request).spans)

    def needed(self, requests: Sequence[ImageRequest]) -> int:
        """Rows of U-Net calls that `requests` take together, what they share counted once.

        With ``long_text=chunk`` some may share less: how long texts are is known to the tokenizer.
        """
        unique = {request.key(): request for request in requests}
        if not self.share:
            return super().needed(list(unique.values()))
        roots = self.reader.roots(list(unique.values()), share=True)
        calls = self.reader.calls
        return sum(count_together(Node(root.tracks()), calls=calls) for root in roots)

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
        network = self.load()
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

        from negbench.generators import fitting
        from negbench.generators.waves import Waves

        denoiser = self._denoiser(network)
        roots = self.reader.roots(requests, share=self.share)
        target = 2 * self.batch_size(network)
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
                if not fitting.on_gpu(network.device):
                    raise
                waves.target = 2 * fitting.halve(network, waves.target // 2)
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

        from negbench.generators import fitting
        from negbench.generators.waves import Finished

        size, start = self.batch_size(network), 0
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
                if not fitting.on_gpu(network.device):
                    raise
                size = fitting.halve(network, size)
                continue
            yield from drawn
            start += len(batch)

    def _reference_lanes(
        self, network: Network, requests: Sequence[ImageRequest]
    ) -> tuple[list[Lane], Encoding]:
        from negbench.generators.loop import Lane
        from negbench.generators.network import join

        count = len(requests)
        bounds = [self.reader.bind(request) for request in requests]
        texts = [self.reader.texts(*pair) for pair in zip(requests, bounds, strict=True)]
        branches = bounds[0].rule.needs(self.reader.step(0))
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
        bound = self.reader.bind(request)
        if self.mode == "reference":
            self.check_guidance(request.guidance)
            return bound.group
        if self.config.long_text == "truncate":
            return 1
        texts = self.reader.texts(request, bound).values()
        return max(network.chunks(text) for text in texts if text is not None)

    def _truncated(self, network: Network, request: ImageRequest) -> int:
        if self.config.long_text == "chunk":
            return 0
        texts = self.reader.texts(request, self.reader.bind(request)).values()
        return sum(network.truncated(text) for text in set(texts) if text)

    # Loading --------------------------------------------------------------------------------

    def load(self) -> Network:
        """The networks, loaded at the first call and, on a GPU, fitted to its memory.

        Raises:
            NegbenchError: weights that cannot be loaded, or a GPU that not even one picture fits.
        """
        if self._network is None:
            import importlib

            import torch

            from negbench.generators import fitting
            from negbench.generators.network import Rows

            device = torch.device(choose_device(self.options.device))
            size, batch_size = self.image_size(), self.options.batch_size
            rows = Rows()
            if self.mode == "canonical":
                rows = fitting.first_rows(
                    self.pipeline, size=size, device=device, batch_size=batch_size
                )
            module, _, name = self.pipeline.family.adapter.partition(":")
            adapter: Callable[..., Network] = getattr(importlib.import_module(module), name)
            self._network = adapter(
                self.pipeline,
                size=size,
                device=device,
                dtype=getattr(torch, self.config.dtype),
                rows=rows,
                lora=[(str(item.path), item.scale) for item in self._lora],
                embedded_scale=self.config.embedded_scale,
            )
            self._network.embeddings = self.reader.embeddings
            if self.options.compile:
                self._network.compile()
            if fitting.on_gpu(device) and batch_size is None and self.mode == "canonical":
                fitting.fit(self._network)
        return self._network

    def _denoiser(self, network: Network) -> Denoiser:
        from negbench.generators.loop import Denoiser

        if self._loop is None:
            self._loop = Denoiser(network, self.schedule, share=self.mode == "canonical")
        return self._loop

    def batch_size(self, network: Network) -> int:
        """Pictures that are drawn together."""
        if self.options.batch_size is not None:
            return max(1, self.options.batch_size)
        rows = network.rows.denoiser or 16
        return rows if network.device.type == "cpu" else max(1, rows // 2)


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
