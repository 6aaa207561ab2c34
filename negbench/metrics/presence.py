"""Whether the case's concept is visible, as a judge says (`negbench.judges`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from negbench.metrics.base import ImageMetric, Item, Network
from negbench.types import Case, Ref, Score

if TYPE_CHECKING:
    from negbench.judges import Judge, Verdict

NO_CONCEPT = "the case names no concept"


class JudgedMetric(ImageMetric):
    """A metric that asks a judge about the case's concept."""

    network_fields: ClassVar[tuple[str, ...]] = ("judge", "judge_params")

    class Config(BaseModel):
        """Which judge, and its parameters."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        judge: str = Field(
            default="miniature", description="a judge's name (`negbench list judges`)"
        )
        judge_params: dict[str, JsonValue] = Field(
            default_factory=dict, description="its parameters (`negbench show judge NAME`)"
        )

    @cached_property
    def judge(self) -> Judge:
        """The judge, built but not yet checked."""
        from negbench.judges import make_judge

        assert isinstance(self.config, JudgedMetric.Config)
        return make_judge(self.config.judge, self.config.judge_params)

    def networks(self) -> Mapping[str, Network]:
        """The judge's."""
        return self.judge.networks()

    def texts(self, case: Case, negative: str) -> Sequence[tuple[str, str]]:
        """What the judge has to read to look for the case's concept."""
        return self.judge.texts(case.concept) if case.concept else ()

    def check(self) -> None:
        """Refuse while planning if the judge cannot be asked."""
        self.judge.check()

    def prepare(self, *, device: str, cache: Path) -> None:
        """Tell the judge where to compute and to keep verdicts."""
        self.judge.prepare(device=device, cache=cache)

    def ref(self, name: str) -> Ref:
        """The judge's identity under the metric's name."""
        own = self.config.model_dump(mode="json", exclude=set(self.network_fields))
        judge = self.judge.ref().model_dump(mode="json")
        return Ref(name=name, version=self.version, params={**own, "judge": judge})

    def _verdicts(self, items: Sequence[Item]) -> list[Verdict]:
        """The judge's verdicts on items whose case names a concept."""
        from negbench.judges import Question
        from negbench.judges.ask import answer

        return answer(
            self.judge,
            [
                Question(
                    image=item.image,
                    pixels=item.pixels,
                    concept=str(item.case.concept),
                    features=item.features,
                    text_features=item.text_features,
                )
                for item in items
            ],
        )


class TwinJudgedMetric(JudgedMetric):
    """A metric whose judge looks at the twin itself: nothing is computed of the image for it."""

    needs_twin: ClassVar[bool] = True

    def networks(self) -> Mapping[str, Network]:
        """None: the judge is asked about other pictures than the image alone."""
        return {}

    def texts(self, case: Case, negative: str) -> Sequence[tuple[str, str]]:
        """None: what the judge reads, it reads itself."""
        return ()


class Presence(JudgedMetric):
    """Probability that the case's concept is visible, in [0, 1]; lower is better.

    Its mean over images is the expected share that shows the concept. A case without a concept is
    unscored.
    """

    unit: ClassVar[str] = "share"
    bounds: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    higher_is_better: ClassVar[bool | None] = False

    def score(self, items: Sequence[Item]) -> list[Score]:
        """The judge's probability for each image."""
        asked = [item for item in items if item.case.concept]
        said = iter(self._verdicts(asked) if asked else [])
        return [
            next(said).score() if item.case.concept else Score.missing(NO_CONCEPT) for item in items
        ]
