"""A vision language model as a judge: behind an OpenAI-compatible endpoint, or loaded here."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from negbench.errors import ConfigError, MissingError
from negbench.judges import answers as said
from negbench.judges.base import Comparison, Question, Verdict
from negbench.judges.endpoint import Endpoint, NoAnswerError, check_address, is_near, read_key
from negbench.judges.kept import KeptJudge
from negbench.judges.local_vlm import LocalModel
from negbench.judges.transformers_files import ModelFiles
from negbench.metrics.base import Pixels
from negbench.metrics.clip import is_blank
from negbench.metrics.networks import check_pixels
from negbench.store import pixel_digest
from negbench.types import Ref

T = TypeVar("T")

MAX_CONCEPT = 1000
GIVE_UP_AFTER = 5
"""Questions without an answer, one after the other, after which no more are asked."""


class VlmJudge(KeptJudge):
    """A vision language model that is asked one question about one picture at a time.

    With `base_url` any endpoint that speaks OpenAI's chat completions: the answer is yes or no, so
    the probability is 1 or 0. Without it an image-text model of transformers, from safetensors
    only: P = p(yes) / (p(yes) + p(no)) over the next word (compare VQAScore, 2404.01291).
    Refusals and malformed answers are asked again a few times, then unscored with the reason.
    Every answer is kept as it comes. The key is read from the environment and written nowhere.
    """

    compares: ClassVar[bool] = True

    class Config(BaseModel):
        """Which model, where, and how patiently."""

        model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

        model: str = Field(
            default="",
            description="the model's name at the endpoint; without base_url a folder or a hub "
            "repo org/name[@revision] of an image-text model",
        )
        base_url: str | None = Field(
            default=None, description="the endpoint, for example https://api.openai.com/v1"
        )
        key_env: str | None = Field(
            default=None,
            description="NAME of the environment variable that holds the endpoint's key, for "
            "example OPENAI_API_KEY; never the key itself",
        )
        temperature: float | None = Field(
            default=0.0, ge=0, le=2, description="of the endpoint's model; none: do not send one"
        )
        max_tokens: int = Field(default=300, ge=1, description="most tokens of an answer")
        token_field: Literal["max_tokens", "max_completion_tokens"] = Field(
            default="max_tokens", description="what the endpoint calls max_tokens"
        )
        detail: Literal["low", "high", "auto"] | None = Field(
            default=None, description="resolution the endpoint reads pictures at"
        )
        ask_again: int = Field(
            default=2, ge=0, le=20, description="times a refused or malformed answer is asked again"
        )
        timeout: float = Field(default=60.0, gt=0, description="seconds a try may take in all")
        tries: int = Field(
            default=6, ge=1, le=50, description="tries a question if the endpoint fails or is busy"
        )
        first_wait: float = Field(
            default=1.0, ge=0, description="seconds before the second try, doubled for each further"
        )
        longest_wait: float = Field(
            default=60.0, ge=0, description="most seconds before a try, whatever the server asks"
        )
        parallel: int = Field(default=4, ge=1, le=64, description="questions asked at a time")
        unanswered: Literal["stop", "unscored"] = Field(
            default="stop",
            description="a question without any answer: stop, so that the same command asks again, "
            "or go on with an unscored verdict",
        )
        price_in: float | None = Field(
            default=None, ge=0, description="price of a million prompt tokens, to count the cost"
        )
        price_out: float | None = Field(
            default=None, ge=0, description="price of a million completion tokens"
        )

        @field_validator("temperature", mode="before")
        @classmethod
        def _none_is_a_word(cls, value: Any) -> Any:
            return None if value == "none" else value

    def _config(self) -> VlmJudge.Config:
        assert isinstance(self.config, VlmJudge.Config)
        return self.config

    @cached_property
    def files(self) -> ModelFiles:
        """The local model's files."""
        return ModelFiles.of_judge("vlm", self._config().model)

    @cached_property
    def endpoint(self) -> Endpoint:
        """The endpoint."""
        config = self._config()
        options: dict[str, Any] = {config.token_field: config.max_tokens}
        if config.temperature is not None:
            options["temperature"] = config.temperature
        return Endpoint(
            config.base_url or "",
            config.model,
            key_env=config.key_env,
            timeout=config.timeout,
            tries=config.tries,
            first_wait=config.first_wait,
            longest_wait=config.longest_wait,
            options=options,
        )

    @cached_property
    def local(self) -> LocalModel:
        """The local model."""
        return LocalModel(self.files, self.device)

    def check(self) -> None:
        """Refuse if the model, the address or the key are not at hand; asks nobody anything."""
        config = self._config()
        if not config.model:
            raise ConfigError(
                "judge vlm: which model? give model=NAME with base_url=https://..., or "
                "model=org/name for one that is loaded here"
            )
        if config.base_url is None:
            if config.key_env is not None:
                raise ConfigError("judge vlm: key_env needs base_url; give the endpoint's address")
            LocalModel.check(self.files)
            return
        check_address(config.base_url, with_key=config.key_env is not None)
        read_key(config.key_env)

    def prefetch(self) -> None:
        """Fetch a local model into the Hugging Face cache; an endpoint needs nothing."""
        if self._config().base_url is None:
            self.files.fetch()

    def ref(self) -> Ref:
        """What determines the answers: the model (by digest where it is loaded here), how it asks.

        An endpoint is known by its host, unless that is this machine or its network, and the
        model's name there.
        """
        config = self._config()
        params: dict[str, Any] = {"questions": said.VERSION}
        if config.base_url is None:
            params |= {"weights": [self.files.digest()]}
        else:
            host = urlsplit(config.base_url).hostname or ""
            params |= {
                "host": None if is_near(host) else host,
                "model": config.model,
                "temperature": config.temperature,
                "max_tokens": config.max_tokens,
                "detail": config.detail,
                "ask_again": config.ask_again,
            }
        return Ref(name=self.name, version=self.version, params=params)

    def cost(self) -> Mapping[str, float]:
        """What this judge has spent in this process: requests, answers, tokens, and the price."""
        config = self._config()
        if config.base_url is None:
            return {}
        spent: dict[str, float] = dict(self.endpoint.spent.as_dict())
        if config.price_in is not None or config.price_out is not None:
            spent["price"] = 1e-6 * (
                spent["prompt_tokens"] * (config.price_in or 0)
                + spent["completion_tokens"] * (config.price_out or 0)
            )
        return spent

    def answers(
        self, questions: Sequence[Question]
    ) -> Iterator[tuple[int, Verdict, Mapping[str, Any]]]:
        """Asks the model; verdicts come in the order in which answers do."""

        def one(question: Question) -> tuple[Verdict, Mapping[str, Any]]:
            if is_blank(question.concept):
                return Verdict.missing("the concept is empty"), {}
            if len(question.concept) > MAX_CONCEPT:
                return Verdict.missing(f"the concept has more than {MAX_CONCEPT} characters"), {}
            if self._config().base_url is None:
                return self.local.presence(question.pixels, question.concept), {}
            text = said.presence_question(question.concept)
            value, why, about = self._put(text, [question.pixels], said.read_presence)
            if value is None:
                return Verdict.missing(why), about
            return Verdict.of(float(value)), about

        for place, (verdict, about) in self._all(one, questions):
            yield place, verdict, about

    def compare(self, triples: Sequence[tuple[Pixels, Pixels, Pixels]]) -> list[Comparison]:
        """Which of two images is closer to the first of each triple, asked in both orders.

        A verdict that flips with the order counts one half for each image.
        """
        orders = [
            order
            for reference, first, second in triples
            for order in ((reference, first, second), (reference, second, first))
        ]
        store = self.store()
        keys = [store.key("closer", *(pixel_digest(image) for image in order)) for order in orders]
        todo = {key: order for key, order in zip(keys, orders, strict=True) if not store.get(key)}

        def one(order: tuple[Pixels, Pixels, Pixels]) -> tuple[str | None, str, Mapping[str, Any]]:
            if self._config().base_url is None:
                word, why = self.local.closer(order)
                return word, why, {}
            return self._put(said.COMPARISON_QUESTION, order, said.read_closer)

        missing = list(todo)
        for place, (word, why, about) in self._all(one, list(todo.values())):
            found = {"closer": word} if word is not None else {"unscored": why}
            store.put(missing[place], {**about, **found})
        lines = [store.get(key) or {"unscored": "the judge gave no answer"} for key in keys]
        return [_joined(lines[i], lines[i + 1]) for i in range(0, len(lines), 2)]

    def list_concepts(self, images: Sequence[Pixels]) -> list[Verdict | tuple[str, ...]]:
        """For each image what the model names of its own accord, or the reason why nothing."""
        store = self.store()
        keys = [store.key("list", pixel_digest(image)) for image in images]
        todo = {key: image for key, image in zip(keys, images, strict=True) if not store.get(key)}

        def one(image: Pixels) -> tuple[tuple[str, ...] | None, str, Mapping[str, Any]]:
            if self._config().base_url is None:
                text = self.local.generate([image], said.LIST_QUESTION, self._config().max_tokens)
                words = said.read_concepts(text)
                return words, f"malformed answer {said.shown(text)}", {}
            return self._put(said.LIST_QUESTION, [image], said.read_concepts)

        missing = list(todo)
        for place, (words, why, about) in self._all(one, list(todo.values())):
            found = {"unscored": why} if words is None else {"concepts": list(words)}
            store.put(missing[place], {**about, **found})
        listed: list[Verdict | tuple[str, ...]] = []
        for key in keys:
            line = store.get(key) or {"unscored": "the judge gave no answer"}
            words = line.get("concepts")
            listed.append(
                Verdict.missing(str(line.get("unscored"))) if words is None else tuple(words)
            )
        return listed

    def _put(
        self, text: str, images: Sequence[Pixels], read: Callable[[str], T | None]
    ) -> tuple[T | None, str, Mapping[str, Any]]:
        """Put a question to the endpoint until its answer can be read: value, reason, facts."""
        detail = {} if self._config().detail is None else {"detail": self._config().detail}
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        content += [
            {"type": "image_url", "image_url": {"url": _data_url(image), **detail}}
            for image in images
        ]
        about = {"tries": 0, "prompt_tokens": 0, "completion_tokens": 0}
        why = "no answer"
        for _ in range(1 + self._config().ask_again):
            reply = self.endpoint.ask(content)
            about["tries"] += reply.tries
            about["prompt_tokens"] += reply.prompt_tokens
            about["completion_tokens"] += reply.completion_tokens
            if reply.text is None:
                why = f"the model refused: {said.shown(reply.refused or '')}"
                continue
            value = read(reply.text)
            if value is not None:
                return value, "", about
            if said.is_refusal(reply.text):
                why = f"the model refused: {said.shown(reply.text)}"
            else:
                why = f"malformed answer {said.shown(reply.text)}"
        return None, why, about

    def _all(self, one: Callable[[Any], T], asked: Sequence[Any]) -> Iterator[tuple[int, T]]:
        """`one` of each of `asked`, several at a time at an endpoint, as results come.

        Raises:
            MissingError: some got no answer, after all others got theirs; or too many in a row.
        """
        if self._config().base_url is None:
            for place, item in enumerate(asked):
                yield place, one(item)
            return
        from concurrent.futures import ThreadPoolExecutor, as_completed

        ended = threading.Event()

        def unless_ended(item: Any) -> T:
            """What the user has to mend ends the asking in the thread that meets it, at once."""
            if ended.is_set():
                raise NoAnswerError("asking was stopped")
            try:
                return one(item)
            except NoAnswerError:
                raise
            except BaseException:
                ended.set()
                raise

        pool = ThreadPoolExecutor(max_workers=self._config().parallel)
        places = {pool.submit(unless_ended, item): place for place, item in enumerate(asked)}
        failed, in_a_row, last = 0, 0, ""
        try:
            for future in as_completed(places):
                try:
                    result = future.result()
                except NoAnswerError as error:
                    if ended.is_set():
                        continue  # the error that ended it is among the others
                    failed, in_a_row, last = failed + 1, in_a_row + 1, str(error)
                    if in_a_row >= GIVE_UP_AFTER:
                        raise MissingError(
                            f"judge vlm: {in_a_row} questions in a row got no answer ({last}); "
                            "answers so far are kept, give the same command again later"
                        ) from None
                    continue
                in_a_row = 0
                yield places[future], result
        finally:
            self.endpoint.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            self.endpoint.close()
        if failed and self._config().unanswered == "stop":
            raise MissingError(
                f"judge vlm: {failed} of {len(asked)} questions got no answer ({last}); the other "
                "answers are kept, the same command asks again (unanswered=unscored goes on "
                "without them)"
            )


def _data_url(image: Pixels) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(check_pixels(image))).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> Comparison:
    """Answers to (reference, first, second) and to (reference, second, first) as one."""
    for line in (one, other):
        if line.get("closer") not in ("second", "third"):
            return Comparison(unscored=str(line.get("unscored") or "no answer"))
    first = (one["closer"] == "second") + (other["closer"] == "third")
    return Comparison(first=first / 2, flipped=first == 1)
