"""The card of a checkpoint: what it learnt from, how, and what it reached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PAPER = "[NegOpt](https://arxiv.org/abs/2403.07605)"


def _front(base: str, tags: tuple[str, ...]) -> list[str]:
    lines = ["---", "library_name: transformers", "pipeline_tag: text2text-generation"]
    if "/" in base and not base.startswith(("/", ".")):
        lines.append(f"base_model: {json.dumps(base)}")
    lines += ["tags:", *(f"- {tag}" for tag in ("negbench", "negative-prompt", *tags)), "---", ""]
    return lines


def portable(value: Any) -> Any:
    """`value` with absolute paths cut to their last two names: a card is for other machines."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, str) and value.startswith(("/", "~")):
        return "/".join([".", *[part for part in Path(value).parts if part not in "/~"][-2:]])
    return value


def _table(rows: Mapping[str, Any]) -> list[str]:
    lines = ["| | |", "|---|---|"]
    for key, value in rows.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        shown = " ".join(shown.split()).replace("|", "\\|")
        lines.append(f"| {key} | {shown} |")
    return [*lines, ""]


def _use(name: str) -> list[str]:
    return [
        "## Use",
        "",
        "```sh",
        f'negbench suggest "a castle at dusk" --checkpoint {name}',
        f"negbench evaluate -m negopt -p checkpoint={name}",
        "```",
        "",
    ]


def _settings(facts: Mapping[str, Any]) -> list[str]:
    shown = json.dumps(facts["settings"], indent=2, sort_keys=True)
    return ["## Settings", "", "```json", shown, "```", ""]


def sft_card(facts: Mapping[str, Any]) -> str:
    """README.md of a fine-tuned model, Markdown."""
    figures = facts["figures"]
    return "\n".join(
        [
            *_front(facts["base"], ("sft",)),
            "# Writes negative prompts, by imitation",
            "",
            "A sequence-to-sequence model that reads a prompt and writes a negative prompt, in "
            f"the manner of the first stage of {_PAPER}. Trained with negbench; all settings are "
            "negbench's own.",
            "",
            *_table(
                {
                    "stage": "SFT",
                    "base": f"{facts['base']} ({facts['base_digest'][:12]})",
                    "data": f"{facts['db']}, {facts['n_training']} training pairs "
                    f"({facts['data_digest'][:12]})",
                    "step": figures["step"],
                    "validation loss, nats a token": figures["validation_loss"],
                    "tag precision against held-out people": figures["precision"],
                    "tag recall": figures["recall"],
                    "tag F1": figures["f1"],
                    "exact match": figures["exact"],
                    "held-out pairs written": int(figures["n"]),
                }
            ),
            *_use("<this folder>"),
            *_settings(facts),
        ]
    )


def rl_card(facts: Mapping[str, Any]) -> str:
    """README.md of a model improved by reward, Markdown."""
    figures, reward = facts["figures"], facts["reward"]
    weights = ", ".join(f"{term['name']} x {term['weight']:g}" for term in reward["terms"])
    scales = ", ".join(f"{term['name']} {term['scale']:.4g}" for term in reward["terms"])
    return "\n".join(
        [
            *_front(facts["base"], ("rl",)),
            "# Writes negative prompts, by imitation and then by reward",
            "",
            "A sequence-to-sequence model that reads a prompt and writes a negative prompt, in "
            f"the manner of both stages of {_PAPER}. Trained with negbench; the reward's exact "
            "form, the algorithm and all settings are negbench's own.",
            "",
            *_table(
                {
                    "stage": "SFT, then RL",
                    "from": f"{facts['init']} ({facts['init_digest'][:12]})",
                    "data": f"{facts['db']} ({facts['data_digest'][:12]})",
                    "reward (gain over the twin)": weights,
                    "scales, one standard deviation of the SFT model's gains": scales,
                    "drawn with": f"{facts['generator']} ({facts['generator_digest'][:12]})",
                    "step": figures["step"],
                    "mean reward of samples, last steps": figures.get("reward"),
                    "held-out reward, likeliest text": figures.get("validation_reward"),
                    "KL from the SFT model, nats a token": figures.get("kl"),
                }
            ),
            *_use("<this folder>"),
            *_settings(facts),
        ]
    )
