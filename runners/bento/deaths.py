"""The deaths of workers, told in the log with their cause, an out-of-memory kill by its name."""

from __future__ import annotations

import logging
import signal
from typing import Any

from runners.bento.memory_kills import MemoryKills

log = logging.getLogger("service")

_IF_STUCK = " If the stacks of its threads stand above, it had stood still for STUCK_AFTER seconds (docs/settings.md)."
"""Said of status 1, which ``runners.bento.stuck`` ends a process with, but not that alone."""


class Deaths:
    """Tells of workers that died. Remembers how many the kernel had killed for lack of memory."""

    def __init__(self) -> None:
        self._memory_kills = MemoryKills()

    def tell(self, *, watcher: Any, process_pid: int, exit_code: int | None, **_: Any) -> bool:
        """Log the death of a worker that was not told to end: circus's hook ``after_reap``, whose result it ignores."""
        if watcher.is_stopping() or watcher.is_stopped():
            return True
        name = "The gateway" if watcher.name == "service" else str(watcher.name).removeprefix("service_")
        counted = self._memory_kills.rose()  # at every death, so that each kill explains one
        if exit_code == -signal.SIGKILL:
            log.error(
                "%s (process %d) %s; a fresh one is started. Give the container more memory, or choose smaller models "
                "(docs/models.md).",
                name,
                process_pid,
                "was killed by the kernel: out of memory"
                if counted
                else "was killed (signal 9), as the kernel does when memory runs out",
            )
        elif exit_code and exit_code != -signal.SIGHUP:  # which retires a worker
            log.error(
                "%s (process %d) ended %s; a fresh one is started.%s",
                name,
                process_pid,
                f"by signal {-exit_code}" if exit_code < 0 else f"with status {exit_code}",
                _IF_STUCK if exit_code == 1 else "",
            )
        return True
