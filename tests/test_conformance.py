"""The conformance kit: sound plug-ins pass, and each broken promise is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner

from negbench.conformance.commands import check_plugin
from negbench.conformance.generators import check_generator
from negbench.conformance.methods import check_method
from negbench.conformance.metrics import check_metric
from negbench.conformance.outcome import run
from negbench.conformance.rules import check_rule
from negbench.errors import ConfigError, MissingError, PluginError, UnknownNameError
from negbench.generators import Drawn
from negbench.generators.fake import FakeGenerator
from negbench.guidance.base import EMPTY, POSITIVE, Neutral, Rule, negative
from negbench.methods import Method
from negbench.metrics import ImageMetric, SetMetric
from negbench.types import Negative, Score, Treatment

PACKAGE = Path(__file__).parent / "plugin_package"


def failed(outcomes):
    return {item.check: item.message for item in outcomes if not item.passed}


# Rules ----------------------------------------------------------------------------------------


class Sound(Rule):
    """u + s (c - u - w (n - u)) at a falling weight, with a running mean in its state."""

    neutral = (Neutral(equals="empty_negative", params={"weight": 0.0}),)

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        weight: float = Field(default=0.5, ge=0)

    def needs(self, step):
        away = (negative(0),) if self.weights else ()
        return (EMPTY, *away, POSITIVE)

    def push(self, predictions):
        if not self.weights:
            return 0.0 * predictions[EMPTY]
        return self.config.weight * (predictions[negative(0)] - predictions[EMPTY])

    def combine(self, predictions, x_t, step, state):
        push = self.push(predictions)
        mean = push if state is None else 0.5 * (push + state)
        towards = predictions[POSITIVE] - predictions[EMPTY] - mean
        return predictions[EMPTY] + self.scale * towards, mean


class MixesRows(Sound):
    def push(self, predictions):
        return super().push(predictions) / predictions[EMPTY].norm()


class Remembers(Sound):
    seen = 0.0

    def combine(self, predictions, x_t, step, state):
        self.seen += 1.0
        output, mean = super().combine(predictions, x_t, step, state)
        return output * (1 + 1e-3 * self.seen), mean


class Overwrites(Sound):
    def combine(self, predictions, x_t, step, state):
        output, mean = super().combine(predictions, x_t, step, state)
        predictions[POSITIVE].mul_(2)
        return output, mean


class ChangesItsState(Sound):
    def combine(self, predictions, x_t, step, state):
        kept = None if state is None else state.clone()
        output, mean = super().combine(predictions, x_t, step, kept)
        return output, mean if state is None else state.copy_(mean)


class UsesMore(Sound):
    def needs(self, step):
        return tuple(branch for branch in super().needs(step) if branch != EMPTY)


class UsesLess(Sound):
    def combine(self, predictions, x_t, step, state):
        return predictions[POSITIVE], state


class Miscounts(Sound):
    def count(self, total, space="epsilon"):
        return 2 * total


class AsksForNobody(Sound):
    def needs(self, step):
        return (EMPTY, negative(3), POSITIVE)


class DividesByZero(Sound):
    def push(self, predictions):
        push = super().push(predictions)
        return push * push / push.abs().clamp_min(0)


class NotNeutral(Sound):
    def push(self, predictions):
        return super().push(predictions) + 1e-3


class Undeclared(Sound):
    neutral = ()


class WrongShape(Sound):
    def combine(self, predictions, x_t, step, state):
        output, mean = super().combine(predictions, x_t, step, state)
        return output.double(), mean


class Raises(Sound):
    def combine(self, predictions, x_t, step, state):
        raise KeyError("no such thing\nas this")


class NeedsAParameter(Sound):
    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        weight: float = Field(ge=0)


def test_a_sound_rule_passes():
    outcomes = check_rule(Sound, name="sound")
    assert failed(outcomes) == {}
    assert len(outcomes) == 8


@pytest.mark.parametrize(
    ("cls", "check", "part"),
    [
        (MixesRows, "rows stand alone", "a picture drawn alone differs in call 0"),
        (Remembers, "no hidden state", "same input gives another result the second time"),
        (Overwrites, "inputs kept", "changes the prediction of the positive branch"),
        (ChangesItsState, "inputs kept", "changes the state it was given in place"),
        (UsesMore, "predictions used", "uses the empty branch, which needs does not ask for"),
        (UsesLess, "predictions used", "does not use it"),
        (Miscounts, "needs and counts", "count says 32 predictions, needs asks for 48"),
        (AsksForNobody, "needs and counts", "asks for negative 3 of 1 negatives"),
        (DividesByZero, "equal predictions", "all texts predict the same"),
        (NotNeutral, "neutral: empty_negative at weight=0.0", "differs by 0.005 in call 0"),
        (Undeclared, "neutral settings", "add `neutral`"),
        (WrongShape, "predictions used", "returns torch.float64 for torch.float32"),
        (Raises, "predictions used", "raised KeyError: 'no such thing\\nas this'"),
        (NeedsAParameter, "is built", "weight"),
    ],
)
def test_each_broken_promise_is_named(cls, check, part):
    broken = failed(check_rule(cls, name="broken"))
    assert part in broken[check]
    assert all("\n" not in message for message in broken.values())


def test_a_rule_with_required_parameters_is_tried_with_them():
    assert failed(check_rule(NeedsAParameter, name="needy", params={"weight": 0.5})) == {}


# Methods --------------------------------------------------------------------------------------


class Plain(Method):
    def treat(self, cases, *, seed):
        return [self.one(case, seed) for case in cases]

    def one(self, case, seed):
        words = case.prompt.split()
        text = words[seed % len(words)] if words else ""
        return Treatment(prompt=case.prompt, negatives=(Negative(text=text),) if text else ())


class FromBefore(Plain):
    def treat(self, cases, *, seed):
        prompts = ["nothing", *(case.prompt for case in cases)]
        return [case.model_copy(update={"prompt": before}).prompt
                for case, before in zip(cases, prompts, strict=False)]  # fmt: skip


class ByLuck(Plain):
    luck = 0

    def one(self, case, seed):
        type(self).luck += 1
        return f"{case.id} {self.luck}"


class TooFew(Plain):
    def treat(self, cases, *, seed):
        return super().treat(cases, seed=seed)[1:]


class TooLong(Plain):
    def one(self, case, seed):
        return "long " * 5000


class UnknownRule(Plain):
    def one(self, case, seed):
        return Treatment(prompt=case.prompt, guidance={"kind": "cgf"})


class Learns(Plain):
    uses_training = True

    def one(self, case, seed):
        pairs = self.training.pairs()
        return pairs[len(case.prompt) % len(pairs)].negative


class LacksWeights(Plain):
    def check(self):
        raise MissingError("no weights here; fetch them")


@pytest.mark.parametrize("cls", [Plain, Learns])
def test_a_sound_method_passes(cls):
    outcomes = check_method(cls, name="sound")
    assert failed(outcomes) == {}
    assert [item.check for item in outcomes] == [
        "is built", "answers", "no cases", "seed", "order", "subset",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "check", "part"),
    [
        (FromBefore, "order", "the order of the cases changes the answer: case 'plain'"),
        (FromBefore, "subset", "leaving out other cases changes the answer"),
        (ByLuck, "seed", "the same seed gives another answer the second time"),
        (TooFew, "answers", "returned 7 treatments for 8 cases"),
        (TooLong, "answers", "25000 characters; at most 20000"),
        (UnknownRule, "answers", "its guidance is refused: unknown guidance rule 'cgf'"),
    ],
)
def test_each_broken_promise_of_a_method_is_named(cls, check, part):
    assert part in failed(check_method(cls, name="broken"))[check]


def test_a_method_without_its_weights_is_not_judged():
    with pytest.raises(MissingError, match="fetch them"):
        check_method(LacksWeights, name="needy")


@pytest.mark.parametrize("name", ["none", "static", "human", "placebo", "popular"])
def test_methods_of_negbench_keep_their_promises(name):
    from negbench.methods import methods

    assert failed(check_method(methods.get(name), name=name)) == {}


# Metrics --------------------------------------------------------------------------------------


class Brightness(ImageMetric):
    def score(self, items):
        return [Score.of(float(item.pixels.mean())) for item in items]


class RelativeBrightness(Brightness):
    def score(self, items):
        top = max([float(item.pixels.mean()) for item in items], default=1.0)
        return [Score.of(float(item.pixels.mean()) / top) for item in items]


class Blind(Brightness):
    needs_twin = True


class Spread(SetMetric):
    def rows(self, items):
        means = [item.pixels.mean(axis=(0, 1)) for item in items]
        return np.asarray(means, dtype=np.float32)

    def value(self, rows):
        return float(rows.std(axis=0).mean())


class FirstOnly(Spread):
    def value(self, rows):
        return float(rows[0, 0])


@pytest.mark.parametrize("cls", [Brightness, Spread])
def test_a_sound_metric_passes(cls):
    assert failed(check_metric(cls, name="sound")) == {}


@pytest.mark.parametrize(
    ("cls", "check", "part"),
    [
        (RelativeBrightness, "images stand alone", "has another score when it is alone"),
        (Blind, "scores", "scores an image without a twin"),
        (FirstOnly, "value", "the order of the images changes the value"),
    ],
)
def test_each_broken_promise_of_a_metric_is_named(cls, check, part):
    assert part in failed(check_metric(cls, name="broken"))[check]


@pytest.mark.parametrize("name", ["evaluations", "no_op"])
def test_metrics_of_negbench_keep_their_promises(name):
    from negbench.metrics import metrics

    assert failed(check_metric(metrics.get(name), name=name)) == {}


# Generators -----------------------------------------------------------------------------------


class CountsPictures(FakeGenerator):
    def draw(self, requests):
        for number, item in enumerate(super().draw(requests)):
            yield Drawn(key=item.key, pixels=item.pixels + np.uint8(number), evaluations=1)


class DependsOnCompany(FakeGenerator):
    def draw(self, requests):
        for item in super().draw(requests):
            shift = np.uint8(len(requests))
            yield Drawn(key=item.key, pixels=item.pixels + shift, evaluations=item.evaluations)


def test_generators_are_tried_too():
    small = {"size": 8}
    assert failed(check_generator(FakeGenerator, name="fake", params=small)) == {}
    wrong = failed(check_generator(CountsPictures, name="wrong", params=small))
    assert wrong == {"draws": "declares 50 predictions and spends 1"}
    wrong = failed(check_generator(DependsOnCompany, name="wrong", params=small))
    assert wrong == {"pictures stand alone": "a picture differs when it is drawn alone"}


# Names, files and the command -------------------------------------------------------------------


FILE = """
from negbench.guidance import Rule, rules
from negbench.guidance.base import EMPTY, POSITIVE, Neutral, negative
from negbench.methods import Method, methods

@rules.register({rule!r})
class Half(Rule):
    "Half of the way away from the negative."
    neutral = (Neutral(equals="positive", params={{}}, scale=1.0),)
    def needs(self, step):
        if self.scale == 1:
            return (POSITIVE,)
        return (negative(0) if self.weights else EMPTY, POSITIVE)
    def combine(self, predictions, x_t, step, state):
        c = predictions[POSITIVE]
        if self.scale == 1:
            return c, state
        n = predictions[self.needs(step)[0]]
        return c + (self.scale - 1) * {factor} * (c - n), state

@methods.register({method!r})
class Shout(Method):
    "Say the prompt's first word."
    def treat(self, cases, *, seed):
        return [case.prompt[:1] for case in cases]
"""


@pytest.fixture
def command():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(check_plugin)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(item) for item in arguments])


def write(tmp_path, name, factor="0.5"):
    file = tmp_path / f"{name}.py"
    file.write_text(FILE.format(rule=f"{name}-rule", method=f"{name}-method", factor=factor))
    return file


def test_a_file_with_two_sound_parts(tmp_path, command):
    file = write(tmp_path, "conformance_sound")
    result = command(file)
    assert result.exit_code == 0, result.output
    assert "guidance conformance_sound-rule, from" in result.output
    assert "6 of 6 checks hold" in result.output
    assert "FAIL" not in result.output
    assert command(file, "--kind", "method").output.count("checks hold") == 1


def test_a_broken_file_ends_with_one_and_says_why(tmp_path, command):
    file = write(tmp_path, "conformance_broken", factor="c.std()")
    result = command(file, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["passed"] is False
    rule, method = report["parts"]
    assert (rule["kind"], rule["passed"], method["passed"]) == ("guidance", False, True)
    broken = {check["check"] for check in rule["checks"] if not check["passed"]}
    assert broken == {"rows stand alone"}


def test_what_cannot_be_loaded_is_an_error_of_its_own(tmp_path, command):
    empty = tmp_path / "conformance_empty.py"
    empty.write_text("x = 1\n")
    torn = tmp_path / "conformance_torn.py"
    torn.write_text("x = (\n")
    for target, kind, words in [
        (empty, PluginError, "registers nothing"),
        (torn, PluginError, "failed"),
        (tmp_path / "none.py", PluginError, "does not exist"),
        ("perp_ngg", UnknownNameError, "did you mean perp_neg"),
        ("diffusers", ConfigError, "no plug-in"),
    ]:
        result = command(target)
        assert isinstance(result.exception, kind), target
        assert words in str(result.exception)
    with pytest.raises(UnknownNameError, match="unknown kind"):
        raise command("cfg", "--kind", "rules").exception


def test_a_name_with_parameters(command):
    assert command("perp_neg", "-p", "weight=2").exit_code == 0
    with pytest.raises(UnknownNameError, match="has no parameter 'wieght'"):
        raise command("perp_neg", "-p", "wieght=2").exception


def test_the_template_package_passes(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(PACKAGE / "src"))
    from negbench_example.fading import Fading
    from negbench_example.opposites import Opposites

    assert failed(check_rule(Fading, name="fading")) == {}
    assert failed(check_method(Opposites, name="opposites")) == {}
    for name in [name for name in sys.modules if name.startswith("negbench_example")]:
        del sys.modules[name]


def test_a_check_never_breaks_off_the_kit():
    def broken():
        raise RuntimeError("line one\nline two")

    assert run("x", broken).message == "raised RuntimeError: line one line two"
