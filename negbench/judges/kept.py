"""Judges that are dear to ask: every verdict is on disk before the next one comes.

    <cache>/verdicts/<judge 16>/<writer>.jsonl    one answer a line, append-only

An answer is known by the judge's identity, the image's pixels and the concept, so it is asked for
once, whoever wants it, and a run that dies goes on where it stopped.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from negbench.errors import RecordError
from negbench.files import LineWriter, read_lines, write_json
from negbench.judges.base import Judge, Question, Verdict
from negbench.remote import remote_of, written
from negbench.store import default_cache
from negbench.types import Ref, canonical_json, sha256_hex


class VerdictStore:
    """Answers of one judge by question.

    Args:
        cache: negbench's cache.
        judge: the judge's identity.
    """

    def __init__(self, cache: Path, judge: Ref) -> None:
        self.folder = cache / "verdicts" / judge.digest()[:16]
        self._judge = judge
        self._cache = cache
        remote = remote_of(cache)
        if remote is not None:
            remote.pull(self.folder)
        self._writer = LineWriter(self.folder, remote=remote)
        self._known: dict[str, dict[str, Any]] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in read_lines(path):
                self._known[str(line.get("key"))] = line

    @staticmethod
    def key(*parts: str) -> str:
        """The key of a question: what is asked, of which images, about what."""
        return sha256_hex(canonical_json(["negbench-verdict", 1, *parts]))

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer under `key`, or None."""
        return self._known.get(key)

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer.

        Raises:
            StorageError: the disk is full or the cache cannot be written.
        """
        line = {"key": key, **answer}
        if not (self.folder / "judge.json").is_file():
            write_json(self.folder / "judge.json", self._judge.model_dump(mode="json"))
            written(self.folder / "judge.json", cache=self._cache)
        self._writer.append(line)
        self._known[key] = line

    def verdict(self, key: str) -> Verdict | None:
        """The verdict under `key`, or None.

        Raises:
            RecordError: what is kept there is no verdict.
        """
        line = self.get(key)
        if line is None:
            return None
        try:
            return Verdict(
                probability=line.get("probability"),
                unscored=line.get("unscored"),
                boxes=tuple((b[0], b[1], b[2], b[3]) for b in line.get("boxes", ())),
            )
        except (TypeError, ValueError, IndexError) as error:
            raise RecordError(
                f"{self.folder} holds a damaged verdict ({error}); move the folder away"
            ) from error

    def put_verdict(self, key: str, verdict: Verdict, about: Mapping[str, Any]) -> None:
        """Keep a verdict (without its mask) and facts about it."""
        answer: dict[str, Any] = dict(about)
        if verdict.probability is None:
            answer["unscored"] = verdict.unscored
        else:
            answer["probability"] = verdict.probability
        if verdict.boxes:
            answer["boxes"] = [list(box) for box in verdict.boxes]
        self.put(key, answer)


class KeptJudge(Judge):
    """A judge whose verdicts are kept one by one as they come.

    Subclasses give `answers`; `judge` asks for what is not known yet, each question once.
    """

    @abstractmethod
    def answers(
        self, questions: Sequence[Question]
    ) -> Iterator[tuple[int, Verdict, Mapping[str, Any]]]:
        """Ask: yields (place in `questions`, verdict, facts for the record) in any order.

        Each answer is kept before the next is asked for. A question that got no answer at all,
        because a connection broke, is left out or ends in an error, so that it is asked again.
        """

    def store(self) -> VerdictStore:
        """Where answers are kept; read once for each cache."""
        cache = self.cache or default_cache()
        known: tuple[Path, VerdictStore] | None = getattr(self, "_store", None)
        if known is None or known[0] != cache:
            known = (cache, VerdictStore(cache, self.ref()))
            self._store = known
        return known[1]

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """Verdicts, from the store where they are known.

        Raises:
            NegbenchError: some questions got no answer; those that did are kept.
        """
        store = self.store()
        keys = [store.key("present", question.image, question.concept) for question in questions]
        found = {key: verdict for key in keys if (verdict := store.verdict(key)) is not None}
        todo = dict(zip(keys, questions, strict=True))
        missing = [key for key in todo if key not in found]
        for place, verdict, about in self.answers([todo[key] for key in missing]):
            key = missing[place]
            question = todo[key]
            facts = {"image": question.image, "concept": question.concept, **about}
            store.put_verdict(key, verdict, facts)
            found[key] = verdict
        return [found.get(key) or Verdict.missing("the judge gave no answer") for key in keys]
