"""Cards of the shipped case sets: what is in them, how they were made, what they are not for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from negbench.protocols.case_sets import (
    CATEGORIES,
    MINIATURE,
    case_set_names,
    load_case_set,
    read_rows,
    tagged,
)
from negbench.protocols.cases import dataset_digest, order_key
from negbench.protocols.placebo import choose_placebos
from negbench.types import Case

MADE = {
    "concepts-removal": (
        "Cases for removal with models that draw photographs and paintings: short English prompts, "
        "each with something that the prompt implies and does not name.",
        "Written for negbench case by case; no text of anybody else is in it. A concept was taken "
        "where one sentence can say why the prompt makes one expect it; the sentence "
        "stands in the column `why`. A test sees to it that no word of a concept, nor its plain "
        "inflection, stands in its prompt, that every concept occurs once, and that each case has "
        "an unrelated concept of its own kind for the placebo.",
        "Whether a model draws the concept is not known before its twins are drawn: the protocol "
        "counts only triples whose twin shows it and reports their share as `base_rate`. The "
        "expectations are those of one source, in English, and many are clichés about "
        "professions, countries and ages; they are here because models have learned them, not "
        "because they are true. Attributes, styles and words about quality are vaguer than nouns, "
        "and a judge errs on them more often; read them by category.",
    ),
    MINIATURE: (
        "Cases for removal in the miniature's world: every part and attribute that each of its "
        "subjects can show, with the plain prompt of the subject.",
        "Generated from the table of the world (`negbench/miniature/world.py`); nothing was "
        "chosen. A concept is entangled if it is a look of the subject or drawn on it, free if it "
        "is drawn beside it.",
        "How often a twin shows a concept is set by the world and reported as `base_rate`; several "
        "concepts are rare. There are as many prompts as subjects, and intervals are clustered by "
        "prompt, so the set can tell large differences only, however many noises are drawn. How "
        "large an effect is here says nothing about a large model.",
    ),
}


def case_card(name: str) -> str:
    """The card of a shipped case set, Markdown.

    Raises:
        UnknownNameError: there is no such set.
    """
    cases = sorted(load_case_set(name), key=lambda case: order_key(case.id))
    what, made, limits = MADE[name]
    prompts = Counter(case.prompt for case in cases)
    parts = [
        "---\nlicense: apache-2.0\nlanguage:\n- en\n"
        f"pretty_name: {name}\nsize_categories:\n- n<1K\n"
        "tags:\n- negative-prompt\n- concept-removal\n- text-to-image\n---",
        f"# {name}",
        what,
        f"{len(cases)} cases, {len({case.concept for case in cases})} concepts, {len(prompts)} "
        f"prompts (at most {max(prompts.values())} concepts a prompt). sha256 of the cases "
        f"`{dataset_digest(cases)}`. Licence: Apache-2.0, as negbench.",
        "## Cases by category",
        _counts(cases),
        "## How it was made",
        made,
        "## What it is not for",
        limits,
        "## Some cases",
        _examples(name, cases),
        f"Use: `negbench evaluate -b {name} --method concept --guidance window -g start=5 -g "
        "stop=16`. Placebos are chosen by hash of the case among the set's own concepts of the "
        "same category that nothing ties to the prompt.",
    ]
    return "\n\n".join(parts) + "\n"


def _counts(cases: list[Case]) -> str:
    lines = ["| category | cases | entangled with the subject | free |", "|---|---|---|---|"]
    for category in CATEGORIES:
        own = [case for case in cases if tagged(case, "category") == [category]]
        if own:
            yes = sum(tagged(case, "entangled") == ["yes"] for case in own)
            lines.append(f"| {category} | {len(own)} | {yes} | {len(own) - yes} |")
    return "\n".join(lines)


def _examples(name: str, cases: list[Case]) -> str:
    placebos = choose_placebos(cases, cases)
    reasons: dict[str, str] = {}
    if name != MINIATURE:
        reasons = {f"{r['concept']}\0{r['prompt']}": r["why"] for r in read_rows(name)}
    lines = ["| prompt | concept | category | placebo | why |", "|---|---|---|---|---|"]
    for category in CATEGORIES:
        for case in [c for c in cases if tagged(c, "category") == [category]][:3]:
            why = reasons.get(f"{case.concept}\0{case.prompt}", "the subject's table of odds")
            lines.append(
                f"| {case.prompt} | {case.concept} | {category} | {placebos[case.id]} | {why} |"
            )
    return "\n".join(lines)


def write_case_cards(folder: Path) -> None:
    """Write the card of every shipped case set into `folder`."""
    for name in case_set_names():
        (folder / f"{name}.md").write_text(case_card(name), encoding="utf-8")
