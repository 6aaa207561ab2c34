"""Columns of a data set, their order and types; what `datasets`, polars and pandas will see."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

SCHEMA_VERSION = 1

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("id", "string", "32 hex digits, from source, source id and raw texts"),
    ("prompt", "string", "prompt without weights, networks and keywords"),
    ("negative", "string", "negative prompt, cleaned likewise"),
    ("prompt_raw", "string", "prompt as the source has it, personal data masked"),
    ("negative_raw", "string", "negative prompt as the source has it, personal data masked"),
    ("prompt_tags", "tags", "tags of the prompt with attention weights"),
    ("negative_tags", "tags", "tags of the negative prompt with attention weights"),
    ("networks", "networks", "LoRAs, hypernetworks and embeddings called by either text"),
    ("tags_in_both", "strings", "tags that stand in the prompt and in the negative prompt"),
    ("language", "string", "ISO 639-1 code of the prompt's language, und = cannot be told"),
    ("nsfw", "bool", "not safe for work, by the source's flag or by words"),
    ("nsfw_by", "string", "source, words or both"),
    ("masked", "strings", "kinds of personal data that were masked"),
    ("changes", "strings", "what cleaning changed"),
    ("cluster", "string", "near-duplicate cluster, 16 hex digits"),
    ("same_negative", "int", "rows of the whole data set with this negative prompt"),
    ("source", "string", "where the row is from"),
    ("source_id", "string", "its id there"),
    ("model", "string", "checkpoint"),
    ("sampler", "string", "sampler"),
    ("steps", "int", "sampling steps"),
    ("cfg_scale", "float", "guidance scale"),
    ("seed", "int", "seed"),
    ("width", "int", "pixels"),
    ("height", "int", "pixels"),
    ("likes", "int", "likes or reactions"),
    ("created", "string", "time as the source gives it"),
    ("url", "string", "address of the picture"),
    ("license", "string", "licence of the row where the source states one"),
    ("convention", "string", "metadata convention of pictures"),
)
"""Name, type and meaning of every column of ``data/*.parquet``, in order."""

EXCLUDED_FIRST: tuple[tuple[str, str, str], ...] = (
    ("step", "string", "step of the funnel that excluded the row"),
    ("reason", "string", "why"),
    ("near", "string", "id of the row that it repeats or comes near, if any"),
)
_LISTS = {"prompt_tags", "negative_tags", "networks", "tags_in_both", "same_negative"}


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    simple = {
        "string": pa.string(),
        "strings": pa.list_(pa.string()),
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "tags": pa.list_(pa.struct([("tag", pa.string()), ("weight", pa.float32())])),
        "networks": pa.list_(
            pa.struct(
                [
                    ("kind", pa.string()),
                    ("name", pa.string()),
                    ("weight", pa.float32()),
                    ("side", pa.string()),
                ]
            )
        ),
    }
    return simple[kind]


def data_schema() -> pa.Schema:
    """Arrow schema of ``data/*.parquet``."""
    import pyarrow as pa

    return pa.schema([(name, _arrow_type(kind)) for name, kind, _ in COLUMNS])


def excluded_schema() -> pa.Schema:
    """Arrow schema of ``excluded.parquet``."""
    import pyarrow as pa

    kept = [column for column in COLUMNS if column[0] not in _LISTS]
    head, rest = kept[:1], kept[1:]
    return pa.schema([(n, _arrow_type(k)) for n, k, _ in (*head, *EXCLUDED_FIRST, *rest)])


def raw_schema() -> dict[str, pl.DataType]:
    """Polars schema of raw shards: a `RawRecord`, its id, and the reason of a `Skip`."""
    import polars as pl

    kinds = {
        "steps": pl.Int64(), "cfg_scale": pl.Float64(), "seed": pl.Int64(), "width": pl.Int64(),
        "height": pl.Int64(), "likes": pl.Int64(),
    }  # fmt: skip
    from negbench.database.records import RECORD_FIELDS

    schema: dict[str, pl.DataType] = {"id": pl.String()}
    schema.update({name: kinds.get(name, pl.String()) for name in RECORD_FIELDS})
    schema["skipped"] = pl.String()
    return schema
