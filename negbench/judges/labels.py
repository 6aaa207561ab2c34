"""People as a judge: verdicts from a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from negbench.errors import ConfigError
from negbench.judges.base import Judge, Question, Verdict
from negbench.judges.label_file import Labels, read_labels


class LabelsJudge(Judge):
    """People's verdicts from a CSV file, as `negbench label` writes them.

    The probability is the share of raters who saw the concept. Pictures are matched by the digest
    of their pixels; files without the column image (with case, seed and arm) need `runs`. A picture
    that nobody labelled is unscored.
    """

    network_fields: ClassVar[tuple[str, ...]] = ("path", "runs")

    class Config(BaseModel):
        """Which file."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        path: str = Field(default="", description="CSV file of labels")
        runs: tuple[str, ...] = Field(
            default=(), description="folders of runs, for files without the column image"
        )

    @cached_property
    def labels(self) -> Labels:
        """What the file says.

        Raises:
            ConfigError: no file was named.
            MissingError: the file is not there.
            DataError: it cannot be used.
        """
        assert isinstance(self.config, LabelsJudge.Config)
        if not self.config.path:
            raise ConfigError("judge labels: which file? give path=labels.csv")
        places = None
        if self.config.runs:
            from negbench.judges.units import load_runs, places_of, units_of

            records = load_runs(Path(run) for run in self.config.runs)
            places = places_of(u for record in records for u in units_of(record, concept="any"))
        return read_labels(Path(self.config.path), places=places)

    def check(self) -> None:
        """Refuse a file that is not there or cannot be used."""
        _ = self.labels

    def weight_digests(self) -> Sequence[str]:
        """Sha256 over all verdicts."""
        return (self.labels.digest(),)

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """The share of raters who saw each question's concept."""
        verdicts = []
        for question in questions:
            share = self.labels.share(question.image, question.concept)
            verdicts.append(
                Verdict.missing("nobody labelled this picture")
                if share is None
                else Verdict.of(share)
            )
        return verdicts
