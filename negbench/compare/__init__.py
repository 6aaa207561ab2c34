"""Runs against each other: paired on the same cases and noises, with what can be concluded."""
