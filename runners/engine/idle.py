"""Open sessions that hold working memory between calls, and the release of that memory while they are idle."""

from __future__ import annotations

import threading
from typing import Protocol
from weakref import WeakSet


class Trimmable(Protocol):
    """A session that can release memory while it is not used."""

    def trim(self, idle_for: float) -> bool:
        """Release what the next call can make again, if there was no call for ``idle_for`` seconds.

        Returns whether anything was released.
        """
        ...


_open: WeakSet[Trimmable] = WeakSet()
_guard = threading.Lock()


def register(session: Trimmable) -> None:
    """Add ``session`` to those that ``trim_idle_sessions`` trims, for as long as something else refers to it."""
    with _guard:
        _open.add(session)


def trim_idle_sessions(idle_for: float) -> int:
    """Trim all sessions of this process not used for ``idle_for`` seconds; return how many released memory."""
    with _guard:
        sessions = list(_open)
    return sum(session.trim(idle_for) for session in sessions)
