"""How many processes the kernel has killed for lack of memory, beside this one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
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
        before, self._count = self._count, count_memory_kills()
        if before is not None and self._count is not None and self._count > before:
            self._noticed = time.monotonic()
        return time.monotonic() - self._noticed < _LATELY


def count_memory_kills(root: Path = _CGROUPS, own_cgroup: Path = _OWN_CGROUP) -> int | None:
    """Return how many processes of this process's control group the kernel has killed for lack of memory, or None.

    Reads ``oom_kill`` of ``memory.events`` (cgroup v2) or of ``memory.oom_control`` (v1), of the nearest group that has
    it.
    """
    for file in _files(root, own_cgroup):
        try:
            return int(dict(row.split() for row in file.read_text(encoding="ascii").splitlines())["oom_kill"])
        except (OSError, KeyError, ValueError):  # another kernel, or a group outside of this namespace
            continue
    return None


def _files(root: Path, own_cgroup: Path) -> Iterator[Path]:
    """Yield the files that may hold the count: of this process's group first, then of the groups around it."""
    try:
        lines = own_cgroup.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, name = root / "memory", "memory.oom_control"
        elif not controllers:
            top, name = root, "memory.events"
        else:
            continue
        group = top / path.lstrip("/")
        yield from (folder / name for folder in (group, *group.parents) if folder == top or top in folder.parents)
