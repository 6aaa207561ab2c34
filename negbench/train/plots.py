"""Pictures of a training run: its curves, and sheets of what its negatives draw."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negbench.files import make_folder, write_atomic

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIDE = 192
"""Side of a picture on a sheet, in pixels."""


def draw_curves(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Reward, its terms, KL and length by step, as a PNG.

    Args:
        lines: of ``metrics.jsonl``.
        path: where the picture goes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    names = sorted({n for line in lines for n in line if n.startswith("gain_")})
    panels = (
        (axes[0, 0], "reward", ("reward", "validation_reward"), "gain over the twin"),
        (axes[0, 1], "terms", tuple(names), "gain, in SD of the start's gains"),
        (axes[1, 0], "KL from the start", ("kl",), "nats a token"),
        (axes[1, 1], "length", ("length", "tags"), "tokens, tags"),
    )
    for axis, title, shown, unit in panels:
        for number, name in enumerate(shown):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if not points:
                continue
            steps, values = zip(*points, strict=True)
            color = f"C{number}"
            if name.startswith("validation"):
                axis.plot(steps, values, "o--", color=color, label="held out, likeliest text")
                continue
            axis.plot(steps, values, color=color, alpha=0.25, linewidth=1)
            axis.plot(
                steps, _smooth(values), color=color, linewidth=2, label=name.removeprefix("gain_")
            )
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.set_ylabel(unit)
        axis.grid(visible=True, alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="best" if len(lines) < 500 else "upper left", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_atomic(path, buffer.getvalue())


def _smooth(values: Sequence[float], *, window: int = 9) -> list[float]:
    """Running means over at most `window` values, centred."""
    half = window // 2
    return [
        sum(values[max(0, i - half) : i + half + 1]) / len(values[max(0, i - half) : i + half + 1])
        for i in range(len(values))
    ]


def draw_sheet(
    rows: Sequence[tuple[str, Sequence[tuple[str, str, npt.NDArray[np.uint8]]]]], path: Path
) -> None:
    """A row of pictures for each prompt, each with its negative below, as a PNG.

    Args:
        rows: prompt and its pictures: name, negative, uint8 (height, width, 3).
        path: where the sheet goes.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=12)
    wide, gap, text = SIDE + 120, 12, 86
    columns = max(len(pictures) for _, pictures in rows)
    sheet = Image.new(
        "RGB", (gap + columns * (wide + gap), gap + len(rows) * (SIDE + text + 26)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for number, (prompt, pictures) in enumerate(rows):
        top = gap + number * (SIDE + text + 26)
        draw.text((gap, top), _fit(prompt, 150), fill="black", font=font)
        for column, (name, negative, pixels) in enumerate(pictures):
            left = gap + column * (wide + gap)
            picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top + 20))
            words = _wrapped(f"{name}: {negative}" if negative else name, 46)[:5]
            for i, line in enumerate(words):
                place = (left, top + 24 + SIDE + 15 * i)
                draw.text(place, line, fill="#333333", font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    make_folder(path.parent)
    write_atomic(path, buffer.getvalue())


def _fit(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width) or [""]
