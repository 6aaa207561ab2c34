"""Where records come from: ``kind:rest``, one plug-in class a kind.

Third parties add a kind with an entry point in the group ``negbench.sources``.
"""

from __future__ import annotations

from dataclasses import replace

from negbench.database.sources.base import Options, Source
from negbench.errors import ConfigError
from negbench.registry import Registry

SOURCES: Registry[Source] = Registry(
    "source",
    group="negbench.sources",
    base="negbench.database.sources.base:Source",
    builtins={
        "hub": (
            "negbench.database.sources.hub:HubSource",
            "hub:org/name[@revision], a Hugging Face data set, streamed",
        ),
        "files": (
            "negbench.database.sources.tables:TableSource",
            "files:PATH, a table, a folder or a glob: CSV, TSV, JSON, JSONL, Parquet, .gz, .zst",
        ),
        "images": (
            "negbench.database.sources.images:ImageSource",
            "images:DIR, PNG, JPEG and WebP with generation metadata",
        ),
        "api": (
            "negbench.database.sources.api:ApiSource",
            "api:SPEC, a paged JSON API described by a TOML file; shipped: civitai",
        ),
        "miniature": (
            "negbench.database.sources.miniature:MiniatureSource",
            "miniature, the made-up data base that comes with negbench",
        ),
    },
)


def open_source(text: str, options: Options | None = None) -> Source:
    """The source that `text` names, for example ``files:prompts.csv``.

    Raises:
        ConfigError: `text` names no place where its kind needs one.
        UnknownNameError: there is no such kind.
    """
    kind, _, place = text.partition(":")
    kind = kind.strip()
    if not kind:
        raise ConfigError(
            f"source {text!r} has no kind; write for example files:prompts.csv or images:DIR"
        )
    options = options or Options()
    return SOURCES.get(kind)(place.strip(), replace(options))


__all__ = ["SOURCES", "Options", "Source", "open_source"]
