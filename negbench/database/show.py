"""`negbench db show`: a data set's figures as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from negbench.database.card import ranked
from negbench.errors import RecordError


def read_stats(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Figures beside the card.

    Raises:
        RecordError: they are missing or damaged.
    """
    path = folder / "data_cards" / f"{manifest['name']}.stats.json"
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read; run `negbench db check {folder}`") from error
    return data


def show_text(folder: Path, manifest: dict[str, Any]) -> str:
    """Rows, sources, funnel and figures of a data set, for people."""
    stats = read_stats(folder, manifest)
    total = stats["total"] or 1
    lines = [f"{manifest['name']}: {stats['total']:,} pairs in {folder}"]
    lines.append(
        "  "
        + ", ".join(
            f"{split} {rows:,} ({100 * rows / total:.1f} %)"
            for split, rows in manifest["rows"].items()
        )
    )
    lists = manifest["evaluation"]["lists"]
    lines.append(
        f"  evaluation lists v{manifest['evaluation']['version']}: "
        + ", ".join(f"{name} {count:,}" for name, count in sorted(lists.items()))
    )
    licence = manifest["license"] or "none declared"
    share = "may be published" if manifest["may_be_shared"] else "must not be published"
    lines.append(f"  licence: {licence}; {share}")
    lines.append("sources")
    for source in manifest["sources"]:
        lines.append(
            f"  {source['name']}: {source['records']:,} records, {source['skipped']:,} gave none"
        )
    lines.append("funnel")
    for step in manifest["funnel"]:
        lines.append(f"  {step['step']:<11}{step['in']:>10,} -> {step['out']:>10,}")
        for reason, count in ranked(step["excluded"])[:6]:
            lines.append(f"             -{count:>9,}  {reason}")
    flags = stats["flags"]
    lines.append(
        f"figures\n  universal negative lists {100 * flags['universal']['share']:.1f} %, "
        f"nsfw {100 * flags['nsfw']['share']:.1f} %, tags in both "
        f"{100 * flags['tags in both']['share']:.1f} %, distinct negatives "
        f"{stats['negatives']['distinct']:,}"
    )
    for side in ("prompt", "negative"):
        words = stats["lengths"].get(f"{side} words", {})
        lines.append(
            f"  {side}: {words.get('mean', 0):.1f} words (median {words.get('median', 0):.0f}); "
            + ", ".join(f"{tag} {count:,}" for tag, count in stats["tags"][side][:6])
        )
    languages = ", ".join(f"{code} {n:,}" for code, n in ranked(stats["language"])[:6])
    lines.append(f"  languages: {languages}")
    return "\n".join(lines) + "\n"
