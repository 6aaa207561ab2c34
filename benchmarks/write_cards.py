"""Write the cards of data_cards/ again: the miniature's, those known by public facts, case sets'.

python benchmarks/write_cards.py
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from negbench.database.build import build_db
from negbench.database.config import BuildConfig
from negbench.database.known_cards import write_known
from negbench.database.manifest import to_bytes
from negbench.protocols.case_cards import write_case_cards

FOLDER = Path(__file__).resolve().parent.parent / "data_cards"


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        built = build_db(BuildConfig(out=Path(work) / "db"))
        shutil.copytree(built.folder / "data_cards", FOLDER, dirs_exist_ok=True)
        manifest = json.loads((built.folder / "manifest.json").read_text(encoding="utf-8"))
    (FOLDER / "miniature.manifest.json").write_bytes(to_bytes(manifest))
    write_known("npdb", FOLDER)
    write_case_cards(FOLDER)
    print(f"cards in {FOLDER}: {', '.join(sorted(p.name for p in FOLDER.glob('*.md')))}")


if __name__ == "__main__":
    main()
