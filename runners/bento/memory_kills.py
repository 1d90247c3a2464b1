"""The number of processes that the kernel has killed for lack of memory, beside this one."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path

from models.cgroups import MEMBERSHIP, MOUNTS, cgroup_folders

_LATELY = 60.0
"""Seconds after a kill was noticed for which it explains what else is missing."""


class MemoryKills:
    """Tells whether the kernel kills processes here for lack of memory."""

    def __init__(self) -> None:
        self._count = count_memory_kills()
        self._noticed = -math.inf

    def lately(self) -> bool:
        """Return whether the count rose since the last look, or within a minute before it. False where nobody counts.

        Reads two small files.
        """
        if self.rose():
            self._noticed = time.monotonic()
        return time.monotonic() - self._noticed < _LATELY

    def rose(self) -> bool:
        """Return whether the count rose since the last look, of ``lately`` too. False where nobody counts."""
        before, self._count = self._count, count_memory_kills()
        return before is not None and self._count is not None and self._count > before


def count_memory_kills(mounts: Path = MOUNTS, membership: Path = MEMBERSHIP) -> int | None:
    """Return how many processes of this process's control group the kernel has killed for lack of memory, or None.

    Reads ``oom_kill`` of ``memory.events`` (cgroup v2) or of ``memory.oom_control`` (v1), of the nearest group that has
    it. ``mounts``, ``membership``: as in ``models.cgroups``.
    """
    for folder in cgroup_folders("memory", mounts, membership):
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError, KeyError, ValueError):  # of the other version, or of an older kernel
                return int(dict(row.split() for row in (folder / name).read_text().splitlines())["oom_kill"])
    return None
