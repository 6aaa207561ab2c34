"""What comparing runs gives: the numbers of one metric of two runs, and all of a report."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["better", "worse", "higher", "lower", "leaning", "cannot tell", "same", "none"]


class Comparison(BaseModel):
    """One metric of two runs on the samples that both have: first minus second.

    Attributes:
        first_value: the first run's mean (or set value) over the shared pairs; so `second_value`.
        p: two-sided, of exchanging the runs by prompt; None where there is nothing to test.
        p_holm: `p` corrected by Holm for all tests of the report.
        verdict: what may be concluded at the 5 % level after correction; ``leaning`` only before.
        detectable: smallest true difference that as many prompts find in 80 % of samples.
        prompts_needed: prompts at which a true difference as large as the measured one is found
            in 80 % of samples, at the level left to one test of the report.
        of: ``score``, or ``gain``: the score minus the twin's, for a metric that reads each run's
            own negative prompt, so that scores themselves would compare different questions.
        sentence: all of it in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    first: str
    second: str
    metric: str
    unit: str
    higher_is_better: bool | None
    first_value: float | None
    second_value: float | None
    delta: float | None
    ci95: tuple[float, float] | None
    p: float | None
    p_holm: float | None
    n: int
    n_unscored: int
    n_prompts: int
    verdict: Verdict
    of: Literal["score", "gain"]
    detectable: float | None
    prompts_needed: int | None
    note: str | None
    sentence: str


class ComparedRun(BaseModel):
    """A run that takes part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    method: str
    guidance: str
    plan_digest: str
    folder: str | None
    n_samples: int
    status: str


class Comparisons(BaseModel):
    """All comparisons of some runs.

    Attributes:
        family: number of tests that Holm's correction counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    generator: str
    runs: list[ComparedRun]
    family: int
    comparisons: list[Comparison]
    notes: list[str]
