"""Shipped sets of cases for removal: a prompt, and a concept that it implies but does not name.

A set is a CSV file in `negbench/protocols/sets/` or follows from the miniature's world. Everything
that is known of a case beside prompt and concept stands in its tags, so that it is part of the
data's digest:

    category:noun_object | attribute | style | quality | text
    entangled:yes | no      whether the concept is a part or a look of the subject itself (yes) or
                            stands apart from it, so that it can go without touching it (no)
    related:<word>          what means nearly the same or comes along with the concept: no placebo
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from negbench.errors import ConfigError, DataError, UnknownNameError, did_you_mean, one_line
from negbench.types import Case

CATEGORIES = ("noun_object", "attribute", "style", "quality", "text")
ENTANGLED = ("yes", "no")
COLUMNS = ("prompt", "concept", "category", "entangled", "related", "why")
MINIATURE = "miniature-removal"
BESIDE = frozenset({"tree", "moon", "balloon", "bird", "steam"})
"""Parts of the miniature's world that are drawn beside their subject, not on it."""


def case_set_names() -> list[str]:
    """Names of the shipped sets."""
    folder = files("negbench.protocols") / "sets"
    shipped = [i.name.removesuffix(".csv") for i in folder.iterdir() if i.name.endswith(".csv")]
    return sorted([MINIATURE, *shipped])


def load_case_set(name: str) -> list[Case]:
    """The cases of a shipped set, in the order in which they are written.

    Raises:
        UnknownNameError: there is no such set.
    """
    if name == MINIATURE:
        return miniature_cases()
    return [_case(row) for row in read_rows(name)]


def read_rows(name: str) -> list[dict[str, str]]:
    """The rows of a shipped CSV file, with all `COLUMNS`; ``why`` is for readers only.

    Raises:
        UnknownNameError: there is no such file.
        DataError: a row does not fit.
    """
    path = files("negbench.protocols") / "sets" / f"{name}.csv"
    if name not in case_set_names() or not path.is_file():
        raise UnknownNameError(f"unknown case set {name!r}; {did_you_mean(name, case_set_names())}")
    reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)
    rows = []
    for number, row in enumerate(reader, start=2):
        if set(row) != set(COLUMNS) or None in row.values():
            raise DataError(f"case set {name}, line {number}: the columns are {', '.join(COLUMNS)}")
        rows.append(dict(row))
    return rows


def _case(row: Mapping[str, str]) -> Case:
    return Case(
        id=f"{slug(row['concept'])}/{slug(row['prompt'])}"[:200],
        prompt=row["prompt"],
        concept=row["concept"],
        tags=tags_of_row(row),
    )


def slug(text: str) -> str:
    """Lower-case letters and digits of `text`, everything else as single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")


def tags_of_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The tags in the columns category, entangled and related (parted by semicolons) of a row.

    Raises:
        DataError: a category, or a word for entangled, that is not known.
    """
    tags = []
    for column, known in (("category", CATEGORIES), ("entangled", ENTANGLED)):
        value = str(row.get(column) or "").strip()
        if value and value not in known:
            raise DataError(
                f"{column} {one_line(value, limit=60)!r} is not known; {did_you_mean(value, known)}"
            )
        if value:
            tags.append(f"{column}:{value}")
    for word in str(row.get("related") or "").split(";"):
        if word.strip():
            tags.append(f"related:{word.strip()}")
    return tuple(tags)


def tagged(case: Case, name: str) -> list[str]:
    """The values of a case's tags of one kind, for example of ``related:``."""
    return [tag[len(name) + 1 :] for tag in case.tags if tag.startswith(f"{name}:")]


def check_concepts(cases: Sequence[Case]) -> None:
    """Refuse cases without a concept, which a removal protocol could not count.

    Raises:
        ConfigError: with the first of them.
    """
    without = [case.id for case in cases if not (case.concept or "").strip()]
    if without:
        raise ConfigError(
            f"removal needs a concept a case, and {len(without)} of {len(cases)} have none "
            f"(first: {one_line(without[0], limit=60)!r}); give --prompts a file with a column "
            "concept, or leave --db out"
        )


def miniature_cases() -> list[Case]:
    """Every part and attribute that a subject of the miniature's world can show, prompt by prompt.

    The prompt names the subject alone. An attribute is a look of the subject; a noun is entangled
    if it is drawn on the subject.
    """
    from negbench.miniature.captions import with_articles
    from negbench.miniature.world import ATTRIBUTES, removal_pairs

    cases = []
    for subject, part, _ in removal_pairs():
        beside = part in BESIDE or (part == "candle" and subject != "cake")
        row = {
            "category": "attribute" if part in ATTRIBUTES else "noun_object",
            "entangled": "no" if beside else "yes",
        }
        cases.append(
            Case(
                id=f"{slug(part)}/{slug(subject)}",
                prompt=with_articles(f"a {subject}"),
                concept=part,
                tags=tags_of_row(row),
            )
        )
    return cases
