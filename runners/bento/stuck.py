"""Ends a process whose event loop stands still, so that its watcher starts a fresh one.

A process can be stopped for good by a lock of a native library: one thread holds Python's interpreter lock and waits
for another, which needs it to go on. Seen once in some 170 starts, while three models were loaded at once on a busy
machine: no process died, and six requests waited until they were given up. What held it was not found.
"""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import Callable

_BEATS = 12
"""Signs of life within the time after which a process counts as stuck."""


def end_if_stuck(after: float) -> Callable[[], None]:
    """Have this process ended, with status 1, once the running event loop has stood still for ``after`` seconds.

    A thread of ``faulthandler`` does it, which needs no lock of Python's; it first writes to standard error what every
    thread was doing. 0 never ends it. Returns a function that stops watching.
    """
    if not after:
        return lambda: None
    loop = asyncio.get_running_loop()
    next_beat: asyncio.TimerHandle | None = None

    def beat() -> None:
        nonlocal next_beat
        faulthandler.dump_traceback_later(after, exit=True)
        next_beat = loop.call_later(after / _BEATS, beat)

    def stop() -> None:
        if next_beat is not None:
            next_beat.cancel()
        faulthandler.cancel_dump_traceback_later()

    beat()
    return stop
