"""What a guidance rule promises, tried on a small made-up network.

The network answers for any text with a smooth function of x_t, so everything a rule may ask for
can be predicted in milliseconds, on the CPU and without weights.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, get_args

import torch

from negbench.conformance.outcome import BrokenError, Outcome, require, run
from negbench.errors import NegbenchError
from negbench.guidance.attention import Steer, attend
from negbench.guidance.base import Branch, Neutral, Rule, Space, Step
from negbench.params import build_config
from negbench.types import Negative, canonical_json

CALLS = 16
ROWS = 3
SHAPE = (ROWS, 4, 8, 8)
TOLERANCE = 1e-5
SCALES = (5.0, 1.0, 0.0)
LISTS: tuple[tuple[Negative, ...], ...] = (
    (Negative(text="red car"),),
    (),
    (Negative(text="red car"), Negative(text="blue sky")),
    (Negative(text="red car"), Negative(text="blue sky", weight=0.5)),
)


@cache
def noisy(seed: int) -> torch.Tensor:
    """x_t of all calls, (calls, rows, 4, 8, 8)."""
    return torch.randn((CALLS, *SHAPE), generator=torch.Generator().manual_seed(seed))


@cache
def _tokens(text: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a text in the network's one cross-attention layer, (1, 2, 6, 4) each."""
    digest = hashlib.sha256(repr(text).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
    key, value = torch.randn((2, 1, 2, 6, 4), generator=generator)
    return key, value


@cache
def predictions(
    seed: int, text: str | None, away: str | None = None, steer: Steer | None = None
) -> torch.Tensor:
    """What the made-up network says of `noisy` under a text, of the same shape."""
    x = noisy(seed).flatten(0, 1)
    query = x.flatten(2).transpose(1, 2).unsqueeze(1).repeat(1, 2, 1, 1)
    key, value, away_key, away_value = (
        tensor.expand(len(x), -1, -1, -1) for tensor in (*_tokens(text), *_tokens(away))
    )
    if steer is None:
        mixed = attend(query, key, value)
    else:
        mixed = steer.attend(query, key, value, away_key, away_value)
    answer = mixed[..., :4] + 0.5 * mixed[..., 4:]
    made = 0.7 * x + 0.05 * answer.transpose(1, 2).reshape(x.shape)
    return made.view(CALLS, *SHAPE)


def steps(space: Space) -> list[Step]:
    """A schedule from much noise to little."""
    return [
        Step(
            index=i,
            total=CALLS,
            timestep=999.0 * (1 - i / CALLS),
            sigma=14.0 * (0.05 / 14.0) ** (i / (CALLS - 1)),
            space=space,
        )
        for i in range(CALLS)
    ]


class _Recorded(Mapping[Branch, torch.Tensor]):
    """Predictions that know which of them were read, and hold nothing else."""

    def __init__(self, made: Mapping[Branch, torch.Tensor]) -> None:
        self._made = dict(made)
        self.read: set[Branch] = set()

    def __getitem__(self, branch: Branch) -> torch.Tensor:
        if branch not in self._made:
            raise BrokenError(f"combine uses {_name(branch)}, which needs does not ask for")
        self.read.add(branch)
        return self._made[branch]

    def __iter__(self) -> Iterator[Branch]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@dataclass(frozen=True)
class _Trial:
    """A rule bound to negatives, and everything its network says over one schedule."""

    rule: Rule
    texts: tuple[str, ...]
    space: Space

    def text(self, branch: Branch) -> str | None:
        if branch.role == "positive":
            return "a street"
        return None if branch.role == "empty" else self.texts[branch.number]

    def inputs(self, seed: int = 0) -> list[tuple[Step, torch.Tensor]]:
        """Every call with the x_t of all rows."""
        return [(step, noisy(seed)[step.index].clone()) for step in steps(self.space)]

    def answers(self, step: Step, seed: int = 0) -> dict[Branch, torch.Tensor]:
        """The predictions that the rule asks for, of all rows; copies."""
        made = {}
        for branch in self.rule.needs(step):
            texts = (self.text(plain) for plain in branch.texts())
            own, away = next(texts), next(texts, None)
            made[branch] = predictions(seed, own, away, branch.steer)[step.index].clone()
        return made

    def follow(self, rows: Sequence[int] = range(ROWS), *, seed: int = 0) -> list[torch.Tensor]:
        """The guided predictions of a whole schedule for some of the rows."""
        chosen = list(rows)
        state: Any = None
        outputs = []
        for step, x in self.inputs(seed):
            made = {key: value[chosen] for key, value in self.answers(step, seed).items()}
            output, state = self.rule.combine(made, x[chosen], step, state)
            outputs.append(output)
        return outputs


def check_rule(
    cls: type[Rule], *, name: str, params: Mapping[str, Any] | None = None
) -> list[Outcome]:
    """Try a rule's promises.

    Args:
        cls: the rule's class.
        name: what messages call it.
        params: parameters for a rule whose defaults are not enough; neutral settings come on top.

    Returns:
        One outcome a check; a rule that cannot be built at all has a single one.
    """
    subject = _Subject(cls, name, dict(params or {}))
    built = run("is built", subject.is_built)
    if not built.passed:
        return [built]
    outcomes = [
        built,
        run("needs and counts", subject.needs_and_counts),
        run("predictions used", subject.predictions_used),
        run("equal predictions", subject.equal_predictions),
        run("rows stand alone", subject.rows_stand_alone),
        run("no hidden state", subject.no_hidden_state),
        run("inputs kept", subject.inputs_kept),
    ]
    if subject.steers():
        outcomes.append(run("attention", subject.attention))
    if not cls.neutral:
        advice = "declares no setting at which it equals something simpler; add `neutral`"
        outcomes.append(Outcome("neutral settings", passed=False, message=advice))
    for item in cls.neutral:
        outcomes.append(run(f"neutral: {show(item)}", partial(subject.is_neutral, item)))
    return outcomes


def show(neutral: Neutral) -> str:
    """A neutral setting in words."""
    at = [f"{key}={value}" for key, value in neutral.params.items()]
    if neutral.scale is not None:
        at.append(f"scale {neutral.scale:g}")
    return f"{neutral.equals} at {', '.join(at) or 'its defaults'}"


@dataclass(frozen=True)
class _Subject:
    cls: type[Rule]
    name: str
    params: dict[str, Any]

    def bind(
        self,
        negatives: Sequence[Negative],
        *,
        scale: float = SCALES[0],
        space: Space = "epsilon",
        params: Mapping[str, Any] | None = None,
    ) -> _Trial:
        chosen = {**self.params, **(params or {})}
        config = build_config(self.cls.Config, chosen, owner=f"guidance rule {self.name}")
        taken = self.cls.read(negatives)
        rule = self.cls(config, scale=scale, weights=[item.weight for item in taken])
        return _Trial(rule, tuple(item.text for item in taken), space)

    def trials(self, *, scales: Sequence[float] = SCALES[:1]) -> Iterator[_Trial]:
        """The rule in every space, with every list of negatives it takes."""
        for number, negatives in enumerate(LISTS):
            for scale in scales:
                for space in sorted(self.cls.spaces):
                    try:
                        trial = self.bind(negatives, scale=scale, space=space)
                    except NegbenchError:
                        if number < 2:
                            raise
                        continue
                    yield trial

    def is_built(self) -> str:
        unknown = self.cls.spaces - set(get_args(Space))
        require(not unknown, f"supports prediction spaces that there are not: {sorted(unknown)}")
        require(self.cls.spaces, "supports no prediction space")
        family = sorted(self.cls.families)[0] if self.cls.families else "sd"
        for trial in self.trials():
            trial.rule.check(family=family, space=trial.space, total=CALLS)
            dumped = trial.rule.config.model_dump(mode="json")
            canonical_json(dumped)
            again = build_config(self.cls.Config, dumped, owner=self.name)
            require(again == trial.rule.config, "parameters change when they are written and read")
        return f"supports {', '.join(sorted(self.cls.spaces))}"

    def needs_and_counts(self) -> str:
        counts = []
        for trial in self.trials(scales=SCALES):
            total = 0
            for step in steps(trial.space):
                needed = trial.rule.needs(step)
                require(needed, f"asks for no prediction in call {step.index}")
                require(needed == trial.rule.needs(step), "asks for other branches the second time")
                require(
                    len(set(needed)) == len(needed), f"asks twice for the same in call {step.index}"
                )
                for branch in (plain for item in needed for plain in item.texts()):
                    known = branch.role in ("positive", "empty", "negative")
                    require(known, f"asks for an unknown branch {branch!r}")
                    within = 0 <= branch.number < len(trial.texts)
                    require(
                        branch.role != "negative" or within,
                        f"asks for {_name(branch)} of {len(trial.texts)} negatives",
                    )
                total += len(needed)
            declared = trial.rule.count(CALLS, trial.space)
            require(declared == total, f"count says {declared} predictions, needs asks for {total}")
            counts.append(total / CALLS)
        return f"{min(counts):g} to {max(counts):g} predictions a model call"

    def predictions_used(self) -> str:
        for trial in self.trials(scales=SCALES):
            state: Any = None
            for step, x in trial.inputs():
                made = _Recorded(trial.answers(step))
                output, state = trial.rule.combine(made, x, step, state)
                where = f"in call {step.index} ({trial.space}, scale {trial.rule.scale:g})"
                require(isinstance(output, torch.Tensor), f"returns no tensor {where}")
                require(output.shape == x.shape, f"returns shape {tuple(output.shape)} {where}")
                require(output.dtype == x.dtype, f"returns {output.dtype} for {x.dtype} {where}")
                require(output.isfinite().all(), f"returns values that are not finite {where}")
                idle = ", ".join(_name(branch) for branch in made if branch not in made.read)
                require(not idle, f"asks for {idle} {where}, but does not use it")
        return "what is asked for is used, nothing else; shape and dtype are kept"

    def equal_predictions(self) -> str:
        for trial in self.trials():
            state: Any = None
            for step, x in trial.inputs():
                made = dict.fromkeys(trial.rule.needs(step), 0.5 * x)
                output, state = trial.rule.combine(made, x, step, state)
                require(
                    output.isfinite().all(),
                    f"is not finite where all texts predict the same ({trial.space})",
                )
        return "finite where prompt and negatives predict the same"

    def rows_stand_alone(self) -> str:
        for trial in self.trials():
            together = trial.follow()
            for row in range(ROWS):
                alone = trial.follow([row])
                for call, (whole, one) in enumerate(zip(together, alone, strict=True)):
                    _same(whole[row], one[0], f"a picture drawn alone differs in call {call}")
            order = [2, 0, 1]
            mixed = trial.follow(order)
            for call, (whole, other) in enumerate(zip(together, mixed, strict=True)):
                _same(whole[order], other, f"another order of pictures differs in call {call}")
        return f"{ROWS} rows together, alone and in another order agree bit for bit"

    def no_hidden_state(self) -> str:
        for trial in self.trials():
            first = trial.follow()
            other = trial.follow(seed=1)
            for call, (a, b) in enumerate(zip(first, trial.follow(), strict=True)):
                _same(a, b, f"the same input gives another result the second time, in call {call}")
            pairs = zip(trial.inputs(), trial.inputs(seed=1), strict=True)
            states: list[Any] = [None, None]
            for call, pair in enumerate(pairs):
                for which, (step, x) in enumerate(pair):
                    kept = copy.deepcopy(states[which])
                    output, states[which] = trial.rule.combine(
                        trial.answers(step, which), x, step, kept
                    )
                    expected = (first, other)[which][call]
                    _same(
                        output,
                        expected,
                        f"two batches drawn in turns differ from one after the other, call {call}; "
                        "what a rule remembers belongs into the state it returns",
                    )
        return "repeated and interleaved runs agree bit for bit"

    def inputs_kept(self) -> str:
        for trial in self.trials():
            state: Any = None
            for step, x in trial.inputs():
                made = trial.answers(step)
                before = {branch: value.clone() for branch, value in made.items()}
                seen, kept = x.clone(), copy.deepcopy(state)
                _, after = trial.rule.combine(made, x, step, state)
                for branch, value in made.items():
                    _same(value, before[branch], f"changes the prediction of {_name(branch)}")
                _same(x, seen, "changes x_t")
                require(_equal(state, kept), "changes the state it was given in place")
                state = after
        return "predictions, x_t and the old state are left as they were"

    def steers(self) -> set[Steer]:
        """Everything that the rule does in attention with a plain negative."""
        trial = self.bind(LISTS[0])
        branches = (branch for step in steps("epsilon") for branch in trial.rule.needs(step))
        return {branch.steer for branch in branches if branch.steer is not None}

    def attention(self) -> str:
        generator = torch.Generator().manual_seed(0)
        query = torch.randn((ROWS, 2, 9, 4), generator=generator)
        texts = list(torch.randn((4, ROWS, 2, 6, 4), generator=generator))
        for steer in self.steers():
            before = [text.clone() for text in texts]
            whole = steer.attend(query, *texts)
            shape = (ROWS, 9, 8)
            require(whole.shape == shape, f"returns shape {tuple(whole.shape)}, not {shape}")
            require(whole.isfinite().all(), "returns values that are not finite")
            require(_equal(before, texts), "changes the keys or values it is given")
            for row in range(ROWS):
                one = steer.attend(query[row : row + 1], *(text[row : row + 1] for text in texts))
                gap = float((whole[row] - one[0]).abs().max())
                require(gap <= TOLERANCE, f"a row differs by {gap:.2g} when it is alone")
        return "what attention does to a row does not depend on other rows"

    def is_neutral(self, neutral: Neutral) -> str:
        worst = 0.0
        scale = SCALES[0] if neutral.scale is None else neutral.scale
        for space in sorted(self.cls.spaces):
            trial = self.bind(LISTS[0], scale=scale, space=space, params=neutral.params)
            family = sorted(self.cls.families)[0] if self.cls.families else "sd"
            trial.rule.check(family=family, space=space, total=CALLS)
            for step, output in zip(steps(space), trial.follow(), strict=True):
                texts = ("a street", None, "red car")
                c, u, n = (predictions(0, text)[step.index] for text in texts)
                expected = {
                    "positive": c,
                    "empty_negative": u + scale * (c - u),
                    "cfg": n + scale * (c - n),
                }[neutral.equals]
                error = float((output - expected).abs().max())
                require(
                    error <= TOLERANCE,
                    f"differs by {error:.2g} in call {step.index} ({space}); at most "
                    f"{TOLERANCE:g} is allowed",
                )
                worst = max(worst, error)
        return f"largest difference {worst:.1g}"


def _name(branch: Branch) -> str:
    steered = "steered " if branch.steer is not None else ""
    if branch.role == "negative":
        return f"{steered}negative {branch.number}"
    return f"the {steered}{branch.role} branch"


def _same(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    if not torch.equal(a, b):
        require(a.shape == b.shape, f"{message}: shapes {tuple(a.shape)}, {tuple(b.shape)}")
        gap = float((a - b).abs().max())
        advice = "; sums and norms must run over one row at a time" if gap < 1e-4 else ""
        raise BrokenError(f"{message}, by {gap:.2g}{advice}")


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
