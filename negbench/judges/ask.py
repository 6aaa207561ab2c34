"""Asking a judge about many images: features from the cache, dear verdicts kept one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from negbench.errors import NegbenchError, PluginError, one_line
from negbench.judges.base import Judge, Question, Verdict
from negbench.judges.transformers_files import choose_device
from negbench.metrics.base import Network
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
    where = cache or default_cache()
    judge.prepare(device=device, cache=where)
    return answer(judge, _with_features(judge, questions, where, device))


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


def _with_features(
    judge: Judge, questions: Sequence[Question], cache: Path, device: str
) -> list[Question]:
    found = list(questions)
    for label, network in judge.networks().items():
        network.place(choose_device(device))
        images = _stored_images(network, questions, cache)
        texts = _stored_texts(network, label, judge, questions, cache)
        for at, question in enumerate(found):
            wanted = [t for spec, t in judge.texts(question.concept) if spec == label]
            found[at] = replace(
                question,
                features={**question.features, label: images[question.image]},
                text_features={
                    **question.text_features,
                    **{(label, text): texts[text_key(text)] for text in wanted},
                },
            )
    return found


def _stored_images(network: Network, questions: Sequence[Question], cache: Path) -> FeatureStore:
    store = FeatureStore(cache, network.ref())
    pixels = {question.image: question.pixels for question in questions}
    missing = store.missing(pixels)
    if missing:
        store.put(missing, network.embed_images([pixels[key] for key in missing]))
    return store


def _stored_texts(
    network: Network, label: str, judge: Judge, questions: Iterable[Question], cache: Path
) -> FeatureStore:
    store = FeatureStore(cache, network.ref(), kind="text")
    concepts = dict.fromkeys(question.concept for question in questions)
    texts = {
        text_key(text): text
        for concept in concepts
        for spec, text in judge.texts(concept)
        if spec == label
    }
    missing = store.missing(texts)
    if missing:
        store.put(missing, network.embed_texts([texts[key] for key in missing]))
    return store
