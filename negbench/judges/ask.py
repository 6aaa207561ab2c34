"""Asking a judge about many images: features from the cache, dear verdicts kept one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from negbench.errors import NegbenchError, PluginError, one_line
from negbench.judges.base import Judge, Question, Verdict
from negbench.judges.transformers_files import choose_device
from negbench.metrics.base import Features, Network
from negbench.store import FeatureStore, default_cache, text_key


def ask(
    judge: Judge, questions: Sequence[Question], *, cache: Path | None = None, device: str = "auto"
) -> list[Verdict]:
    """Verdicts on all questions, in order; what was computed before is not computed again.

    Args:
        judge: from `negbench.judges.build_judge`.
        questions: their features may be empty; those of the judge's networks are added.
        cache: negbench's cache of features and verdicts; None for the default one.
        device: where networks compute: ``auto``, ``cpu``, ``cuda:1`` ...

    Raises:
        PluginError: the judge failed or broke its contract; verdicts kept so far stay.
        NegbenchError: what the judge itself refuses.
    """
    return Inquiry(judge, cache=cache, device=device).ask(questions)


class Inquiry:
    """A judge with the features and verdicts of a cache, for many calls of `ask`.

    Args:
        judge: from `negbench.judges.build_judge`.
        cache: negbench's cache of features and verdicts; None for the default one.
        device: where networks compute: ``auto``, ``cpu``, ``cuda:1`` ...
    """

    def __init__(self, judge: Judge, *, cache: Path | None = None, device: str = "auto") -> None:
        where = cache or default_cache()
        judge.prepare(device=device, cache=where)
        self.judge = judge
        self._networks = dict(judge.networks())
        for network in self._networks.values():
            network.place(choose_device(device))
        self._images = {
            label: FeatureStore(where, network.ref()) for label, network in self._networks.items()
        }
        self._cache = where
        self._texts: dict[str, FeatureStore] = {}

    def ask(self, questions: Sequence[Question]) -> list[Verdict]:
        """Verdicts on all questions, in order; see `ask`."""
        return answer(self.judge, self._with_features(questions))

    def _with_features(self, questions: Sequence[Question]) -> list[Question]:
        found = list(questions)
        for label, network in self._networks.items():
            images = self._embedded(label, network, questions)
            texts = self._read(label, network, questions)
            for at, question in enumerate(found):
                known = {(label, text): texts[text] for text in self._wanted(label, question)}
                found[at] = replace(
                    question,
                    features={**question.features, label: images[question.image]},
                    text_features={**question.text_features, **known},
                )
        return found

    def _embedded(
        self, label: str, network: Network, questions: Sequence[Question]
    ) -> FeatureStore:
        store = self._images[label]
        pixels = {question.image: question.pixels for question in questions}
        missing = store.missing(pixels)
        if missing:
            store.put(missing, network.embed_images([pixels[key] for key in missing]))
        return store

    def _wanted(self, label: str, question: Question) -> list[str]:
        return [text for spec, text in self.judge.texts(question.concept) if spec == label]

    def _read(
        self, label: str, network: Network, questions: Sequence[Question]
    ) -> dict[str, Features]:
        wanted = {text_key(t): t for q in questions for t in self._wanted(label, q)}
        if not wanted:
            return {}
        if label not in self._texts:
            self._texts[label] = FeatureStore(self._cache, network.ref(), kind="text")
        store = self._texts[label]
        missing = store.missing(wanted)
        if missing:
            store.put(missing, network.embed_texts([wanted[key] for key in missing]))
        return {text: store[key] for key, text in wanted.items()}


def answer(judge: Judge, questions: Sequence[Question]) -> list[Verdict]:
    """Verdicts on questions that hold their features already, the judge's contract checked."""
    try:
        verdicts = judge.judge(questions)
    except (NegbenchError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise PluginError(
            f"judge {judge.name} failed: {type(error).__name__}: {one_line(str(error), limit=300)}"
        ) from error
    if len(verdicts) != len(questions) or not all(isinstance(v, Verdict) for v in verdicts):
        raise PluginError(
            f"judge {judge.name} gave {len(verdicts)} verdicts on {len(questions)} questions; it "
            "has to give one Verdict a question, in order"
        )
    return verdicts
