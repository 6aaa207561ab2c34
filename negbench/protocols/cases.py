"""The cases of a benchmark, and the training pairs that methods may learn from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from negbench.errors import DataError, MissingError
from negbench.methods.base import Pair
from negbench.protocols.benchmark import Benchmark
from negbench.protocols.case_sets import load_case_set, tags_of_row
from negbench.types import Case, canonical_json, sha256_hex

TAG_COLUMNS = ("subject", "style", "background", "category")


def order_key(case_id: str) -> str:
    """Cases are taken in the order of this hash, so that a smaller sample is part of a larger."""
    return sha256_hex(canonical_json(["negbench-case-order", 1, case_id]))


def dataset_digest(cases: Sequence[Case]) -> str:
    """sha256 over the cases in their order."""
    return sha256_hex(canonical_json([case.model_dump(mode="json") for case in cases]))


class DbTraining:
    """The training split of a data set, read when first asked for."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._pairs: tuple[Pair, ...] | None = None

    def pairs(self) -> Sequence[Pair]:
        """All training pairs, in the order of their ids."""
        if self._pairs is None:
            from negbench.database.load import load_db

            frame = load_db(self._source, split="train")
            rows = frame.select("id", "prompt", "negative").sort("id").iter_rows()
            self._pairs = tuple(
                Pair(id=str(i), prompt=p, negative=n) for i, p, n in rows if p and n
            )
        return self._pairs

    def digest(self) -> str:
        """sha256 over ids, prompts and negatives."""
        return sha256_hex(canonical_json([[p.id, p.prompt, p.negative] for p in self.pairs()]))


def load_cases(
    benchmark: Benchmark,
    *,
    db: str | None = None,
    prompts: Path | None = None,
    limit: int | None = None,
) -> tuple[list[Case], DbTraining]:
    """The benchmark's cases in their fixed order, and its training pairs.

    Args:
        benchmark: whose cases.
        db: another data set in place of the benchmark's, by name or folder.
        prompts: a CSV, TSV, JSON lines or text file with prompts of one's own.
        limit: the first so many cases only.

    Raises:
        MissingError: the data set or its split is not at hand.
        DataError: the file has no usable prompt.
    """
    source = db or benchmark.data.source
    if prompts is not None:
        cases = read_prompts(prompts)
    elif benchmark.data.case_set is not None and db is None:
        cases = load_case_set(benchmark.data.case_set)
        cases.sort(key=lambda case: order_key(case.id))
        cases = cases[: benchmark.data.cases]
    else:
        from negbench.database.load import load_db

        try:
            frame = load_db(source, split=benchmark.data.split)
        except MissingError as error:
            hint = f"; {benchmark.data.hint}" if benchmark.data.hint and db is None else ""
            raise MissingError(f"{error}{hint}") from error
        cases = _distinct(_case(row) for row in frame.iter_rows(named=True))
        cases.sort(key=lambda case: order_key(case.id))
        if not cases:
            raise MissingError(
                f"data set {source} has no {benchmark.data.split} split; build it with `build-db`"
            )
        cases = cases[: benchmark.data.cases]
    return cases[:limit], DbTraining(source)


def _case(row: dict[str, Any]) -> Case:
    tags = [f"{name}:{row[name]}" for name in TAG_COLUMNS if isinstance(row.get(name), str)]
    return Case(
        id=str(row["id"]), prompt=row["prompt"], negative=row.get("negative"), tags=tuple(tags)
    )


def _distinct(cases: Iterable[Case]) -> list[Case]:
    """One case a prompt: the one whose id comes first in the fixed order."""
    by_prompt: dict[str, Case] = {}
    for case in sorted(cases, key=lambda case: order_key(case.id)):
        by_prompt.setdefault(case.prompt, case)
    return list(by_prompt.values())


MAX_FILE = 200_000_000


def read_prompts(path: Path) -> list[Case]:
    """Cases from a user's own file.

    ``.csv`` and ``.tsv`` need a header with ``prompt`` and may have ``negative`` (or
    ``negative_prompt``), ``id``, and for removal ``concept``, ``category``, ``entangled`` and
    ``related`` (as in the shipped case sets); ``.jsonl`` the same keys; any other text file is one
    prompt a line.

    Raises:
        DataError: the file cannot be read, or a row cannot be used; the row is named.
    """
    if not path.is_file():
        raise DataError(f"prompts file {path} does not exist; give the path of a CSV or text file")
    if path.stat().st_size > MAX_FILE:
        raise DataError(f"prompts file {path} is larger than {MAX_FILE // 10**6} MB; split it")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"prompts file {path} is not UTF-8 at byte {error.start}; convert it"
        ) from error
    cases: list[Case] = []
    for number, row in _rows(path, text):
        prompt = row.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise DataError(f"{path}, row {number}: no prompt; fill it in or remove the row")
        negative = row.get("negative", row.get("negative_prompt"))
        try:
            cases.append(
                Case(
                    id=str(row.get("id") or f"row-{number}"),
                    prompt=prompt,
                    negative=negative if isinstance(negative, str) else None,
                    concept=row.get("concept") or None,
                    tags=tags_of_row(row),
                )
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(f"{path}, row {number}: {first['msg']}") from error
    if not cases:
        raise DataError(f"prompts file {path} holds no prompt")
    seen: dict[str, int] = {}
    for case in cases:
        seen[case.id] = seen.get(case.id, 0) + 1
    double = next((name for name, count in seen.items() if count > 1), None)
    if double is not None:
        raise DataError(f"prompts file {path}: id {double!r} stands twice; make ids unique")
    return cases


def _rows(path: Path, text: str) -> list[tuple[int, dict[str, Any]]]:
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        dialect = "\t" if ending == ".tsv" else ","
        reader = csv.DictReader(text.splitlines(keepends=True), delimiter=dialect, strict=True)
        if reader.fieldnames is None or "prompt" not in reader.fieldnames:
            found = ", ".join(reader.fieldnames or []) or "nothing"
            raise DataError(f"prompts file {path} has no column 'prompt' (found: {found})")
        try:
            return [(number, dict(row)) for number, row in enumerate(reader, start=1)]
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from error
    if ending in (".jsonl", ".ndjson"):
        rows = []
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: not valid JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: not a JSON object")
            rows.append((number, row))
        return rows
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    return [(number, {"prompt": line}) for number, line in lines if line]
