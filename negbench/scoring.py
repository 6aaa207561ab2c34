"""Scoring: one pass of each network over each image, one score a metric and image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from negbench.drawing import Drawing
from negbench.errors import NegbenchError, PluginError, one_line
from negbench.metrics.base import ImageMetric, Item, Network, SetMetric
from negbench.plan import Resolved
from negbench.record import ImageResult, Sample
from negbench.requests import Wanted
from negbench.store import FeatureStore, ScoreStore, pixel_digest, text_key
from negbench.types import Score

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHUNK = 128
"""Images scored together; memory holds the pixels of at most this many."""


class Scoring:
    """Scores samples: one pass of each network over each image, one score a metric and image."""

    def __init__(self, resolved: Resolved, drawing: Drawing) -> None:
        self.resolved = resolved
        self.drawing = drawing
        self.scores = ScoreStore(resolved.cache)
        self.digests = {name: ref.digest() for name, ref in resolved.metric_refs.items()}
        self.networks: dict[str, Network] = {}
        self.local: dict[tuple[str, str], str] = {}
        for name, metric in resolved.metrics.items():
            for label, network in metric.networks().items():
                digest = network.ref().digest()
                self.networks.setdefault(digest, network)
                self.local[name, label] = digest
        if self.networks:
            from negbench.generators.choices import choose_device

            device = choose_device(resolved.options.device)
            for network in self.networks.values():
                network.place(device)
        for metric in resolved.metrics.values():
            metric.prepare(device=resolved.options.device, cache=resolved.cache)
        self.images = {
            digest: FeatureStore(resolved.cache, network.ref())
            for digest, network in self.networks.items()
        }
        self.texts: dict[str, FeatureStore] = {}

    def score(
        self, todo: Sequence[Wanted], rows: Mapping[str, FeatureStore]
    ) -> Iterator[list[Sample]]:
        """Scored samples, of about `CHUNK` images at a time.

        Args:
            todo: samples whose images are drawn.
            rows: for each set metric, where to keep what each image adds.

        Raises:
            NegbenchError: a metric failed; scores made so far are kept.
        """
        size = max(1, CHUNK // max((len(wanted.keys()) for wanted in todo), default=1))
        for start in range(0, len(todo), size):
            yield self._chunk(todo[start : start + size], rows)

    def _chunk(self, chunk: Sequence[Wanted], rows: Mapping[str, FeatureStore]) -> list[Sample]:
        pixels: dict[str, npt.NDArray[np.uint8]] = {}
        for wanted in chunk:
            for key in wanted.keys().values():
                if key not in pixels:
                    pixels[key] = self.drawing.pixels(key)
        stored = self.drawing.stored
        digests = {key: stored[key].image for key in pixels}
        by_digest = {digests[key]: array for key, array in pixels.items()}
        self._embed_images(by_digest)
        places = [(w, side, key) for w in chunk for side, key in w.keys().items()]
        items = [self._item(w, side, key, pixels) for w, side, key in places]
        self._embed_texts(items)
        scored: list[dict[str, Score]] = [{} for _ in items]
        for name, metric in self.resolved.metrics.items():
            ready = [self._with_features(name, item) for item in items]
            if isinstance(metric, SetMetric):
                self._keep_rows(metric, ready, rows[name])
            elif isinstance(metric, ImageMetric):
                for scores, score in zip(scored, self._scores_of(name, metric, ready), strict=True):
                    scores[name] = score
        by_sample: dict[tuple[str, int], dict[str, dict[str, Score]]] = {}
        for (wanted, side, _), scores in zip(places, scored, strict=True):
            by_sample.setdefault(wanted.id, {})[side] = scores
        return [self._sample(wanted, by_sample[wanted.id]) for wanted in chunk]

    def _item(self, wanted: Wanted, side: str, key: str, pixels: dict[str, Any]) -> Item:
        rival = wanted.arm_keys.get("all_steps") if side == "treated" else None
        return Item(
            image=self.drawing.stored[key].image,
            pixels=pixels[key],
            case=wanted.case,
            negative=wanted.treatment.negative_text(),
            twin=None if side == "twin" else pixels[wanted.twin_key],
            rival=None if rival is None else pixels[rival],
            evaluations=self.drawing.stored[key].evaluations,
        )

    def _embed_images(self, by_digest: dict[str, Any]) -> None:
        for digest, network in self.networks.items():
            store = self.images[digest]
            missing = store.missing(by_digest)
            if missing:
                store.put(missing, network.embed_images([by_digest[key] for key in missing]))

    def _embed_texts(self, items: Iterable[Item]) -> None:
        wanted: dict[str, dict[str, str]] = {}
        for item in items:
            for name, metric in self.resolved.metrics.items():
                for label, text in metric.texts(item.case, item.negative):
                    wanted.setdefault(self.local[name, label], {})[text_key(text)] = text
        for digest, texts in wanted.items():
            network = self.networks[digest]
            if digest not in self.texts:
                self.texts[digest] = FeatureStore(self.resolved.cache, network.ref(), kind="text")
            missing = self.texts[digest].missing(texts)
            if missing:
                self.texts[digest].put(
                    missing, network.embed_texts([texts[key] for key in missing])
                )

    def _with_features(self, name: str, item: Item) -> Item:
        metric = self.resolved.metrics[name]
        features = {
            label: self.images[self.local[name, label]][item.image] for label in metric.networks()
        }
        texts = {
            (label, text): self.texts[self.local[name, label]][text_key(text)]
            for label, text in metric.texts(item.case, item.negative)
        }
        return replace(item, features=features, text_features=texts)

    def _keep_rows(self, metric: SetMetric, items: Sequence[Item], store: FeatureStore) -> None:
        new = {item.image: item for item in items if item.image not in store}
        if new:
            store.put(list(new), metric.rows(list(new.values())))

    def _scores_of(self, name: str, metric: ImageMetric, items: Sequence[Item]) -> list[Score]:
        digest = self.digests[name]
        keys = [
            self.scores.key(
                digest,
                item.image,
                _compared_with(metric, item),
                f"{item.case.prompt}\0{item.case.concept or ''}\0{item.evaluations}",
                item.negative,
            )
            for item in items
        ]
        known = [self.scores.get(key) for key in keys]
        todo = {keys[i]: items[i] for i, score in enumerate(known) if score is None}
        if todo:
            fresh = self._fresh_scores(name, metric, list(todo.values()))
            for key, score in zip(todo, fresh, strict=True):
                self.scores.put(key, score)
            known = [self.scores.get(key) for key in keys]
        return [score for score in known if score is not None]

    def _fresh_scores(self, name: str, metric: ImageMetric, items: Sequence[Item]) -> list[Score]:
        try:
            fresh = metric.score(items)
        except NegbenchError:
            raise
        except Exception as error:
            raise PluginError(
                f"metric {name} failed: {type(error).__name__}: "
                f"{one_line(str(error), limit=300)} (scores made so far are kept)"
            ) from error
        if len(fresh) != len(items) or not all(isinstance(score, Score) for score in fresh):
            raise PluginError(
                f"metric {name} gave {len(fresh)} scores for {len(items)} images; "
                "it has to give one Score an item, in order"
            )
        return fresh

    def _sample(self, wanted: Wanted, scores: dict[str, dict[str, Score]]) -> Sample:
        results = {}
        for side, key in wanted.keys().items():
            stored = self.drawing.stored[key]
            results[side] = ImageResult(
                key=key,
                image=stored.image,
                evaluations=stored.evaluations,
                facts=stored.facts,
                scores=scores[side],
            )
        return Sample(
            case=wanted.case.id,
            replicate=wanted.replicate,
            seed=wanted.seed,
            prompt=wanted.case.prompt,
            concept=wanted.case.concept,
            tags=wanted.case.tags,
            treatment=wanted.treatment,
            treated=results.pop("treated"),
            twin=results.pop("twin"),
            arms=results,
            placebo=wanted.placebo,
            metrics=self.digests,
        )


def _compared_with(metric: ImageMetric, item: Item) -> str | None:
    """Digests of the other pictures that a score depends on, or None."""
    others = [(metric.needs_twin, item.twin), (metric.needs_rival, item.rival)]
    digests = [pixel_digest(other) for needed, other in others if needed and other is not None]
    return "+".join(digests) or None
