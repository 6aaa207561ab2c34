"""JSON Schemas of the leaderboard's files, made from the types and versioned with them."""

from __future__ import annotations

from pydantic import TypeAdapter

from negbench.leaderboard.entry import ENTRY_SCHEMA, Entry, pretty
from negbench.leaderboard.lock import Line
from negbench.leaderboard.table import TABLE_SCHEMA, Table

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, bytes]:
    """File name -> schema, for entries, lines of the lock, and the table."""
    made = {
        f"entry-v{ENTRY_SCHEMA}.json": Entry.model_json_schema(mode="serialization"),
        "lock-line-v1.json": TypeAdapter(Line).json_schema(),
        f"leaderboard-v{TABLE_SCHEMA}.json": Table.model_json_schema(mode="serialization"),
    }
    return {name: pretty({"$schema": DIALECT, **schema}) for name, schema in made.items()}
