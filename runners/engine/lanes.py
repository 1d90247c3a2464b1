"""How many threads a call of a small graph takes: all while it is alone in its process, one while others compute beside
it.

Small graphs (faces, lines of text) gain little from a second thread. Measured on 2 cores: faces take 36 ms with two
threads and 42 ms with one, pages 160 and 220. So two threads are quicker for whoever is alone, but two callers are
served 1.3 to 1.6 times as fast by one each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from runners.engine.idle import watch
from runners.engine.session import Session, TensorSpec

_guard = threading.Lock()
_working = 0


@contextmanager
def working() -> Iterator[None]:
    """Counts as one that computes, for the length of the block: a batch of some model of this process."""
    global _working
    with _guard:
        _working += 1
    try:
        yield
    finally:
        with _guard:
            _working -= 1


def others_work() -> bool:
    """Whether more than one batch is in work in this process."""
    return _working > 1


class LanedSession:
    """One graph, opened for all threads, and again for one thread as often as there are lanes, once several batches
    meet. Thread-safe.
    """

    def __init__(self, open_with: Callable[[int], Session], threads: int) -> None:
        """``open_with``: opens the graph for so many threads. ``threads``: of the whole process; as many are its
        lanes.
        """
        self._open_with = open_with
        self._lanes = threads
        self._wide = open_with(threads)
        self._narrow: list[Session] = []
        self._free: list[Session] = []
        self._changed = threading.Condition()  # guards both lists
        self._last_used = time.monotonic()
        watch(self)

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        return self._wide.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        return self._wide.outputs

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._wide.metadata

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if not others_work():
            return self._wide.run(feeds)
        lane = self._take_lane()
        try:
            return lane.run(feeds)
        finally:
            with self._changed:
                self._free.append(lane)
                self._last_used = time.monotonic()
                self._changed.notify()

    def _take_lane(self) -> Session:
        """Lanes are opened by the first call beside another: who never has two callers does not pay for their
        memory.
        """
        with self._changed:
            while len(self._narrow) < self._lanes:
                lane = self._open_with(1)
                self._narrow.append(lane)
                self._free.append(lane)
            while not self._free:
                self._changed.wait()
            return self._free.pop()

    def rest(self, idle_for: float) -> bool:
        """Close the lanes if none was used for ``idle_for`` seconds. Whether there were any."""
        with self._changed:
            busy = len(self._free) < len(self._narrow)
            if busy or not self._narrow or time.monotonic() - self._last_used < idle_for:
                return False
            self._close_lanes()
            return True

    def close(self) -> None:
        with self._changed:
            self._wide.close()
            self._close_lanes()

    def _close_lanes(self) -> None:
        for lane in self._narrow:
            lane.close()
        self._narrow.clear()
        self._free.clear()
