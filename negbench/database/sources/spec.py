"""Descriptions of paged JSON APIs in TOML: address, parameters, paths, terms, rate."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from negbench.database.records import SETTING_FIELDS
from negbench.errors import ConfigError, MissingError, did_you_mean, one_line


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Paths(_Part):
    """Dotted paths in a page: the list of items, the next cursor, an item's id."""

    items: str
    cursor: str
    id: str = "id"


class Cursor(_Part):
    """The parameter that asks for the page after a cursor."""

    param: str = "cursor"


class Order(_Part):
    """`newest_first`: a later crawl may stop at a page of known ids."""

    newest_first: bool = False


class Rate(_Part):
    """How politely to ask.

    `seconds_between_requests` is the least time from one request to the next, `attempts` how often
    one page is tried, `longest_wait_seconds` the most that a Retry-After or back-off may ask for.
    """

    seconds_between_requests: float = Field(default=1.0, ge=0.0, le=3600.0)
    attempts: int = Field(default=8, ge=1, le=100)
    timeout_seconds: float = Field(default=30.0, gt=0.0, le=600.0)
    longest_wait_seconds: float = Field(default=300.0, ge=0.0, le=86_400.0)
    largest_page_bytes: int = Field(default=32 * 2**20, ge=1024, le=2**30)


class ApiSpec(_Part):
    """One API.

    Attributes:
        name: short name; names the source and the folder of raw pages.
        address: http or https address of the list.
        params: query parameters of every request.
        paths: where things are in a page.
        cursor: how to ask for the next page.
        order: what the order of items allows.
        fields: record field -> dotted paths, the first that holds something counts.
        rate: politeness.
        terms: what a user has to accept with `--accept-terms`.
        license: licence of the texts; empty = none stated.
        redistribution: whether the terms allow publishing a data set.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")
    address: str
    params: dict[str, str | int | float | bool] = Field(default_factory=dict)
    paths: Paths
    cursor: Cursor = Cursor()
    order: Order = Order()
    fields: dict[str, tuple[str, ...]]
    rate: Rate = Rate()
    terms: str = Field(min_length=1)
    license: str = ""
    redistribution: bool = False

    @field_validator("address")
    @classmethod
    def _http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError("address has to be a plain http or https address")
        return value

    @field_validator("fields", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = {"prompt", "negative", *SETTING_FIELDS}
        for field in value:
            if field not in known:
                raise ValueError(f"unknown field {field!r}; {did_you_mean(str(field), known)}")
        return {k: (v,) if isinstance(v, str) else tuple(v) for k, v in value.items()}


def shipped_specs() -> dict[str, Path]:
    """Names and paths of the specs that come with negbench."""
    folder = files("negbench.database.sources") / "specs"
    return {
        Path(item.name).stem: Path(str(item))
        for item in folder.iterdir()
        if item.name.endswith(".toml")
    }


def load_spec(text: str) -> ApiSpec:
    """A spec by name or by path of a TOML file, with changes: ``civitai?nsfw=None&limit=50``.

    A change names a query parameter, or ``address``.

    Raises:
        MissingError: there is no such spec.
        ConfigError: the file is no spec.
    """
    place, _, query = text.partition("?")
    shipped = shipped_specs()
    path = shipped.get(place) or Path(place)
    if not path.is_file():
        raise MissingError(
            f"no API spec {place!r}; give the path of a TOML file; {did_you_mean(place, shipped)}"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not readable TOML: {one_line(str(error))}") from error
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key == "address":
            data["address"] = value
        else:
            data.setdefault("params", {})[key] = value
    try:
        return ApiSpec.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"API spec {place}: {where}: {one_line(first['msg'])}") from error
