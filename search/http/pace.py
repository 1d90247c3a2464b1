"""The pace of looks at the texts of Immich: regularly, and soon after Immich has told of a new picture."""

from __future__ import annotations

import asyncio
import time

from serving.deadline import timeout

_SOON = 3.0
"""Seconds between looks after news: Immich reads a new picture a few seconds after it tells of it."""
_SOON_FOR = 60.0
_LEAST = 1.0
"""Seconds between looks, whatever is told."""


class SyncPace:
    """Waits between two looks. Belongs to one event loop."""

    def __init__(self) -> None:
        self._told = asyncio.Event()
        self._soon_until = 0.0

    def look_soon(self) -> None:
        """Have looks follow each other quickly for a minute."""
        self._soon_until = time.monotonic() + _SOON_FOR
        self._told.set()

    async def pause(self, seconds: float) -> None:
        """Wait ``seconds``, or less where there is news."""
        least = min(_LEAST, seconds)
        await asyncio.sleep(least)
        left = min(seconds, _SOON) if time.monotonic() < self._soon_until else seconds
        try:
            async with timeout(left - least):
                await self._told.wait()
        except asyncio.TimeoutError:
            return
        self._told.clear()
