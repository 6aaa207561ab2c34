"""From what a method decided to the images that a protocol needs.

Quality needs two images a sample: the treated one and its twin. Removal needs up to three more, its
arms, each a plain `ImageRequest`, so that equal ones are drawn and scored once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from negbench.types import Case, Guidance, ImageRequest, Ref, Treatment, seed_of

ARMS = ("all_steps", "empty", "placebo")
"""``all_steps``: the method's negatives under plain CFG at every step, at the benchmark's scale.
``empty``: the treatment's rule without a negative. ``placebo``: the treatment of an unrelated
concept."""

PLAIN = ("cfg", "window")
"""Rules that without a negative are plain CFG away from the empty prompt at every step."""


@dataclass(frozen=True)
class Wanted:
    """One sample of a plan: a case, a noise, the treated request, its twin's, further arms'.

    Attributes:
        arms: arm -> request, in the order of `ARMS`; empty in the quality protocol.
        arm_keys: arm -> key of its request.
        placebo: the unrelated concept of the arm ``placebo``.
    """

    case: Case
    replicate: int
    seed: int
    treatment: Treatment
    treated: ImageRequest
    twin: ImageRequest
    treated_key: str
    twin_key: str
    arms: Mapping[str, ImageRequest] = field(default_factory=dict)
    arm_keys: Mapping[str, str] = field(default_factory=dict)
    placebo: str | None = None

    @property
    def id(self) -> tuple[str, int]:
        """Case and replicate."""
        return self.case.id, self.replicate

    def keys(self) -> dict[str, str]:
        """Keys of all images by side: ``treated``, ``twin`` and the arms."""
        return {"treated": self.treated_key, "twin": self.twin_key, **self.arm_keys}

    def requests(self) -> dict[str, ImageRequest]:
        """Requests by key, the twin's first."""
        found = {self.twin_key: self.twin, self.treated_key: self.treated}
        return found | {self.arm_keys[arm]: request for arm, request in self.arms.items()}


@dataclass(frozen=True)
class Requests:
    """Makes the requests of a plan.

    Attributes:
        generator: what draws.
        title: benchmark and version, for the seeds.
        twin: plain CFG at the benchmark's scale.
        carried: the rule of treatments that name none.
    """

    generator: Ref
    title: str
    twin: Guidance
    carried: Guidance

    def of(
        self,
        case: Case,
        treatment: Treatment,
        replicate: int,
        *,
        placebo: tuple[str, Treatment] | None = None,
    ) -> Wanted:
        """The images of one sample.

        Args:
            case: what was treated.
            treatment: what the method decided.
            replicate: which noise.
            placebo: for a removal protocol, the unrelated concept and what the method decided for
                it; gives the sample all `ARMS`.
        """
        seed = seed_of(self.title, case.prompt, replicate)
        applied = self.applied(treatment)
        treated = self._request(applied, seed)
        without = self._request(Treatment(prompt=case.prompt, guidance=self.twin), seed)
        arms: dict[str, ImageRequest] = {}
        if placebo is not None:
            arms = {
                "all_steps": self._request(self.all_steps(applied), seed),
                "empty": self._request(self._empty(applied), seed),
                "placebo": self._request(self.applied(placebo[1]), seed),
            }
        return Wanted(
            case=case,
            replicate=replicate,
            seed=seed,
            treatment=applied,
            treated=treated,
            twin=without,
            treated_key=treated.key(),
            twin_key=without.key(),
            arms=arms,
            arm_keys={arm: request.key() for arm, request in arms.items()},
            placebo=placebo[0] if placebo is not None else None,
        )

    def applied(self, treatment: Treatment) -> Treatment:
        """`treatment` with its rule resolved and blank negatives left out."""
        negatives = tuple(n for n in treatment.negatives if n.text.strip())
        guidance = treatment.guidance or self.carried
        if not negatives and treatment.guidance is None and self.carried.kind in PLAIN:
            guidance = self.twin
        return treatment.model_copy(update={"negatives": negatives, "guidance": guidance})

    def all_steps(self, applied: Treatment) -> Treatment:
        """The same prompt and negatives under plain CFG at every step."""
        return applied.model_copy(update={"guidance": self.twin})

    def _empty(self, applied: Treatment) -> Treatment:
        guidance = applied.guidance or self.carried
        if guidance.kind in PLAIN:
            guidance = self.twin.model_copy(update={"scale": guidance.scale})
        return applied.model_copy(update={"negatives": (), "guidance": guidance})

    def _request(self, treatment: Treatment, seed: int) -> ImageRequest:
        return ImageRequest(generator=self.generator, treatment=treatment, seed=seed)


def distinct_guidance(treatments: Sequence[Treatment]) -> list[Treatment]:
    """One treatment with a negative for each rule and weights (and embeddings) among them."""
    found: dict[tuple[object, ...], Treatment] = {}
    for item in treatments:
        if item.negatives:
            rule = item.guidance.digest() if item.guidance is not None else ""
            kinds = ((negative.weight, negative.embedding) for negative in item.negatives)
            found.setdefault((rule, *kinds), item)
    return list(found.values())
