"""Lists of concepts to keep when recorded judgements are scored.

A concept is kept if it is in the list letter by letter: case, spaces, underscores and line ends
inside a cell all count. This is how the published removal numbers were made (a Python ``in``), and
anything looser would move them. What such a comparison loses is found by `loose_form`, and told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from negbench.errors import DataError, MissingError, UnknownNameError, did_you_mean

_COCO = """
person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|
parking meter|bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|
handbag|tie|suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|
skateboard|surfboard|tennis racket|bottle|wine glass|cup|fork|knife|spoon|bowl|banana|apple|
sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed|
dining table|toilet|tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|
refrigerator|book|clock|vase|scissors|teddy bear|hair dryer|toothbrush
"""

COCO = tuple(name.strip() for name in _COCO.replace("\n", "").split("|"))
"""The 80 classes of COCO. The last but one is spelled "hair dryer", as in the published filter;
COCO's own annotation files say "hair drier"."""

BUILT_IN = {
    "coco": COCO,
    "coco-underscored": tuple(name.replace(" ", "_") for name in COCO),
}
MAX_LIST_BYTES = 16_000_000


@dataclass(frozen=True)
class ConceptList:
    """Concepts to keep.

    Attributes:
        name: a built-in name, or the file's path.
        concepts: compared letter by letter.
    """

    name: str
    concepts: frozenset[str]

    def near_misses(self, concepts: Iterable[str]) -> list[str]:
        """Those of `concepts` that only case, spaces or underscores keep off the list, sorted."""
        loose = {loose_form(concept) for concept in self.concepts}
        return sorted(
            concept for concept in set(concepts) - self.concepts if loose_form(concept) in loose
        )


def loose_form(concept: str) -> str:
    """Lower case, underscores as spaces, one space between words, none around them."""
    return " ".join(concept.casefold().replace("_", " ").split())


def load_concepts(name: str) -> ConceptList:
    """A built-in list by its name (`coco`, `coco-underscored`), or else a file's.

    A file is UTF-8 text with one concept a line; blank lines, a byte order mark and spaces around
    a concept are dropped. ``./coco`` is a file of that name.

    Raises:
        UnknownNameError: neither a list nor a file.
        DataError: the file is not UTF-8 text, too large, or holds no concept.
    """
    if name in BUILT_IN:
        return ConceptList(name, frozenset(BUILT_IN[name]))
    path = Path(name)
    if not path.exists():
        raise UnknownNameError(
            f"no list of concepts and no file {name!r}; built in: {', '.join(BUILT_IN)}; "
            f"{did_you_mean(name, BUILT_IN)}"
        )
    if path.is_dir():
        raise MissingError(f"{name} is a folder; give a text file with one concept a line")
    data = path.read_bytes()[: MAX_LIST_BYTES + 1]
    if len(data) > MAX_LIST_BYTES:
        raise DataError(f"{name} is larger than {MAX_LIST_BYTES} bytes; is it a list of concepts?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{name}, line {line}: not UTF-8; save the file as UTF-8") from error
    concepts = frozenset(line.strip() for line in text.splitlines() if line.strip())
    if not concepts:
        raise DataError(f"{name} holds no concept; write one a line")
    return ConceptList(name, concepts)
