"""Turns at the cores of a process, in the order in which they were asked for."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class CoreTurns:
    """A semaphore that is fair: who waits longest is next. A context manager. Thread-safe.

    ``threading.Semaphore`` lets a thread that asks again right after its turn overtake those that wait, so that a busy
    task could keep all others from the cores.
    """

    def __init__(self, number: int) -> None:
        """Take the ``number`` of turns at the same time."""
        self._free = number
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        """Wait for a turn."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the turn, and begin that of the thread that waits longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
