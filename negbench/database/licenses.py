"""Licences that let a data set be passed on, by the names the Hugging Face hub uses."""

from __future__ import annotations

OPEN = (
    "cc0-1.0", "cc-by", "odc-by", "pddl", "apache-2.0", "mit", "bsd", "isc", "unlicense", "wtfpl",
    "gpl-3.0", "gpl", "lgpl", "agpl", "mpl-2.0", "cdla-permissive", "cdla-sharing", "odbl",
    "openrail", "creativeml-openrail-m", "public-domain", "cc", "etalab-2.0",
)  # fmt: skip


def normal_license(text: str | None) -> str | None:
    """A licence in lower case with hyphens, or None."""
    if text is None or not text.strip():
        return None
    return "-".join(text.strip().lower().replace("_", "-").split())


def may_share(licence: str | None) -> bool:
    """Whether a licence allows passing on a cleaned, changed copy; unknown means no."""
    name = normal_license(licence)
    if name is None or name in ("unknown", "other", "none"):
        return False
    if "-nd" in name or "noderivatives" in name:
        return False
    return any(name == known or name.startswith(f"{known}-") for known in OPEN)
