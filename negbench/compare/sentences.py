"""What a comparison allows one to say, and what it does not, in a plain sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negbench.numbers import number, p_value, signed, signed_interval

if TYPE_CHECKING:
    from negbench.compare.comparison import Comparison


def conclude(found: Comparison, *, family: int) -> str:
    """One or two sentences: the conclusion, its number, and what more cases would bring."""
    a, b, metric = found.first, found.second, _metric(found)
    if found.delta is None:
        return f"{a} and {b} cannot be compared on {metric}: {found.note or 'nothing to compare'}."
    if found.verdict == "same":
        return f"{a} and {b} score the same on {metric}, image by image."
    unit = _unit(found.unit)
    if found.p is None and found.verdict in ("better", "worse", "higher", "lower"):
        return (
            f"{_relation(found)}: by exactly {signed(found.delta, found.unit)}{unit} on every one "
            f"of {found.n} images, so there is nothing to test."
        )
    if found.p is None:
        return (
            f"{a} minus {b} on {metric} is {signed(found.delta, found.unit)}{unit}, but "
            f"{found.note or 'there is no interval'}; add cases before concluding anything."
        )
    measured = f"{signed_interval(found.delta, found.ci95, found.unit)}{unit}"
    sample = f"{found.n_prompts:,} prompts, {found.n:,} pairs"
    if found.verdict in ("better", "worse", "higher", "lower"):
        return f"{_relation(found)}: {measured} ({sample}; {_test(found, family)})."
    if found.verdict == "leaning":
        return (
            f"{a} may differ from {b} on {metric}: {measured} ({sample}; p {p_value(found.p)}), "
            f"but not after correction for {family} comparisons ({_test(found, family)}); "
            f"conclude nothing from it yet. {_outlook(found)}"
        )
    return (
        f"{a} and {b} cannot be told apart on {metric}: {measured} "
        f"({sample}; {_test(found, family)}). {_bound(found)}{_outlook(found)}"
    )


def _unit(unit: str) -> str:
    return "" if unit in ("1", "score", "share") else f" {unit}"


def _test(found: Comparison, family: int) -> str:
    if family <= 1:
        return f"p {p_value(found.p)}"
    return f"Holm p {p_value(found.p_holm)}"


def _metric(found: Comparison) -> str:
    return found.metric if found.of == "score" else f"{found.metric} (gain over the twin)"


def _relation(found: Comparison) -> str:
    if found.verdict in ("better", "worse"):
        aim = "" if found.higher_is_better else " (lower is better)"
        return f"{found.first} is {found.verdict} than {found.second} on {_metric(found)}{aim}"
    return f"{found.first} has {found.verdict} {_metric(found)} than {found.second}"


def _bound(found: Comparison) -> str:
    if found.ci95 is None:
        return ""
    largest = max(abs(end) for end in found.ci95)
    if found.ci95[0] > 0 or found.ci95[1] < 0:
        return "The interval leaves out 0 and the test does not reject; trust the test. "
    return (
        f"A true difference beyond {number(largest, found.unit)}{_unit(found.unit)} either way is "
        "unlikely. "
    )


def _outlook(found: Comparison) -> str:
    if found.detectable is None:
        return "With so few prompts no forecast is possible."
    here = (
        f"{found.n_prompts:,} prompts find true differences of "
        f"{number(found.detectable, found.unit)}{_unit(found.unit)} in 80 % of samples"
    )
    if found.prompts_needed is None:
        return f"{here}; a difference as small as measured is out of any sample's reach."
    more = found.prompts_needed - found.n_prompts
    if more <= 0:
        return f"{here}; a repeat of this size may well settle it."
    return (
        f"{here}; if the true difference is the measured one, about {found.prompts_needed:,} "
        f"prompts ({more:,} more) would show it as often."
    )
