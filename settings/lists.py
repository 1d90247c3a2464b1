"""Lists in one value."""

from __future__ import annotations


def names(*lists: str | None) -> tuple[str, ...]:
    """Return the distinct names in comma-separated lists, in order."""
    found = (name.strip() for text in lists for name in (text or "").split(","))
    return tuple(dict.fromkeys(name for name in found if name))
