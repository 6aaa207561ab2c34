"""Read a folder of known inputs and compare with what is known of them.

The folder holds ``manifest.jsonl``, one object a file: ``file``, ``section`` (images, tables,
civitai), for images ``expected_prompt`` and ``expected_negative`` (null = the record has none) with
``detail`` lists of acceptable texts, for tables ``rows`` and ``pairs``. Prints one line for each
difference and the shares that agree; exits 1 where fewer than 98 % of the images are exact.

    python benchmarks/check_inputs.py --inputs DIR
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from negbench.database.records import RawRecord, Skip
from negbench.database.sources import open_source
from negbench.errors import NegbenchError


def normal(text: str | None) -> str | None:
    """Compare after CRLF -> LF and without the blanks that writers put around texts."""
    return None if text is None else text.replace("\r\n", "\n").strip()


def same(got: str | None, expected: str | None, listed: list[str]) -> bool:
    """Whether a text is the expected one, one of those listed, or a join of them."""
    if expected is not None:
        if normal(got) == normal(expected):
            return True
    elif not listed:
        return got is None or not got.strip()
    if got is None:
        return False
    parts = [normal(item) or "" for item in listed]
    return normal(got) in parts or (bool(parts) and all(part in got for part in parts))


def image(entry: dict[str, Any], item: RawRecord | Skip | None) -> str | None:
    """What differs for one picture, or None."""
    if item is None:
        return "gave neither a record nor a reason"
    expects = entry["convention"] not in ("none", "unreadable") and not entry[
        "convention"
    ].startswith("non-image")
    if isinstance(item, Skip):
        return f"skipped: {item.reason}" if expects else None
    if not expects:
        return f"a record where none is: {item.prompt!r}"
    detail = entry.get("detail") or {}
    positives = detail.get("positive_parts_of_final_sampler") or []
    if "several-conditionings" in entry.get("tags", ()):
        positives = [*positives, *(detail.get("positive_texts_all") or [])]
    negatives = detail.get("negative_texts_all") or []
    if not same(item.prompt, entry["expected_prompt"], positives):
        return f"prompt {item.prompt!r} instead of {entry['expected_prompt']!r}"
    if not same(item.negative, entry["expected_negative"], negatives):
        return f"negative {item.negative!r} instead of {entry['expected_negative']!r}"
    return None


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=Path, required=True)
    inputs: Path = parser.parse_args().inputs
    entries = [json.loads(line) for line in (inputs / "manifest.jsonl").open(encoding="utf-8")]
    items: dict[str, RawRecord | Skip] = {
        f"images/{item.source_id}": item for item in open_source(f"images:{inputs}/images").read()
    }
    exact = metadata = skipped = 0
    for entry in entries:
        if entry["section"] != "images":
            continue
        problem = image(entry, items.get(entry["file"]))
        if entry["expected_prompt"] is not None or entry["expected_negative"] is not None:
            metadata += 1
            exact += problem is None
        elif problem is None:
            skipped += 1
        if problem:
            print(f"{entry['file']}: {problem}")
    print(f"images with metadata read exactly: {exact} of {metadata}; others right: {skipped}")
    agree = tables = 0
    for entry in entries:
        if entry["section"] == "images":
            continue
        tables += 1
        try:
            read = list(open_source(f"files:{inputs / entry['file']}").read())
        except NegbenchError as error:
            agree += entry["pairs"] == 0
            print(f"{entry['file']}: {error}")
            continue
        records = [item for item in read if isinstance(item, RawRecord)]
        pairs = sum(1 for r in records if (r.prompt or "").strip() and (r.negative or "").strip())
        if pairs == entry["pairs"]:
            agree += 1
        else:
            print(f"{entry['file']}: {pairs} pairs instead of {entry['pairs']}")
    print(f"tables and pages with the right number of pairs, or refused: {agree} of {tables}")
    return 0 if exact >= 0.98 * metadata else 1


if __name__ == "__main__":
    sys.exit(main())
