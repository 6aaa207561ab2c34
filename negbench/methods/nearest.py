"""The negative prompt of the training prompt that is most like the case's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from negbench.methods.base import Method
from negbench.methods.texts import training_pairs, treatment
from negbench.types import Case, Treatment

_WORD = re.compile(r"\w+")
_ROWS = 32


class Nearest(Method):
    """Retrieval: the negative prompt of the nearest training prompt.

    Nearness is the cosine of TF-IDF vectors over words (lower case, raw counts, smooth idf
    ln((1 + n) / (1 + df)) + 1). Of equally near prompts the one with the smallest id is taken;
    a prompt that shares no word with any training prompt gets no negative prompt.
    """

    uses_training = True
    cacheable = True

    def check(self) -> None:
        """Refuse a benchmark without training pairs."""
        training_pairs(self, name="nearest")

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """The nearest training prompt's negative for each case."""
        import numpy as np

        pairs = sorted(training_pairs(self, name="nearest"), key=lambda pair: pair.id)
        known = [words_of(pair.prompt) for pair in pairs]
        vocabulary = {word: i for i, word in enumerate(sorted({w for ws in known for w in ws}))}
        frequency = Counter(word for words in known for word in words)
        idf = np.array([np.log((1 + len(pairs)) / (1 + frequency[w])) + 1 for w in vocabulary])
        index = _vectors(known, vocabulary, idf).T.tocsc()
        asked = _vectors([words_of(case.prompt) for case in cases], vocabulary, idf)
        chosen: list[str] = []
        for start in range(0, len(cases), _ROWS):
            # rounding makes ties of equal texts exact; argmax takes the first, the smallest id
            cosine = np.round((asked[start : start + _ROWS] @ index).toarray(), 9)
            best = cosine.argmax(axis=1)
            nearness = cosine[np.arange(len(best)), best]
            chosen += [
                pairs[i].negative if c > 0 else "" for i, c in zip(best, nearness, strict=True)
            ]
        return [treatment(case, text) for case, text in zip(cases, chosen, strict=True)]

    def notes(self, cases: Sequence[Case]) -> list[str]:
        """How many prompts share no word with a training prompt."""
        known = {w for pair in training_pairs(self, name="nearest") for w in words_of(pair.prompt)}
        strangers = sum(known.isdisjoint(words_of(case.prompt)) for case in cases)
        if not strangers:
            return []
        return [
            f"nearest: {strangers} of {len(cases)} prompts share no word with a training prompt"
        ]


def words_of(text: str) -> Counter[str]:
    """Lower-case words of a text and how often each occurs."""
    return Counter(_WORD.findall(text.casefold()))


def _vectors(texts: Sequence[Counter[str]], vocabulary: dict[str, int], idf: Any) -> Any:
    """Unit-length TF-IDF rows, sparse float64 (texts, words); unknown words are left out."""
    import numpy as np
    from scipy.sparse import csr_matrix

    data: list[float] = []
    columns: list[int] = []
    ends = [0]
    for words in texts:
        known = sorted((vocabulary[w], count) for w, count in words.items() if w in vocabulary)
        weights = np.array([count * idf[column] for column, count in known], dtype=np.float64)
        length = float(np.sqrt((weights**2).sum()))
        data += list(weights / length) if length > 0 else []
        columns += [column for column, _ in known]
        ends.append(len(columns))
    return csr_matrix((data, columns, ends), shape=(len(texts), len(vocabulary)), dtype=np.float64)
