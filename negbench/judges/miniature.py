"""The miniature's judge: a small classifier of everything its drawn world can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from negbench.errors import one_line
from negbench.judges.base import PRESENT_FROM, Judge, Question, Verdict
from negbench.metrics import networks
from negbench.metrics.base import Network, Pixels

SPEC = "judge:miniature"
ARTICLES = frozenset({"a", "an", "the", "some"})


class MiniatureJudge(Judge):
    """The presence classifier that comes with negbench: the logistic of one logit a label.

    A concept is a phrase of the miniature's word list (``glasses``, ``spectacles``, ``a top hat``);
    any other is unscored, with the reason. Probability 0.5 is logit 0, where the classifier's
    thresholds were put when it was trained.
    """

    def networks(self) -> Mapping[str, Network]:
        """The classifier."""
        return {SPEC: networks.get(SPEC)}

    def _labels(self) -> tuple[str, ...]:
        from negbench.metrics.classifiers import Judge as Classifier

        network = networks.get(SPEC)
        assert isinstance(network, Classifier)
        return network.labels

    def vocabulary(self) -> Sequence[str]:
        """The classifier's labels."""
        return self._labels()

    def label_of(self, concept: str) -> str | None:
        """The label that a phrase means, or None: case, articles and a plural s do not matter."""
        from negbench.miniature.captions import CONCEPT_OF

        words = concept.casefold().replace("_", " ").split()
        while words and words[0] in ARTICLES:
            words = words[1:]
        phrase = " ".join(words)
        labels = self._labels()
        for form in (phrase, phrase.removesuffix("s")):
            label = form if form in labels else CONCEPT_OF.get(form)
            if label in labels:
                return label
        return None

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """The classifier's probability of each question's concept."""
        place = {label: i for i, label in enumerate(self._labels())}
        verdicts = []
        for question in questions:
            label = self.label_of(question.concept)
            if label is None:
                shown = repr(one_line(question.concept, limit=60))
                verdicts.append(Verdict.missing(f"the miniature's judge does not know {shown}"))
                continue
            verdicts.append(Verdict.of(float(question.features[SPEC][place[label]])))
        return verdicts

    def list_concepts(self, images: Sequence[Pixels]) -> list[Verdict | tuple[str, ...]]:
        """The labels whose probability is above one half, in the classifier's order."""
        rows = networks.get(SPEC).embed_images(images)
        labels = np.asarray(self._labels())
        return [tuple(str(x) for x in labels[row > PRESENT_FROM]) for row in rows]
