"""The error of a checkpoint that is not converted."""

from __future__ import annotations


def shown(name: str) -> str:
    """Return a name out of a file as a message quotes it: 100 characters at most, none of them a control character."""
    return repr(name if len(name) <= 100 else name[:100] + "…")


class ConversionRefused(Exception):
    """The message says what is wrong with which input, and what to do."""
