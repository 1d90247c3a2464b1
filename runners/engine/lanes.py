"""Sessions that use all threads while one batch runs in the process, and one thread for each of several batches.

Small graphs (faces, lines of text) gain little from a second thread. Measured on 2 cores: faces take 36 ms with two
threads and 42 ms with one, pages 160 and 220. Two threads are faster for a single caller, but two callers are served
1.3 to 1.6 times as fast with one thread each.

Each batch that runs needs its own working memory: OCR's 370 MB in bf16, half of it the detector's. Where there is
little memory, batches run one after another (docs/containers.md, "Memory limits").
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import psutil
from numpy.typing import NDArray

from models.capacity import usable_memory
from runners.engine.idle import register
from runners.engine.session import Session, TensorSpec

MOST_LANES = 4
"""Batches of one model that compute at the same time, at most. Each takes a copy of the model's graphs."""
LANE_BYTES = 10**9
"""Memory that must be usable for each of them."""
_SPARED_AFTER = 3.0
"""Seconds without a call after which the graph for all threads is shrunk while the lanes work."""

_guard = threading.Lock()
_working = 0


def lanes_of(threads: int, memory: int | None = None) -> int:
    """Return how many batches of one model may compute at the same time in a process with ``threads`` threads.

    ``memory``: bytes for this service; None: the container's limit or, without one, half of the machine's memory, which
    Immich and its database share.
    """
    if memory is None:
        machine = int(psutil.virtual_memory().total)
        limit = usable_memory()
        memory = limit if limit < machine else machine // 2
    return max(1, min(threads, MOST_LANES, memory // LANE_BYTES))


@contextmanager
def working() -> Iterator[None]:
    """Count one more running batch of this process for the length of the block."""
    global _working
    with _guard:
        _working += 1
    try:
        yield
    finally:
        with _guard:
            _working -= 1


def others_work() -> bool:
    """Return whether more than one batch runs in this process."""
    return _working > 1


@runtime_checkable
class Shrinkable(Protocol):
    """A session that can release its working memory and stay open."""

    def shrink(self, idle_for: float) -> bool:
        """Release it if there was no call for ``idle_for`` seconds. Returns whether there was any."""
        ...


class LanedSession:
    """A graph opened once for all threads and, when several batches first run at once, once per lane for one thread.

    Thread-safe.
    """

    def __init__(self, open_with: Callable[[int], Session], threads: int, lanes: int) -> None:
        """Open the graph for all ``threads`` of the process. ``open_with``: opens it for a given number of threads.

        ``lanes``: of one thread each (``lanes_of``).
        """
        self._open_with = open_with
        self._lanes = lanes
        self._wide = open_with(threads)
        self._narrow: list[Session] = []
        self._free: list[Session] = []
        self._is_closed = False
        self._changed = threading.Condition()  # guards the three
        self._last_used = time.monotonic()
        register(self)

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
                if not self._is_closed:
                    self._free.append(lane)
                self._last_used = time.monotonic()
                self._changed.notify()

    def _take_lane(self) -> Session:
        """Return a free lane, waiting for one if need be.

        Lanes are opened by the first call that runs beside another, so that a single caller does not pay for their
        memory.
        """
        with self._changed:
            while True:
                if self._is_closed:
                    raise RuntimeError("The session is closed.")
                while len(self._narrow) < self._lanes:  # while it waited, too, they may have been closed
                    lane = self._open_with(1)
                    self._narrow.append(lane)
                    self._free.append(lane)
                if self._free:
                    return self._free.pop()
                self._changed.wait()

    def trim(self, idle_for: float) -> bool:
        """Close the lanes if none was used for ``idle_for`` seconds; shrink the graph for all threads while they work.

        Returns whether anything was released.
        """
        with self._changed:
            busy = len(self._free) < len(self._narrow)
            idle = time.monotonic() - self._last_used
            if self._narrow and not busy and idle >= idle_for:
                self._close_lanes()
                return True
            work = bool(self._narrow) and (busy or idle < _SPARED_AFTER)
        return work and isinstance(self._wide, Shrinkable) and self._wide.shrink(_SPARED_AFTER)

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._wide.close()
            self._close_lanes()
            self._changed.notify_all()

    def _close_lanes(self) -> None:
        for lane in self._narrow:
            lane.close()
        self._narrow.clear()
        self._free.clear()
