"""What negbench writes into a picture it exports, beside the metadata that other tools read.

A PNG text chunk ``negbench`` holds a `Mark`: case, noise, the whole treatment and the name
of the twin's file, so that a folder of exported pictures is scored as the run was.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from negbench.errors import one_line
from negbench.types import MAX_TEXT, Guidance, Treatment

KEYWORD = "negbench"
PREFIX = "mark/1 "
"""Before the JSON, so that nobody who looks for JSON in any chunk takes it for settings."""
MAX_MARK = 400_000
"""Longest mark in characters."""


class Mark(BaseModel):
    """Where an exported picture stands in its run.

    Attributes:
        benchmark: name and version.
        case: id of the case.
        replicate: which noise.
        seed: its seed.
        prompt: the case's prompt.
        concept: what should not be seen, in removal benchmarks.
        tags: of the case.
        treatment: what was drawn.
        reference: guidance of the twin.
        twin: name of the twin's file, relative to the exported folder; None in the twin itself.
        generator: digest of what drew it.
        evaluations: denoiser predictions spent.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    schema_: Literal[1] = Field(default=1, alias="schema")
    benchmark: str = Field(max_length=200)
    case: str = Field(min_length=1, max_length=200)
    replicate: int = Field(ge=0)
    seed: int = Field(ge=0)
    prompt: str = Field(max_length=MAX_TEXT)
    concept: str | None = Field(default=None, max_length=MAX_TEXT)
    tags: tuple[str, ...] = Field(default=(), max_length=100)
    treatment: Treatment
    reference: Guidance
    twin: str | None = Field(default=None, max_length=400)
    generator: str = Field(max_length=100)
    evaluations: int = Field(ge=0)


def read_mark(text: str | None) -> Mark | None:
    """The mark in a text chunk; None where there is none, or none that can be believed."""
    if text is None or len(text) > MAX_MARK or not text.startswith(PREFIX):
        return None
    try:
        return Mark.model_validate_json(text.removeprefix(PREFIX))
    except (ValidationError, RecursionError):
        return None


def write_mark(mark: Mark) -> str:
    """The mark as the text of its chunk."""
    return PREFIX + mark.model_dump_json(by_alias=True)


def infotext(
    mark: Mark, *, negative: str, size: tuple[int, int], steps: int | None, model: str
) -> str:
    """The picture's settings in the form of A1111's ``parameters`` chunk.

    Args:
        mark: the picture.
        negative: its negative prompt, "" for none.
        size: width and height in pixels.
        steps: of the scheduler, if known.
        model: name of what drew it.
    """
    guidance = mark.treatment.guidance or mark.reference
    settings = {
        "Steps": steps,
        "CFG scale": guidance.scale,
        "Seed": mark.seed,
        "Size": f"{size[0]}x{size[1]}",
        "Model hash": mark.generator[:10],
        "Model": one_line(model, limit=100).replace(",", " "),
        "Guidance": guidance.kind,
        "Version": "negbench",
    }
    lines = [mark.prompt]
    if negative.strip():
        lines.append(f"Negative prompt: {negative}")
    lines.append(", ".join(f"{key}: {value}" for key, value in settings.items() if value))
    return "\n".join(lines)
