"""The card of a data set: what it is, where it is from, how it was made, what it is not for."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from negbench.database.manifest import to_bytes
from negbench.database.plots import draw_plots
from negbench.database.rows import SPLITS
from negbench.database.schema import COLUMNS

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (10**12, "10M<n<100M"))  # fmt: skip
_TITLES = {"miniature": "Miniature Negative Prompts DB", "npdb": "Negative Prompts DB"}


def write_card(folder: Path, manifest: dict[str, Any], stats: dict[str, Any]) -> None:
    """Write ``data_cards/<name>.md``, ``<name>.stats.json`` and the plots under `folder`."""
    cards = folder / "data_cards"
    cards.mkdir(parents=True, exist_ok=True)
    name = manifest["name"]
    draw_plots(stats, cards / name)
    (cards / f"{name}.stats.json").write_bytes(to_bytes(stats))
    (cards / f"{name}.md").write_text(card_text(manifest, stats), encoding="utf-8")


def cell(text: Any, limit: int = 120) -> str:
    """Text as a table cell: one line, no markup, no code of its own."""
    shown = "".join(c if c.isprintable() else " " for c in str(text))
    shown = shown if len(shown) <= limit else shown[: limit - 1] + "…"
    escaped = html.escape(shown, quote=False)
    for sign in "\\|`*_[]#~":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped.replace("@", "&#64;")


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; cells are escaped."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell(item) for item in row) + " |" for row in rows]
    return "\n".join(lines)


def ranked(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Names with their counts, the largest first (JSON files keep no order of their own)."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def percent(part: float) -> str:
    """A share as per cent."""
    return f"{100 * part:.1f} %"


def front_matter(name: str, *, licence: str | None, languages: list[str], rows: int | None,
                 synthetic: bool) -> str:  # fmt: skip
    """YAML that the Hugging Face hub reads."""
    size = next(label for bound, label in _SIZES if (rows or 0) < bound)
    lines = ["---"]
    if licence and licence != "other":
        lines.append(f"license: {licence}")
    elif licence == "other":
        lines += ["license: other", "license_name: several", "license_link: manifest.json"]
    else:
        lines += ["license: unknown"]
    known = [code for code in languages if code != "und"] or ["en"]
    lines += ["language:", *(f"- {code}" for code in known)]
    lines += [f"pretty_name: {_title(name)}", "size_categories:", f"- {size}"]
    lines += ["task_categories:", "- text-to-image", "- text-generation"]
    lines += ["tags:", "- negative-prompt", "- stable-diffusion", "- prompts"]
    if synthetic:
        lines.append("- synthetic")
    if rows is not None:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split in SPLITS:
            lines += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    return "\n".join([*lines, "---"])


def _title(name: str) -> str:
    return _TITLES.get(name, name)


def card_text(manifest: dict[str, Any], stats: dict[str, Any]) -> str:
    """The whole card; a function of manifest (without file digests) and figures alone."""
    name = manifest["name"]
    synthetic = [s["kind"] for s in manifest["sources"]] == ["miniature"]
    parts = [
        front_matter(
            name,
            licence=manifest["license"],
            languages=[code for code, _ in ranked(stats["language"])][:12],
            rows=stats["total"],
            synthetic=synthetic,
        ),
        f"# {_title(name)}",
        _summary(manifest, stats, synthetic=synthetic),
        "## Origin",
        _origin(manifest),
        "## Licence, consent and terms",
        _license(manifest, synthetic=synthetic),
        "## How it was made",
        _made(manifest),
        "## Splits",
        _splits(manifest, stats),
        "## Figures",
        _figures(manifest, stats),
        "## Intended use, and misuse",
        intended_use(),
        "## Columns",
        table(["column", "type", "meaning"], [list(column) for column in COLUMNS]),
        "## Verify and load",
        _verify(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(manifest: dict[str, Any], stats: dict[str, Any], *, synthetic: bool) -> str:
    total = stats["total"]
    kind = (
        "Prompts and negative prompts that simulated users wrote for a small drawn world; no text "
        "of any person is in it."
        if synthetic
        else "Prompts of text-to-image generation, each with the negative prompt that a person "
        "used with it."
    )
    return (
        f"{kind} {total:,} pairs: "
        + ", ".join(f"{manifest['rows'][split]:,} {split}" for split in SPLITS)
        + f". Built by `negbench build-db` (negbench {manifest['negbench']}), schema version "
        f"{manifest['schema_version']}, evaluation lists version "
        f"{manifest['evaluation']['version']}."
    )


def _origin(manifest: dict[str, Any]) -> str:
    rows = []
    for source in manifest["sources"]:
        revision = source.get("revision") or source.get("records_sha256", "")[:12]
        rows.append(
            [source["name"], source["records"], source["skipped"], source.get("license") or
             "none declared", revision, "yes" if source["carried_over"] else "no"]
        )  # fmt: skip
    text = table(["source", "records", "gave none", "licence", "revision or digest",
                  "carried over"], rows)  # fmt: skip
    if manifest["previous"]:
        before = manifest["previous"]
        text += (
            f"\n\nGrown from {cell(before['name'])} with {before['rows']:,} rows (manifest "
            f"sha256 `{before['manifest_sha256'][:16]}`); those rows keep their splits."
        )
    return text


def _license(manifest: dict[str, Any], *, synthetic: bool) -> str:
    if synthetic:
        return (
            "Made up by a program of negbench, under its licence (Apache-2.0). No person wrote a "
            "prompt for it, so there is nothing to consent to."
        )
    lines = []
    if manifest["may_be_shared"]:
        lines.append(
            f"Licence: **{cell(manifest['license'] or 'several')}**. Every source's licence allows "
            "sharing; conditions such as naming the source hold for its rows (column `source`)."
        )
    else:
        names = [
            cell(source["name"]) for source in manifest["sources"]
            if not source.get("shareable", False)
        ]  # fmt: skip
        lines.append(
            "At least one source declares no licence that allows sharing ("
            + ", ".join(names)
            + "). **This data set must not be published**; `negbench db push` refuses it. What may "
            "be passed on are the lists of ids under `evaluation/`, which hold no text."
        )
    terms = [source for source in manifest["sources"] if source.get("terms")]
    for source in terms:
        lines.append(f"- {cell(source['name'])}: {cell(source['terms'], 400)}")
    lines.append(
        "The people who wrote the prompts posted them in public but were not asked. E-mail "
        "addresses, phone numbers and personal handles are masked and user names are not kept. "
        "Whoever wants a row removed can name its id; builds leave out what a source has removed."
    )
    return "\n\n".join(lines)


def _made(manifest: dict[str, Any]) -> str:
    rule = manifest["split_rule"]
    rows: list[list[Any]] = []
    for step in manifest["funnel"]:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in ranked(step["excluded"]))
        gone = sum(step["excluded"].values())
        numbers = [step["in"], step["added"], step["matched"], gone, step["out"]]
        rows.append([step["step"], *(f"{number:,}" for number in numbers), reasons])
    changed = ", ".join(f"{name} {count:,}" for name, count in ranked(manifest["changed"]))
    head = ["step", "in", "added", "matched", "excluded", "out", "reasons"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell(item, 600) for item in row) + " |" for row in rows]
    return (
        "Unicode is mended (ftfy, NFC), HTML entities are read, control characters dropped. "
        "LoRA, hypernetwork and embedding calls become the column `networks`; attention weights, "
        "BREAK and AND are parsed into tags with weights. The raw texts stand beside the clean "
        "ones, personal data masked in both. Rows that are excluded are in `excluded.parquet` "
        "with the step and the reason.\n\n"
        + "\n".join(lines)
        + f"\n\nRows of the data set that cleaning changed, by kind: {changed or 'none'}.\n\n"
        f"Near-duplicates of prompts ({rule['near']} over {rule['sets']}) form "
        f"{manifest['clusters']['number']:,} clusters, found by MinHash "
        f"({rule['minhash']['permutations']} permutations) and checked exactly; "
        f"{manifest['clusters']['above_large_share']:,} clusters above "
        f"{percent(rule['large_cluster_share'])} of the rows went to training."
    )


def _splits(manifest: dict[str, Any], stats: dict[str, Any]) -> str:
    total = stats["total"] or 1
    rule = manifest["split_rule"]
    cap = rule["cap_same_negative"]
    evaluation = manifest["evaluation"]
    rows = [
        [split, f"{manifest['rows'][split]:,}", percent(manifest["rows"][split] / total)]
        for split in SPLITS
    ]
    lists = [[name, f"{count:,}"] for name, count in sorted(evaluation["lists"].items())]
    frozen = (
        "They were frozen before this build and did not grow."
        if evaluation["frozen"]
        else "They stay as they are when the data grows."
    )
    return (
        table(["split", "rows", "share"], rows)
        + "\n\nWhole clusters go to one split, by a hash of their texts, so neither order nor "
        "machine matters. After that an exact set-similarity join compares validation and test "
        "with everything, and rows that still come near another split are excluded. At most "
        f"{cap['rows']} rows, or {percent(cap['share'])} "
        "of the split if that is more, share one negative prompt in validation and in test.\n\n"
        f"Evaluation lists, version {evaluation['version']} "
        f"(`evaluation/v{evaluation['version']}.json`). {frozen}\n\n"
        + table(["list", "ids"], lists)
        + "\n\nThe quality lists are drawn from test, stratified by tags, safe for work, one row a "
        "cluster."
    )  # fmt: skip


def _figures(manifest: dict[str, Any], stats: dict[str, Any]) -> str:
    name = manifest["name"]
    lengths = [
        [measure, *(f"{values.get(key, 0):,.1f}" for key in ("mean", "p5", "median", "p95", "max"))]
        for measure, values in sorted(stats["lengths"].items())
    ]
    flags = stats["flags"]
    negatives = stats["negatives"]
    total = stats["total"] or 1
    languages = [[code, f"{n:,}", percent(n / total)] for code, n in
                 ranked(stats["language"])[:10]]  # fmt: skip
    parts = [
        f"![Lengths]({name}/lengths.png)",
        table(["measure", "mean", "5 %", "median", "95 %", "most"], lengths),
        f"![Commonest tags]({name}/tags.png)",
        f"![Tags per year]({name}/years.png)",
        "**Universal lists.** "
        f"{percent(flags['universal']['share'])} of the rows ({flags['universal']['rows']:,}) have "
        f"a negative prompt that stands on {negatives['universal_from']} rows or more; there are "
        f"{negatives['distinct']:,} distinct negative prompts, "
        f"{negatives['on several rows']:,} of them that common.",
    ]
    if negatives["commonest"]:
        parts.append(table(["commonest negative prompts", "rows"], negatives["commonest"]))
    nsfw = ", ".join(f"{by} {n:,}" for by, n in ranked(stats["nsfw_by"]))
    parts += [
        f"**Not safe for work.** {flags['nsfw']['rows']:,} rows "
        f"({percent(flags['nsfw']['share'])}), by {nsfw or 'no sign'}; a label from the source's "
        "flag and a short word list, so both kinds of mistake occur.",
        f"**Conflict.** {flags['tags in both']['rows']:,} rows "
        f"({percent(flags['tags in both']['share'])}) ask for a tag and forbid it. "
        f"**Weights.** {flags['weighted']['rows']:,} rows "
        f"({percent(flags['weighted']['share'])}) weigh a tag.",
        "**Languages of prompts**, by script and py3langid; short lists of tags count as English.",
        table(["language", "rows", "share"], languages),
    ]
    masked = ", ".join(f"{kind} {n:,}" for kind, n in ranked(stats["masked"]))
    parts.append(f"**Masked.** Rows with masked personal data: {masked or 'none'}.")
    return "\n\n".join(parts)


def intended_use() -> str:
    """What the data is for, and what it must not be used for."""
    return (
        "For research on negative prompts: learning to write them, measuring what they do, "
        "benchmarks of text-to-image guidance. The evaluation lists are for reporting results; do "
        "not train on them.\n\n"
        "Not for finding out who wrote a prompt, not for training generators of sexual or hateful "
        "pictures, not as a measure of what people in general want: it holds the habits of the "
        "sites it is from. Negative prompts name bodies, ages and looks as defects; a model "
        "that learns from them learns these judgements too."
    )


def _verify(manifest: dict[str, Any]) -> str:
    return (
        "```bash\nnegbench db check DIR\n```\n\n```python\nimport negbench\n"
        'rows = negbench.load_db("DIR", split="test")  # a polars DataFrame\n'
        'import datasets\nrows = datasets.load_dataset("DIR")\n```'
    )
