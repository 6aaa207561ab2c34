"""WHAT a negative prompt says: methods by name."""

from __future__ import annotations

from negbench.methods.base import Method, Pair, Training
from negbench.registry import Registry

methods: Registry[Method] = Registry(
    "method",
    group="negbench.methods",
    base="negbench.methods.base:Method",
    builtins={
        "none": ("negbench.methods.none:NoNegative", "no negative prompt: the twin itself"),
        "static": ("negbench.methods.static:Static", "one list for every prompt"),
        "human": ("negbench.methods.human:Human", "the negative that the case's own user wrote"),
        "concept": ("negbench.methods.concept:Concept", "the concept to remove, by its bare name"),
        "placebo": ("negbench.methods.placebo:Placebo", "another user's negative, drawn by seed"),
        "popular": ("negbench.methods.popular:Popular", "the k most frequent training tags"),
        "nearest": ("negbench.methods.nearest:Nearest", "the nearest training prompt's negative"),
        "search": (
            "negbench.methods.search:Search",
            "evolution over training tags against the reward (after 2407.01606)",
        ),
        "llm": ("negbench.methods.llm:Llm", "a language model writes it, few-shot"),
        "embedding": (
            "negbench.methods.embedding:LearnedEmbedding",
            "a learned embedding: textual inversion, ReNeg (2412.19637)",
        ),
        "negopt": ("negbench.methods.negopt:NegOpt", "a seq2seq model writes it (2403.07605)"),
    },
)

__all__ = ["Method", "Pair", "Training", "methods"]
