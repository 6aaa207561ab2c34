"""Data sets of prompts with negative prompts: sources, cleaning, splits, cards."""
