"""Cards of data sets that cannot be passed on: what is public of them, and what is not computed."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from negbench.database.card import front_matter, intended_use, table
from negbench.database.manifest import to_bytes
from negbench.database.rows import SPLITS
from negbench.database.schema import COLUMNS
from negbench.database.split import SplitRules, describe
from negbench.errors import UnknownNameError, did_you_mean

NOT_COMPUTED = (
    "rows of each split", "funnel", "lengths", "most frequent tags", "share of universal lists",
    "nsfw", "languages", "tags per year", "evaluation lists of ids",
)  # fmt: skip


def read_known(name: str) -> dict[str, Any]:
    """Public facts of a data set, each with its source.

    Raises:
        UnknownNameError: nothing is known under this name.
    """
    folder = files("negbench.database") / "known"
    names = [Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".toml")]
    if name not in names:
        raise UnknownNameError(f"no facts of a data set {name!r}; {did_you_mean(name, names)}")
    return tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))


def known_stats(known: dict[str, Any]) -> dict[str, Any]:
    """The figures file of such a data set: known values, and a list of what is not computed."""
    return {
        "schema_version": 1,
        "computed": False,
        "known": {fact["what"]: fact["value"] for fact in known["facts"]},
        "not_computed": list(NOT_COMPUTED),
    }


def known_card(known: dict[str, Any]) -> str:
    """The card: facts with their sources, how a build will be made, and nothing made up."""
    rule = describe(SplitRules())
    head = front_matter(known["name"], licence=None, languages=["en"], rows=None, synthetic=False)
    head = head.replace("- n<1K", f"- {known['size_category']}")
    facts = [[fact["what"], fact["value"], fact["source"]] for fact in known["facts"]]
    parts = [
        head,
        f"# {known['title']}",
        known["summary"],
        "## Origin",
        table(["fact", "value", "source"], facts),
        "## Licence, consent and terms",
        known["licence"],
        "## How it is made",
        f"```bash\nnegbench build-db --source {known['source']} --name {known['name']} "
        f"--out {known['name']}\n```\n\n"
        f"Cleaning, duplicates and splits follow the one rule of negbench ({rule['name']}): "
        f"near-duplicates of prompts ({rule['near']} over {rule['sets']}) form clusters, whole "
        "clusters go to one split by a hash of their texts, and an exact join removes what still "
        "comes near validation or test. The build writes the full card, with every figure, in the "
        "place of this one.",
        "## Not computed",
        "The data was not at hand when this card was written, so the following is left open: "
        + ", ".join(NOT_COMPUTED)
        + ".",
        "## Splits",
        "The published set has one split. A build gives "
        + ", ".join(f"{100 * rule['shares'][split]:.0f} % {split}" for split in SPLITS)
        + " of the clusters. Lists of ids of validation, test, quality-1k and quality-5k can be "
        "shared without the text (`evaluation/v1.json`, applied with `--evaluation`).",
        "## Intended use, and misuse",
        intended_use(),
        "## Columns",
        table(["column", "type", "meaning"], [list(column) for column in COLUMNS]),
    ]
    return "\n\n".join(parts) + "\n"


def write_known(name: str, folder: Path) -> None:
    """Write card and figures of a data set that is known by its public facts alone."""
    known = read_known(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(known_card(known), encoding="utf-8")
    (folder / f"{name}.stats.json").write_bytes(to_bytes(known_stats(known)))
