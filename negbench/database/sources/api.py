"""``api:SPEC``: records from a paged JSON API, through raw pages on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from negbench.database.records import SETTING_FIELDS, RawRecord, Skip
from negbench.database.sources.base import Options, Source
from negbench.database.sources.columns import (
    as_flag,
    as_float,
    as_int,
    as_text,
    is_utf8,
)
from negbench.database.sources.crawl import Crawl, item_id, look_up
from negbench.database.sources.spec import ApiSpec, load_spec
from negbench.errors import ConfigError, MissingError

_INTEGERS = ("steps", "seed", "width", "height", "likes")


class ApiSource(Source):
    """Pages of an API, crawled politely, or read again from disk (``--offline``)."""

    kind = "api"

    def __init__(self, place: str, options: Options) -> None:
        super().__init__(place, options)
        if not place:
            raise ConfigError("api: needs a spec; write api:civitai or api:my_api.toml")
        self.spec: ApiSpec = load_spec(place)
        self._pages = 0

    @property
    def name(self) -> str:
        """``api:`` and the spec's name."""
        return f"api:{self.spec.name}"

    def describe(self) -> dict[str, Any]:
        """Address, parameters, terms, and how many pages were read."""
        return {
            "license": self.spec.license or None,
            "redistribution": self.spec.redistribution,
            "terms": self.spec.terms,
            "address": self.spec.address,
            "params": {key: str(value) for key, value in sorted(self.spec.params.items())},
            "pages": self._pages,
        }

    def read(self) -> Iterator[RawRecord | Skip]:
        """Crawl to the end, page by page onto disk; then yield every item once.

        Records come from the pages on disk, so that a crawl that was killed and went on gives the
        very rows of one that was not. Where an id stands on several pages (a list that moved while
        it was read, or a later run), the newest reading counts.

        Raises:
            ConfigError: the terms were not accepted.
            MissingError: `--offline`, and no page is on disk.
            DataError: the server cannot be read; what was gathered is kept.
        """
        crawl = Crawl(self.spec, self.options.crawl_dir / self.spec.name)
        if not self.options.offline:
            if not self.options.accept_terms:
                raise ConfigError(
                    f"{self.name} has terms: {self.spec.terms} Give --accept-terms if you accept "
                    "them, or --offline to read kept pages"
                )
            for _ in crawl.run(max_pages=self.options.max_pages):
                pass
        elif crawl.state.pages == 0:
            raise MissingError(
                f"no kept pages of {self.name} in {crawl.folder}; leave --offline out"
            )
        latest: dict[str, int] = {}
        for number, page in crawl.pages():
            for item in look_up(page, self.spec.paths.items) or []:
                if identity := item_id(item, self.spec):
                    latest[identity] = number
        self._pages = crawl.state.pages
        for number, page in crawl.pages():
            done: set[str] = set()
            for place, item in enumerate(look_up(page, self.spec.paths.items) or [], start=1):
                identity = item_id(item, self.spec)
                if identity and (latest[identity] != number or identity in done):
                    continue
                done.add(identity)
                yield self._record(item, identity or f"page {number} item {place}")

    def _record(self, item: Any, source_id: str) -> RawRecord | Skip:
        source_id = source_id[:200].encode("utf-8", "replace").decode("utf-8")
        if not isinstance(item, dict):
            return Skip(self.name, source_id, "item is not an object")
        found = {field: self._find(item, field) for field in self.spec.fields}
        prompt, negative = found.get("prompt"), found.get("negative")
        if prompt is None and negative is None:
            return Skip(self.name, source_id, "no generation metadata")
        for name, value in (("prompt", prompt), ("negative prompt", negative)):
            if value is not None and not isinstance(value, str):
                return Skip(self.name, source_id, f"{name} is not text")
        if not (is_utf8(prompt) and is_utf8(negative)):
            return Skip(self.name, source_id, "text is not valid UTF-8")
        settings: dict[str, Any] = {}
        for field in SETTING_FIELDS:
            value = found.get(field)
            if field in _INTEGERS:
                settings[field] = as_int(value)
            elif field == "cfg_scale":
                settings[field] = as_float(value)
            elif field == "nsfw":
                settings[field] = as_flag(value)
            else:
                settings[field] = as_text(value, limit=2000 if field == "url" else 300)
        settings["license"] = settings["license"] or self.spec.license or None
        return RawRecord(self.name, source_id, prompt, negative, **settings)

    def _find(self, item: dict[str, Any], field: str) -> Any:
        for path in self.spec.fields[field]:
            value = look_up(item, path)
            if value is not None:
                return value
        return None
