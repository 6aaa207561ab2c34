"""What every source is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negbench.database.records import RawRecord, Skip


@dataclass(frozen=True)
class Options:
    """What a user may tell all sources.

    Attributes:
        mapping: field of a record -> column or dotted path, from ``--map prompt=...``.
        accept_terms: the user has read and accepts the terms of the API.
        crawl_dir: folder where raw pages of APIs are kept.
        offline: read kept pages only, ask no server.
        license: licence that holds for every record without one of its own.
        max_bytes: largest picture file that is opened.
        max_pages: most pages to ask an API for in this run; None = all.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    accept_terms: bool = False
    crawl_dir: Path = Path("negbench-crawls")
    offline: bool = False
    license: str | None = None
    max_bytes: int = 256 * 2**20
    max_pages: int | None = None


class Source(ABC):
    """A place where people keep prompts with negative prompts.

    Args:
        place: what follows the colon in ``kind:place``.
        options: what the user said for all sources.
    """

    kind: str = ""

    def __init__(self, place: str, options: Options) -> None:
        self.place = place
        self.options = options

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of this source in records and manifests: no absolute path, no secret."""

    @abstractmethod
    def read(self) -> Iterator[RawRecord | Skip]:
        """All records, one by one; what cannot be read is a `Skip` and never ends the reading.

        Raises:
            NegbenchError: nothing of the source can be read at all.
        """

    def describe(self) -> dict[str, Any]:
        """What the manifest says of this source, known after `read` ended.

        Keys: ``revision``, ``license``, ``terms``, ``redistribution`` (False forbids `db push`),
        and whatever else identifies what was read. No times, no machine's paths.
        """
        return {"license": self.options.license}

    def given_splits(self) -> dict[str, list[str]]:
        """Split -> row ids, for a source that comes with splits; known after `read` ended."""
        return {}
