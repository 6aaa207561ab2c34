"""A language model writes the negative prompt: one of transformers, or behind an HTTP endpoint.

The model sees a template with examples from the training split and answers with tags. Answers of
an endpoint are kept by what was asked, since it may answer otherwise next time and may cost money.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from negbench.errors import ConfigError, DataError, MissingError, NegbenchError, one_line
from negbench.files import read_json, write_json
from negbench.methods.base import Method, Pair
from negbench.methods.texts import tidied, training_pairs, treatment
from negbench.types import Case, Ref, Treatment, canonical_json, sha256_hex

TEMPLATE = (
    "A negative prompt lists, separated by commas, what a picture should not show. Write one for "
    "the last prompt, in the manner of the examples, and nothing else.\n\n{examples}"
    "Prompt: {prompt}\nNegative prompt:"
)
MAX_BODY = 1_000_000
_ADDRESS = re.compile(r"https?://[^\s@/]+(/\S*)?")
WAITS = (1.0, 2.0, 4.0, 8.0)
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class Llm(Method):
    """A language model, few-shot from the training split."""

    uses_training = True

    class Config(BaseModel):
        """Which model, and how it is asked."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        model: str = Field(
            min_length=1,
            description="causal model: folder or org/name[@revision]; or its name at endpoint=",
        )
        endpoint: str | None = Field(
            default=None, description="OpenAI-compatible base address, such as https://host/v1"
        )
        key_env: str = Field(
            default="OPENAI_API_KEY",
            pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="environment variable that holds the endpoint's key; never written down",
        )
        shots: int = Field(default=6, ge=0, le=64, description="examples of the training split")
        template: str = Field(
            default=TEMPLATE, max_length=20_000, description="text with {examples} and {prompt}"
        )
        max_new_tokens: int = Field(default=80, ge=1, le=1024, description="longest answer")
        timeout: float = Field(default=60.0, gt=0, le=3600, description="seconds a request")

        @field_validator("template")
        @classmethod
        def _has_prompt(cls, value: str) -> str:
            if "{prompt}" not in value:
                raise ValueError("the template needs {prompt}")
            return value

        @model_validator(mode="after")
        def _an_address(self) -> Self:
            if self.endpoint is not None and not _ADDRESS.fullmatch(self.endpoint):
                raise ValueError("endpoint must be an http(s) address without a user or password")
            return self

    @property
    def _settings(self) -> Llm.Config:
        assert isinstance(self.config, Llm.Config)
        return self.config

    def check(self) -> None:
        """Refuse a model that is not here, or an endpoint without its key."""
        if self._settings.shots:
            training_pairs(self, name="llm")
        if self._settings.endpoint is None:
            self._folder()

    def _folder(self) -> Path:
        from negbench import hub

        spec = self._settings.model
        folder = Path(spec).expanduser()
        if folder.is_dir():
            return folder
        repo = hub.parse(spec)
        found = hub.cached_snapshot(repo, owner="method llm") if repo else None
        if found is None:
            raise MissingError(
                f"method llm: model={spec} is not on this machine; give a folder, fetch it with "
                f"`negbench prefetch -m llm -p model={spec}`, or give endpoint="
            )
        return found

    def prefetch(self) -> None:
        """Fetch config, tokenizer and safetensors of a hub repo."""
        from negbench import hub

        repo = hub.parse(self._settings.model)
        if self._settings.endpoint is None and repo is not None:
            patterns = ["*.json", "*.safetensors", "*.model", "merges.txt", "*.jinja"]
            hub.fetch(repo, patterns, owner=f"method llm: model={self._settings.model}")

    def identity(self) -> dict[str, str]:
        """Digests of a local model's files; an endpoint is known by its address only."""
        if self._settings.endpoint is not None:
            return {}
        from negbench.weight_files import file_digest

        folder = self._folder()
        names = sorted(
            p.name for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".model")
        )
        table = {name: file_digest(folder / name) for name in names}
        return {"model": sha256_hex(canonical_json(table))}

    def ref(self, name: str) -> Ref:
        """The identity: no path of a local model, no variable's name, no time limit."""
        ref = super().ref(name)
        out = {"key_env", "timeout"} | (set() if self._settings.endpoint else {"model"})
        params = {key: value for key, value in ref.params.items() if key not in out}
        return ref.model_copy(update={"params": params})

    def notes(self, cases: Sequence[Case]) -> list[str]:
        """That an endpoint's model cannot be pinned."""
        if self._settings.endpoint is None:
            return []
        return [
            f"llm: {self._settings.model} at an endpoint cannot be pinned; its answers are kept in "
            "the cache"
        ]

    def _examples(self) -> list[Pair]:
        if not self._settings.shots:
            return []
        pairs = training_pairs(self, name="llm")
        ranked = sorted(pairs, key=lambda pair: sha256_hex(f"negbench-llm\0{pair.id}".encode()))
        return [p for p in ranked if len(p.negative) < 400 and len(p.prompt) < 400][
            : self._settings.shots
        ]

    def asked(self, case: Case) -> str:
        """What the model reads for a case."""
        shown = "".join(
            f"Prompt: {_flat(pair.prompt)}\nNegative prompt: {_flat(pair.negative)}\n\n"
            for pair in self._examples()
        )
        parts = re.split(r"(\{examples\}|\{prompt\})", self._settings.template)
        fill = {"{examples}": shown, "{prompt}": _flat(case.prompt)}
        return "".join(fill.get(part, part) for part in parts)

    def treat(self, cases: Sequence[Case], *, seed: int) -> list[Treatment]:
        """What the model answers, each tag once."""
        texts = [self.asked(case) for case in cases]
        answers = self._remote(texts) if self._settings.endpoint else self._local(texts)
        return [
            treatment(case, tidied(first_line(a))) for case, a in zip(cases, answers, strict=True)
        ]

    def _local(self, texts: Sequence[str]) -> list[str]:
        """Greedy answers of a transformers model, one prompt at a time: no padding, no batch."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        folder = self._folder()
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            ).eval()
            answers = []
            for text in texts:
                if getattr(tokenizer, "chat_template", None):
                    text = tokenizer.apply_chat_template(  # noqa: PLW2901
                        [{"role": "user", "content": text}], tokenize=False,
                        add_generation_prompt=True,
                    )  # fmt: skip
                found = tokenizer(text, return_tensors="pt")
                with torch.inference_mode():
                    out = model.generate(
                        input_ids=found["input_ids"], attention_mask=found["attention_mask"],
                        max_new_tokens=self._settings.max_new_tokens, do_sample=False, num_beams=1,
                        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
                    )  # fmt: skip
                new = out[0, found["input_ids"].shape[1] :]
                answers.append(str(tokenizer.decode(new, skip_special_tokens=True)))
        except NegbenchError:
            raise
        except Exception as error:
            raise ConfigError(
                f"method llm: model={self._settings.model} does not work as a causal language "
                f"model: {type(error).__name__}: {one_line(str(error), limit=200)}"
            ) from error
        return answers

    def _remote(self, texts: Sequence[str]) -> list[str]:
        import httpx

        from negbench.remote import at_hand, written
        from negbench.store import default_cache

        settings = self._settings
        key = os.environ.get(settings.key_env, "")
        cache = default_cache()
        answers = []
        with httpx.Client(timeout=settings.timeout, follow_redirects=False) as client:
            for text in texts:
                body = {
                    "model": settings.model,
                    "messages": [{"role": "user", "content": text}],
                    "max_tokens": settings.max_new_tokens,
                    "temperature": 0,
                }
                name = sha256_hex(canonical_json([settings.endpoint, body]))
                path = cache / "llm" / f"{name}.json"
                if at_hand(path, cache=cache):
                    answers.append(str(read_json(path)["answer"]))
                    continue
                answer = self._ask(client, body, key=key)
                write_json(path, {"answer": answer, "model": settings.model})
                written(path, cache=cache)
                answers.append(answer)
        return answers

    def _ask(self, client: Any, body: dict[str, Any], *, key: str) -> str:
        """One answer, tried again a bounded number of times.

        Raises:
            MissingError: the endpoint wants a key, or cannot be reached.
            DataError: it answers something else than a chat completion.
        """
        import httpx

        settings = self._settings
        assert settings.endpoint is not None
        address = settings.endpoint.rstrip("/") + "/chat/completions"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        said = ""
        for wait in (*WAITS, None):
            try:
                answer = client.post(address, json=body, headers=headers)
            except httpx.HTTPError as error:
                said = f"{type(error).__name__} {error}"
            else:
                if answer.status_code in (401, 403):
                    raise MissingError(
                        f"method llm: {settings.endpoint} refuses the key; put one into "
                        f"${settings.key_env}"
                    )
                if answer.status_code == 200:
                    return _content(answer, settings.endpoint)
                said = f"status {answer.status_code}"
                if answer.status_code not in RETRIED:
                    break
            if wait is not None:
                time.sleep(wait)
        said = said.replace(key, "***") if key else said
        raise MissingError(
            f"method llm: {settings.endpoint} gave no answer ({one_line(said, limit=160)}); what "
            "was answered is kept, the same command goes on"
        )


def first_line(answer: str) -> str:
    """The tags in an answer: its first line with text, without a label or quotes."""
    for line in answer.splitlines():
        text = re.sub(r"^\s*(negative prompt|negative)\s*:\s*", "", line, flags=re.IGNORECASE)
        text = text.strip().strip("\"'`*").strip()
        if text:
            return text[:4_000]
    return ""


def _flat(text: str) -> str:
    return " ".join(text.split())


def _content(answer: Any, endpoint: str) -> str:
    if len(answer.content) > MAX_BODY:
        raise DataError(f"method llm: {endpoint} answered with {len(answer.content)} bytes")
    try:
        content = answer.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"method llm: {endpoint} did not answer with a chat completion; check endpoint="
        ) from error
    return content if isinstance(content, str) else ""
