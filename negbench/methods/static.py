"""One negative prompt for every prompt: a named universal list, or a text of one's own."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from negbench.errors import UnknownNameError, did_you_mean
from negbench.methods.base import Method
from negbench.methods.texts import treatment
from negbench.types import MAX_TEXT, Case, Treatment, sha256_hex

DEFAULT = "common"


class Static(Method):
    """The same negative prompt for every prompt, as most people use it."""

    class Config(BaseModel):
        """A list by name, or a text; without either, the list `common`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        list: str | None = Field(
            default=None,
            description="a named list: common, people, photo, nasa (2412.02687), nag (2505.21179) "
            "or miniature; common if no text is given",
        )
        text: str | None = Field(
            default=None, max_length=MAX_TEXT, description="a negative prompt of your own"
        )

        @model_validator(mode="before")
        @classmethod
        def _one_of_two(cls, data: Any) -> Any:
            if isinstance(data, dict):
                if data.get("list") is not None and data.get("text") is not None:
                    raise ValueError("give list= or text=, not both")
                if data.get("list") is None and data.get("text") is None:
                    return {**data, "list": DEFAULT}
            return data

    def __init__(self, config: BaseModel | None = None, **kwargs: Any) -> None:
        # validated even without arguments, so that the default list is in the identity
        super().__init__(config or self.Config.model_validate({}), **kwargs)

    def check(self) -> None:
        """Refuse a list that does not exist."""
        self.text()

    def text(self) -> str:
        """The negative prompt.

        Raises:
            UnknownNameError: there is no list of that name.
        """
        assert isinstance(self.config, Static.Config)
        if self.config.text is not None:
            return self.config.text
        known = universal_lists()
        name = self.config.list or DEFAULT
        if name not in known:
            hint = did_you_mean(name, known)
            raise UnknownNameError(f"method static has no list {name!r}; {hint}; or give text=...")
        return known[name]["text"]

    def identity(self) -> dict[str, str]:
        """Digest of the text, so that a list that changes is another method."""
        return {"text": sha256_hex(self.text().encode("utf-8"))}

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """The same text for every case."""
        text = self.text()
        return [treatment(case, text) for case in cases]


@cache
def universal_lists() -> dict[str, dict[str, str]]:
    """The named lists: text, what it is about, and its source where it was published."""
    return tomllib.loads(files("negbench.methods").joinpath("lists.toml").read_text("utf-8"))
