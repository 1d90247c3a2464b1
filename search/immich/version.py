"""Immich's version, by which it is asked in one way or another."""

from __future__ import annotations

from typing import TypeAlias

import orjson

VERSION_PATH = "/api/server/version"

Version: TypeAlias = tuple[int, int]
"""Major and minor."""


def version_of(answer: bytes) -> Version | None:
    """Return the version in Immich's answer to ``GET`` of ``VERSION_PATH``; None where it cannot be read."""
    try:
        told = orjson.loads(answer)
        return int(told["major"]), int(told["minor"])
    except (ValueError, KeyError, TypeError):
        return None
