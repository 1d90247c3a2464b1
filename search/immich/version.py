"""Immich's version, by which it is asked in one way or another."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import orjson

VERSION_PATH = "/api/server/version"
_KEPT_SECONDS = 600.0

Version: TypeAlias = tuple[int, int]
"""Major and minor."""


class KnownVersion:
    """The version of one Immich, believed for ten minutes."""

    def __init__(self) -> None:
        self._known: tuple[float, Version] | None = None

    async def read(self, ask: Callable[[], Awaitable[bytes]]) -> Version | None:
        """Return the version; None where it cannot be read. Raises what ``ask`` raises.

        ``ask`` returns Immich's answer to ``GET`` of ``VERSION_PATH``.
        """
        if self._known is None or time.monotonic() > self._known[0]:
            found = _version_of(await ask())
            if found is None:
                return None
            self._known = time.monotonic() + _KEPT_SECONDS, found
        return self._known[1]


def _version_of(answer: bytes) -> Version | None:
    try:
        told = orjson.loads(answer)
        return int(told["major"]), int(told["minor"])
    except (ValueError, KeyError, TypeError):
        return None
