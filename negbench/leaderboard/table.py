"""``leaderboard.json``: the table as data, by benchmark and generator."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from negbench.leaderboard.entry import Declared, Provenance
from negbench.types import Guidance

TABLE_SCHEMA: Literal[1] = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Difference(_Part):
    """Minus the baseline on the same cases and seeds.

    `p_holm` is corrected over all entries of the group in this column.
    """

    baseline: str
    value: float | None
    ci95: tuple[float, float] | None
    p: float | None
    p_holm: float | None
    n: int


class Cell(_Part):
    """One number of an entry, with its interval, its difference to the baseline and its rank.

    `rank` is the smallest and the largest rank that the data allow (see `Column.ranked`).
    """

    value: float | None
    ci95: tuple[float, float] | None
    n_scored: int
    n_unscored: int
    note: str | None
    difference: Difference | None
    rank: tuple[int, int] | None


class Row(_Part):
    """An entry in its group, best first."""

    entry: str
    sha256: str
    page: str
    title: str
    method: str
    rule: str
    params: dict[str, JsonValue]
    guidance: Guidance
    plan_digest: str
    command: str
    cells: dict[str, Cell]
    declared: Declared
    provenance: Provenance
    notes: tuple[str, ...]


class Column(_Part):
    """What a column is. `ranked` False: `why` says why its values do not compare or rank."""

    metric: str
    unit: str
    higher_is_better: bool | None
    kind: Literal["quality", "cost"]
    ranked: bool
    why: str | None
    twin: Cell | None


class Group(_Part):
    """Entries that may be compared: one benchmark version, one generator, one set of metrics."""

    benchmark: str
    protocol: str
    summary: str
    dataset: str
    n_cases: int
    replicates: int
    generator: str
    generator_digest: str
    generator_params: dict[str, JsonValue]
    metrics_digest: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


class Gone(_Part):
    """An entry that was withdrawn, and why."""

    entry: str
    reason: str


class Table(_Part):
    """The whole leaderboard."""

    schema_version: Literal[1] = TABLE_SCHEMA
    method_of_ranks: str
    groups: tuple[Group, ...]
    withdrawn: tuple[Gone, ...]
