"""What a removal leaves on disk: twin, result, both side by side, and what was tried."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.files import make_folder, write_atomic, write_json
from negbench.types import canonical_json, sha256_hex

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from negbench.remove.search import Removal, Try

    Pixels = npt.NDArray[np.uint8]

SCHEMA = 1
SMALL = 256
"""Pictures narrower than this are shown enlarged side by side."""


def folder_of(out: Path, found: Removal, *, identity: Any) -> Path:
    """``<out>/<prompt>-<concept>-<8 hex digits>``: the same question, the same folder."""
    digest = sha256_hex(canonical_json([found.prompt, found.concept, found.seed, identity]))[:8]
    words = f"{_slug(found.prompt, 40)}-{_slug(found.concept, 20)}".strip("-")
    return out / (f"{words}-{digest}" if words else digest)


def _slug(text: str, limit: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:limit].strip("-")


def write_removal(
    folder: Path, found: Removal, *, about: dict[str, Any], command: str
) -> dict[str, Any]:
    """Write the pictures and ``remove.json``; return its content.

    ``result.png`` is written where the concept is gone, ``closest.png`` where it is not: the
    picture in which the judge saw it least.
    """
    make_folder(folder)
    files = {"twin": "twin.png"}
    panels: list[tuple[str, Try]] = [("no negative", found.twin)]
    if found.best is not None:
        name = "result" if found.status == "removed" else "closest"
        files[name] = f"{name}.png"
        start, stop = found.best.window
        panels.append((f"calls {start} to {stop - 1} of {found.calls}", found.best))
    if found.every_call is not None and found.every_call is not found.best:
        panels.append(("every call", found.every_call))
    for stale in ("result.png", "closest.png"):
        if stale not in files.values():
            (folder / stale).unlink(missing_ok=True)
    for name, one in (("twin", found.twin), ("result", found.best), ("closest", found.best)):
        if name in files and one is not None:
            write_atomic(folder / files[name], _png(_picture(found.pixels[one.key])))
    files["side_by_side"] = "side-by-side.png"
    write_atomic(folder / files["side_by_side"], _png(side_by_side(found, panels)))
    result = {
        "schema_version": SCHEMA,
        "status": found.status,
        "prompt": found.prompt,
        "concept": found.concept,
        "seed": found.seed,
        "calls": found.calls,
        "best": None if found.best is None else found.best.as_json(),
        "every_call": None if found.every_call is None else found.every_call.as_json(),
        "twin": found.twin.as_json(),
        "tried": [one.as_json() for one in found.tried],
        "reason": found.reason,
        "note": found.note,
        "files": files,
        **about,
        "command": command,
    }
    write_json(folder / "remove.json", result)
    return result


def _picture(pixels: Pixels) -> Image.Image:
    from PIL import Image

    return Image.fromarray(pixels)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def side_by_side(found: Removal, panels: list[tuple[str, Try]]) -> Image.Image:
    """The pictures of `panels` with what the judge says under each."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = found.pixels[found.twin.key].shape[:2]
    factor = max(1, -(-SMALL // width)) if width < SMALL else 1
    wide, tall, margin, line = width * factor, height * factor, 12, 17
    sheet = Image.new(
        "RGB",
        (margin + len(panels) * (wide + margin), tall + 2 * margin + 3 * line),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for place, (label, one) in enumerate(panels):
        left = margin + place * (wide + margin)
        picture = _picture(found.pixels[one.key]).resize((wide, tall), Image.Resampling.NEAREST)
        sheet.paste(picture, (left, margin))
        said = "no verdict" if one.probability is None else f"seen: {one.probability:.2f}"
        change = "" if one.damage is None or not place else f"changed: {one.damage:.2f}"
        for number, text in enumerate((label, said, change)):
            top = margin + tall + 4 + number * line
            draw.text((left, top), text, fill="black", font=font)
    return sheet
