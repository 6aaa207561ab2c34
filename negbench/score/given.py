"""Pictures in the place of a generator, so that the one loop of `evaluate` scores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from negbench.errors import DataError
from negbench.generators.base import Drawn, Generator
from negbench.score.pairing import Picture
from negbench.score.pictures import load_pixels
from negbench.store import pixel_digest
from negbench.types import SEED_BITS, Guidance, ImageRequest, Ref, canonical_json, sha256_hex

NAME = "given"
GIVEN = Guidance(kind="given", scale=0.0)
"""Stands where the rule and scale of a picture are not known."""
MOST_SETTINGS = 20
"""Most sets of settings that an identity spells out."""


def _drawn_by(picture: Picture) -> dict[str, JsonValue]:
    mark = picture.known.mark
    return {
        **dict(picture.known.settings),
        "width": picture.size[0],
        "height": picture.size[1],
        **({} if mark is None else {"generator": mark.generator}),
    }


def request_of(picture: Picture) -> ImageRequest:
    """The request that stands for a given picture: its pixels are a part of the identity."""
    known = picture.known
    scale = dict(known.settings).get("cfg_scale")
    guidance = GIVEN if scale is None else GIVEN.model_copy(update={"scale": float(scale)})
    treatment = known.treatment()
    if known.mark is None:
        treatment = treatment.model_copy(update={"guidance": guidance})
    elif treatment.guidance is None:
        treatment = treatment.model_copy(update={"guidance": known.mark.reference})
    return ImageRequest(
        generator=Ref(
            name=NAME,
            params={
                "image": picture.image,
                "seed": known.seed,
                "settings": dict(known.settings),
                "evaluations": known.evaluations,
            },
        ),
        treatment=treatment,
        seed=(known.seed or 0) % 2**SEED_BITS,
    )


@dataclass(frozen=True)
class Drawer:
    """A generator, and the requests that it is to draw, by key."""

    generator: Generator
    requests: Mapping[str, ImageRequest]


class GivenPictures(Generator):
    """Reads pictures by the key of their request; missing twins come from real generators.

    Args:
        pictures: key -> picture.
        drawers: who draws the twins that are not there.
    """

    def __init__(self, pictures: Mapping[str, Picture], *, drawers: Sequence[Drawer] = ()) -> None:
        self.config = self.Config()
        self._pictures = pictures
        self._drawers = drawers

    def ref(self) -> Ref:
        """What is known of what drew the pictures: every set of model, settings and size.

        Folders that agree in it, as two negative prompts on one model do, can be compared. Which
        pictures they are is a matter of the plan.
        """
        found: dict[bytes, JsonValue] = {
            canonical_json(_drawn_by(item)): _drawn_by(item) for item in self._pictures.values()
        }
        if len(found) > MOST_SETTINGS:
            return Ref(name=NAME, params={"settings": sha256_hex(b"\n".join(sorted(found)))})
        return Ref(name=NAME, params={"settings": [found[key] for key in sorted(found)]})

    def default_guidance(self) -> Guidance:
        """Not known."""
        return GIVEN

    def image_size(self) -> tuple[int, int]:
        """Height and width of the largest picture."""
        sizes = [picture.size for picture in self._pictures.values()]
        return max((s[1] for s in sizes), default=0), max((s[0] for s in sizes), default=0)

    def evaluations(self, request: ImageRequest) -> int:
        """None for pictures; what the real generator spends on a twin."""
        for drawer in self._drawers:
            if request.key() in drawer.requests:
                return drawer.generator.evaluations(request)
        return 0

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Drawn]:
        """Read the pictures, then draw the twins that are missing.

        Raises:
            DataError: a picture changed while it was being scored.
        """
        wanted = {request.key(): request for request in requests}
        for key in wanted:
            picture = self._pictures.get(key)
            if picture is None:
                continue
            pixels = load_pixels(picture.known.path)
            if pixel_digest(pixels) != picture.image:
                raise DataError(
                    f"picture {picture.known.id} changed while it was read; give the command again"
                )
            yield Drawn(key=key, pixels=pixels, evaluations=picture.known.evaluations or 0)
        for drawer in self._drawers:
            mine = [request for key, request in wanted.items() if key in drawer.requests]
            if mine:
                yield from drawer.generator.draw(mine)

    def describe(self) -> dict[str, JsonValue]:
        """Where the pictures are from."""
        return {
            "name": "given pictures",
            "drawn_by_negbench": False,
            "pictures": len(self._pictures),
            "twins_drawn_by": [drawer.generator.describe() for drawer in self._drawers],
        }
