"""A benchmark: cases, noises, generator and metrics under a name and a version, as TOML."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from negbench.errors import ConfigError, UnknownNameError, did_you_mean
from negbench.types import Guidance, Spec


class DataSpec(Spec):
    """Where the cases come from.

    Attributes:
        source: ``miniature``, or the name of a data set that ``build-db`` makes; its training
            split is what methods may learn from.
        split: whose prompts are the cases, unless there is a case set.
        case_set: a set of cases with concepts that is shipped with negbench.
        cases: how many, in the fixed order of `order_key`; None for all.
        hint: what to do if the data set is not at hand.
    """

    source: str
    case_set: str | None = None
    split: Literal["train", "validation", "test"] = "test"
    cases: int | None = Field(default=None, ge=1)
    hint: str = ""


class RemovalSpec(Spec):
    """How a removal protocol counts.

    Attributes:
        threshold: a concept counts as visible where its probability is greater than this.
        distance: the metric by which pictures are close to their twin, a symmetric one; or
            ``closer_to_twin``, a judge that compares.
    """

    threshold: float = Field(default=0.5, ge=0, lt=1)
    distance: str = "ssim"


class Benchmark(Spec):
    """One versioned benchmark; a change that alters a result is a new version.

    Attributes:
        protocol: which question is asked: ``quality``, ``removal`` or ``timing``.
        removal: how the removal protocol counts; None in every other protocol.
        replicates: noises a case.
        generator: default generator, and `generator_options` its parameters.
        guidance: plain CFG of the twins and, unless a method or the user says otherwise, of the
            treatments.
        metrics: metric name -> its parameters.
        effect_sd: standard deviation over prompts of the paired difference, by metric, as measured
            before; only used to forecast the smallest difference a sample can show.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._+-]*$")
    version: int = Field(ge=1)
    protocol: Literal["quality", "removal", "timing"] = "quality"
    removal: RemovalSpec | None = None
    summary: str
    data: DataSpec
    replicates: int = Field(ge=1)
    generator: str
    generator_options: dict[str, JsonValue] = Field(default_factory=dict)
    guidance: Guidance
    metrics: dict[str, dict[str, JsonValue]]
    effect_sd: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _counts_removal(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        removal = data.get("protocol") == "removal"
        if data.get("removal") is not None and not removal:
            raise ValueError('a table [removal] needs protocol = "removal"')
        return {**data, "removal": data.get("removal") or {}} if removal else data

    @property
    def title(self) -> str:
        """Name and version, for example ``miniature-quality@1``."""
        return f"{self.name}@{self.version}"


def _shipped() -> dict[str, str]:
    folder = files("negbench.protocols") / "benchmarks"
    return {
        item.name.removesuffix(".toml"): item.read_text(encoding="utf-8")
        for item in folder.iterdir()
        if item.name.endswith(".toml")
    }


def benchmark_names() -> list[str]:
    """Names of the shipped benchmarks."""
    return sorted(_shipped())


def load_benchmark(name: str) -> Benchmark:
    """A shipped benchmark by name, or a TOML file by path.

    Raises:
        UnknownNameError: no such benchmark.
        ConfigError: the file is not a benchmark.
    """
    plain = name.partition("@")[0]
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UnknownNameError(f"benchmark file {name} does not exist; give its path")
        return _parse(path.read_text(encoding="utf-8", errors="replace"), where=name)
    shipped = _shipped()
    if plain not in shipped:
        raise UnknownNameError(
            f"unknown benchmark {name!r}; {did_you_mean(plain, shipped)} "
            "(`negbench list benchmarks` shows all; a .toml file can be given by path)"
        )
    benchmark = _parse(shipped[plain], where=name)
    if "@" in name and name != benchmark.title:
        raise UnknownNameError(f"this version of negbench has {benchmark.title}, not {name}")
    return benchmark


def _parse(text: str, *, where: str) -> Benchmark:
    try:
        data: dict[str, Any] = tomllib.loads(text)
        return Benchmark.model_validate(data)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"benchmark {where}: not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"benchmark {where}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
        ) from error
