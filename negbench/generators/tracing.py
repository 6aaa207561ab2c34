"""Watch a picture being drawn: attention to each text and predicted noise, at every model call.

The pictures are those that `Generator.draw` gives, pixel by pixel. Beside what a picture needs, the
network is asked under every watched text at every call; of each answer are kept

* the strength of cross-attention by token position (`negbench.generators.strength`), summed over
  heads and over the cross-attention layers of the down and up blocks, the middle block left out;
* the scalar products of the noise predicted under the watched texts, among one another
  (`Trace.gram`) and with those of the call before (`Trace.lag`);
* on request, where in the picture the words are attended to (`Trace.maps`).

From these follow the strength ratio, the inducing measure and the cosines of Ban et al. (arXiv
2406.02965); see `negbench.timing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch

from negbench.errors import ConfigError
from negbench.generators.base import Generator
from negbench.generators.diffusers import DiffusersGenerator
from negbench.generators.listening import Recorder
from negbench.generators.loop import Denoiser, Lane
from negbench.generators.network import Network
from negbench.guidance.base import Branch, Rule, Step, negative
from negbench.types import ImageRequest

if TYPE_CHECKING:
    from negbench.generators.sharing import Text

VERSION = 1
"""Goes up when what is recorded changes."""

FAMILIES = frozenset({"sd", "sdxl"})

FIRST_WATCHED = 1000
"""Numbers of the branches that are asked for beside the picture's own begin here."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """A text to watch.

    Attributes:
        text: under which the network is asked; "" is the pipeline's empty prompt.
        focus: the end of `text` whose words are looked at; None for all its words.
    """

    text: str
    focus: str | None = None


@dataclass(frozen=True)
class Watch:
    """One picture to draw, and what to watch.

    Attributes:
        request: the picture.
        looks: the texts, by names of the caller's choice.
        attention: record attention beside the predicted noise.
        maps: keep where the words are attended to.
    """

    request: ImageRequest
    looks: Mapping[str, Look]
    attention: bool = True
    maps: bool = False


@dataclass(frozen=True)
class Trace:
    """What was seen while one picture was drawn.

    Attributes:
        key: of the request.
        pixels: uint8 (height, width, 3).
        names: of the watched texts.
        words: by name the token positions of its words (of its focus), marks and padding left out.
        strength: attention by call, name and token position, float64 (calls, names, positions);
            no positions where attention was not recorded.
        gram: <e_i, e_j> of the predicted noise, float64 (calls, names, names).
        lag: <e_i(t), e_i(t + 1)>, float64 (calls - 1, names).
        maps: attention to the words, mean over layers, heads and words, float32 (calls, names,
            height, width) of the latent; None unless asked for.
    """

    key: str
    pixels: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    words: dict[str, tuple[int, ...]]
    strength: Array
    gram: Array
    lag: Array
    maps: npt.NDArray[np.float32] | None


def check_traceable(generator: Generator) -> DiffusersGenerator:
    """The generator, if its cross-attention can be recorded.

    Raises:
        ConfigError: another family of models, long texts in chunks, or reference mode.
    """
    if not isinstance(generator, DiffusersGenerator) or generator.config.family not in FAMILIES:
        family = getattr(generator.config, "family", None) if hasattr(generator, "config") else None
        raise ConfigError(
            f"generator {family or generator.ref().name} cannot be traced: attention is recorded "
            "in the U-Nets of Stable Diffusion 1.x, 2.x and XL only; choose one of these"
        )
    if generator.config.long_text != "truncate" or generator.mode != "canonical":
        raise ConfigError("tracing needs long_text=truncate and canonical mode; leave both out")
    return generator


def trace(generator: Generator, watches: Sequence[Watch]) -> Iterator[Trace]:
    """Draw each picture and watch it; results come batch by batch, in order.

    Args:
        generator: a Stable Diffusion 1.x, 2.x or XL pipeline in canonical mode.
        watches: all with the same names.

    Raises:
        ConfigError: the generator, a rule or a text cannot be watched.
    """
    traced = check_traceable(generator)
    if not watches:
        return
    for watch in watches:
        if watch.request.generator != traced.ref():
            raise ConfigError("a request names another generator than the one that draws it")
        if list(watch.looks) != list(watches[0].looks):
            raise ConfigError("all pictures of a trace are watched under the same names")
    network = traced.load()
    size = traced.batch_size(network)
    for start in range(0, len(watches), size):
        with torch.inference_mode():
            batch = _trace_batch(traced, network, watches[start : start + size])
        yield from batch


def _trace_batch(
    generator: DiffusersGenerator, network: Network, watches: Sequence[Watch]
) -> list[Trace]:
    texts: list[Text] = []
    lanes: list[Lane] = []
    places: list[dict[str, int]] = []
    focus: dict[int, tuple[int, ...]] = {}
    heard: set[int] = set()
    for watch in watches:
        lane, place = _lane(generator, watch, texts)
        lanes.append(lane)
        places.append(place)
        for name, row in place.items():
            focus[row] = words_of(network, watch.looks[name])
            if watch.attention:
                heard.add(row)
    recorder = Recorder(network, focus, heard, maps=any(watch.maps for watch in watches))
    # the loop only sees a network; rows of the encoding say which picture and text a row is
    denoiser = Denoiser(cast("Network", recorder), generator.schedule)
    encoding = network.encode(texts)
    state = denoiser.begin(lanes)
    names = list(watches[0].looks)
    seen: list[_Seen] = [_Seen(names, place) for place in places]
    while state.index < len(denoiser.steps):
        recorder.begin(denoiser.steps[state.index])
        denoiser.advance(state, lanes, encoding)
        for one in seen:
            one.take(recorder)
    pixels, _ = network.decode(state.latents)
    return [
        seen[i].trace(watch, pixels[i], {name: focus[places[i][name]] for name in names})
        for i, watch in enumerate(watches)
    ]


def _lane(
    generator: DiffusersGenerator, watch: Watch, texts: list[Text]
) -> tuple[Lane, dict[str, int]]:
    """The lane of a picture, whose texts have rows of their own, and the row of each look."""
    reader = generator.reader
    bound = reader.bind(watch.request)
    own = reader.texts(watch.request, bound)
    rows: dict[Text, int] = {}

    def row(text: Text) -> int:
        if text not in rows:
            rows[text] = len(texts)
            texts.append(text)
        return rows[text]

    branches = {branch: row(text) for branch, text in own.items()}
    extra = {}
    place = {}
    for number, (name, look) in enumerate(watch.looks.items()):
        place[name] = row(look.text or reader.empty)
        extra[negative(FIRST_WATCHED + number)] = place[name]
    rule = _Asking(bound.rule, tuple(extra))
    lane = Lane(
        seed=watch.request.seed,
        rule=rule,
        group=(bound.group, len(extra)),
        texts={**branches, **extra},
    )
    return lane, place


def words_of(network: Network, look: Look) -> tuple[int, ...]:
    """Token positions of the words of a look's focus, begin, end and padding left out.

    Raises:
        ConfigError: the focus does not end the text, or is cut off with it.
    """
    if not look.text:
        return ()
    last = network.tokens(look.text) - 1
    count = last - 1
    if look.focus is not None:
        if not look.text.endswith(look.focus):
            raise ConfigError("the words to look at have to end the text they are looked for in")
        count = network.tokens(look.focus) - 2
    if last > network.length - 1:
        if look.focus is not None:
            raise ConfigError(
                f"a text of {last + 1} tokens is cut at {network.length}, and the words to look at "
                "are lost; shorten it"
            )
        last, count = network.length - 1, network.length - 2
    return tuple(range(last - count, last))


class _Asking(Rule):
    """A rule that has more predicted than it needs."""

    def __init__(self, rule: Rule, extra: tuple[Branch, ...]) -> None:
        super().__init__(rule.config, scale=rule.scale, weights=rule.weights)
        self.rule = rule
        self.extra = extra

    def needs(self, step: Step) -> tuple[Branch, ...]:
        own = self.rule.needs(step)
        if any(branch.steer is not None for branch in own):
            raise ConfigError(
                "a rule that acts inside attention cannot be traced; choose cfg or window"
            )
        return (*own, *self.extra)

    def combine(
        self, predictions: Mapping[Branch, torch.Tensor], x_t: torch.Tensor, step: Step, state: Any
    ) -> tuple[torch.Tensor, Any]:
        return self.rule.combine(predictions, x_t, step, state)


class _Seen:
    """What one picture's calls saw so far."""

    def __init__(self, names: list[str], place: dict[str, int]) -> None:
        self.names = names
        self.rows = [place[name] for name in names]
        self.strength: list[Array] = []
        self.gram: list[Array] = []
        self.lag: list[Array] = []
        self.maps: list[npt.NDArray[np.float32]] = []
        self._before: torch.Tensor | None = None

    def take(self, recorder: Recorder) -> None:
        """Keep what the recorder has of this picture."""
        noise = torch.stack([recorder.noise[row] for row in self.rows])
        self.gram.append((noise @ noise.T).cpu().numpy())
        if self._before is not None:
            self.lag.append((self._before * noise).sum(dim=1).cpu().numpy())
        self._before = noise
        nothing = torch.zeros(0, dtype=torch.float64)
        heard = [recorder.strength[row].cpu() if row in recorder.heard else nothing
                 for row in self.rows]  # fmt: skip
        self.strength.append(torch.stack(heard).numpy())
        if recorder.with_maps:
            blank = torch.zeros(recorder.network.latent_shape[1:])
            maps = [recorder.maps[row].cpu() if row in recorder.maps else blank
                    for row in self.rows]  # fmt: skip
            self.maps.append(torch.stack(maps).float().numpy())

    def trace(
        self, watch: Watch, pixels: npt.NDArray[np.uint8], words: dict[str, tuple[int, ...]]
    ) -> Trace:
        """The whole of it."""
        return Trace(
            key=watch.request.key(),
            pixels=pixels,
            names=tuple(self.names),
            words=words,
            strength=np.stack(self.strength),
            gram=np.stack(self.gram),
            lag=np.stack(self.lag) if self.lag else np.zeros((0, len(self.names))),
            maps=np.stack(self.maps) if watch.maps else None,
        )
