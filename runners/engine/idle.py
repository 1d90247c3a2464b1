"""Open sessions that hold working memory between calls, so that a runner can make the idle ones give it up."""

from __future__ import annotations

import threading
from typing import Protocol
from weakref import WeakSet


class Rests(Protocol):
    """A session that can do with less while nobody uses it."""

    def rest(self, idle_for: float) -> bool:
        """Give up what the next call can make anew, if there was none for ``idle_for`` seconds. Whether anything was
        given up.
        """
        ...


_open: WeakSet[Rests] = WeakSet()
_guard = threading.Lock()


def watch(session: Rests) -> None:
    """Let ``rest_idle_sessions`` know of a session, for as long as somebody else holds it."""
    with _guard:
        _open.add(session)


def rest_idle_sessions(idle_for: float) -> int:
    """Let every session of this process that nobody used for ``idle_for`` seconds rest. Returns how many gave something
    up.
    """
    with _guard:
        sessions = list(_open)
    return sum(session.rest(idle_for) for session in sessions)
