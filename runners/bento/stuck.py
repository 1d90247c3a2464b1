"""Ends a process whose event loop stands still, so that its watcher starts a fresh one.

A process can be stopped for good by a lock of a native library: one thread holds Python's interpreter lock and waits
for another, which needs it to go on. Seen once in some 170 starts, while three models were loaded at once on a busy
machine: no process died, and six requests waited until they were given up. What held it was not found.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
from collections.abc import Callable
from contextlib import suppress

_LEAST = 1.0
"""Seconds for which any loop may stand still."""
_BEATS = 12
"""Signs of life within the time after which a process counts as stuck."""


def end_if_stuck(after: float) -> Callable[[], None]:
    """Have this process ended, with status 1, once the running event loop has stood still for ``after`` seconds.

    A thread of ``faulthandler`` does it, which needs no lock of Python's; it first writes to standard error what every
    thread was doing. 0 never ends it, and less than a second counts as one. Returns a function that stops watching.
    """
    if not after:
        return lambda: None
    after = max(_LEAST, after)
    loop = asyncio.get_running_loop()
    next_beat: asyncio.TimerHandle | None = None
    outlet = _outlet()

    def beat() -> None:
        nonlocal next_beat
        faulthandler.dump_traceback_later(after, exit=True, file=outlet)
        next_beat = loop.call_later(after / _BEATS, beat)

    def stop() -> None:
        if next_beat is not None:
            next_beat.cancel()
        faulthandler.cancel_dump_traceback_later()
        with suppress(OSError):
            os.close(outlet)

    beat()
    return stop


def _outlet() -> int:
    """Open standard error anew, so that writing does not wait for a reader that is gone or stuck itself.

    Where it cannot be opened (a socket), it is used as it is; where there is none, /dev/null.
    """
    if sys.stderr is not None:
        with suppress(OSError):
            return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        with suppress(OSError):
            return os.dup(2)
    return os.open(os.devnull, os.O_WRONLY)
