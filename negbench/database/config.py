"""What `negbench build-db` can be told, on the command line or in a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from negbench.errors import ConfigError, MissingError, one_line


class CleanConfig(BaseModel):
    """Cleaning: languages to keep (empty = all), and what happens to nsfw rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    languages: tuple[str, ...] = ()
    nsfw: Literal["keep", "exclude"] = "keep"


class SplitConfig(BaseModel):
    """Splits: shares and caps, as in `negbench.database.split.SplitRules`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: float = Field(default=0.8, gt=0.0, lt=1.0)
    large: float = Field(default=0.005, gt=0.0, le=1.0)
    cap_share: float = Field(default=0.01, gt=0.0, le=1.0)
    cap_rows: int = Field(default=10, ge=1)


class BuildConfig(BaseModel):
    """Everything that a build depends on.

    Attributes:
        sources: what to read, for example ``files:prompts.csv``; empty = the miniature.
        out: folder of the data set.
        name: name of the data set and its card.
        mapping: field -> column, for tables with unusual names.
        previous: data set that this one grows from; its rows keep their splits.
        evaluation: a list of ids with fixed splits, made by an earlier build.
        new_evaluation: let validation and test grow, as a new version of the lists.
        accept_terms: the user accepts the terms of the APIs that are asked.
        license: licence of records that state none.
        crawl_dir: where raw pages of APIs are kept; default ``<out>/crawls``.
        offline: read kept pages only.
        max_pages: most pages to ask each API for.
        clean: cleaning rules.
        split: split rules.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...] = ()
    out: Path = Path("negbench-db")
    name: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?$")
    mapping: dict[str, str] = Field(default_factory=dict)
    previous: Path | None = None
    evaluation: Path | None = None
    new_evaluation: bool = False
    accept_terms: bool = False
    license: str | None = None
    crawl_dir: Path | None = None
    offline: bool = False
    max_pages: int | None = Field(default=None, ge=1)
    clean: CleanConfig = CleanConfig()
    split: SplitConfig = SplitConfig()


def load_config(path: Path | None, overrides: dict[str, Any]) -> BuildConfig:
    """A config from a TOML file and what the command line sets beside it.

    Raises:
        MissingError: there is no such file.
        ConfigError: it is not TOML, or a key or value does not fit.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise MissingError(f"no config at {path}; give the path of a TOML file") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path} is not readable TOML: {one_line(str(error))}") from error
    data.update({key: value for key, value in overrides.items() if value not in (None, (), {})})
    try:
        return BuildConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "config"
        raise ConfigError(
            f"{path or 'command line'}: {where}: {first['msg']} (known keys: "
            f"{', '.join(BuildConfig.model_fields)})"
        ) from error
