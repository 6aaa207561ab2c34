"""The command that draws an entry's run again."""

from __future__ import annotations

import shlex
from typing import Any

from negbench.errors import NegbenchError
from negbench.leaderboard.entry import Entry
from negbench.types import Ref, canonical_json


def command_of(entry: Entry) -> str:
    """The command that draws the entry's run again."""
    plan = entry.plan
    words = ["negbench", "evaluate", "-b", entry.benchmark, "-m", plan.method.name]
    usual = _defaults(plan.method.name, "methods")
    for key, value in sorted(plan.method.params.items()):
        if not key.startswith("sha256:") and (key not in usual or usual[key] != value):
            words += ["-p", f"{key}={_word(value)}"]
    words += _files(plan.method)
    rule = plan.treatment_guidance
    if rule != plan.guidance:
        words += ["--guidance", rule.kind]
        usual = _defaults(rule.kind, "guidance")
        for key, value in sorted(rule.params.items()):
            if key not in usual or usual[key] != value:
                words += ["-g", f"{key}={_word(value)}"]
        if rule.scale != plan.guidance.scale:
            words += ["-g", f"scale={rule.scale:g}"]
    if entry.generator_name != "miniature":
        words += ["--generator", f"GENERATOR-{str(plan.generator.params.get('weights', ''))[:12]}"]
    return " ".join(shlex.quote(word) for word in words)


def _files(method: Ref) -> list[str]:
    """Options for what a method read and its own defaults do not: known by digest, not by name."""
    usual = _defaults(method.name, "methods")
    words = []
    for key in sorted(usual.keys() - method.params.keys()):
        digest = method.params.get(f"sha256:{key}")
        if digest is not None and digest != _usual_digest(method.name, key):
            words += ["-p", f"{key}={key.upper()}-{str(digest)[:12]}"]
    return words


def _usual_digest(name: str, key: str) -> str | None:
    """Digest of what a built-in method reads when nobody says what, or None if it is not here."""
    from negbench.methods import methods

    cls = methods.get(name)
    try:
        return cls(cls.Config()).identity().get(key)
    except NegbenchError:
        return None


def _defaults(name: str, kind: str) -> dict[str, Any]:
    """Parameters that a built-in part has when nobody sets any."""
    from negbench.guidance import rules
    from negbench.methods import methods

    registry: Any = methods if kind == "methods" else rules
    if name not in registry:
        return {}
    cls = registry.get(name)
    if not cls.__module__.startswith("negbench."):
        return {}
    found: dict[str, Any] = {}
    for key, info in cls.Config.model_fields.items():
        if not info.is_required():
            found[key] = info.get_default(call_default_factory=True)
    return found


def _word(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value).decode()
