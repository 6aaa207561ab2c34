"""A conformance kit for authors of guidance rules, methods, metrics and generators.

Every check says in words what it found. The kit needs no model: rules run on a small made-up
network, methods on made-up cases.
"""
