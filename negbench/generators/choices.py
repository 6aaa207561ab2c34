"""What a user can set of a pipeline, and what is left to the machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from negbench.errors import ConfigError, MissingError
from negbench.generators.schedule import OWN
from negbench.weight_files import file_digest, read_header

DType = Literal["float32", "float16", "bfloat16"]


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
    embedded_scale: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="guidance that is distilled into FLUX.1-dev, which takes it as an input: 3.5",
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


def default_dtype(device: str, half: DType = "float16") -> DType:
    """float32 on the CPU, on a GPU what the family is used with."""
    return "float32" if choose_device(device).startswith("cpu") else half
