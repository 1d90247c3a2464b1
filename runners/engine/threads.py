"""Number of threads that this process may compute with: the cgroups' CPU quota, not the host's core count."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_V1_CONTROLLER = "cpu"


def available_cores(mounts: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return how many cores this process may use, at least 1: the smallest of CPU affinity and all cgroup quotas.

    A quota holds for all descendants of a cgroup (systemd sets it on a slice or a service), so every ancestor is read,
    in version 2 and in version 1. ``mounts``: the folder that cgroups are mounted in. ``membership``: the file that
    names the cgroups of this process (cgroups(7)).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _folders(mounts, membership) if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def _folders(mounts: Path, membership: Path) -> Iterator[Path]:
    """Yield the folder of each cgroup of this process that may have a CPU quota, and of all its ancestors.

    A container often sees a path of the host that is not below its own mount; the mount itself is then its cgroup.
    """
    for roots, path in _memberships(mounts, membership):
        for root in roots:
            folder = root.joinpath(*path.parts[1:]) if ".." not in path.parts else root
            while folder != root:
                yield folder
                folder = folder.parent
            yield root


def _memberships(mounts: Path, membership: Path) -> Iterator[tuple[list[Path], PurePosixPath]]:
    """Yield, for each hierarchy with CPU quotas, where it may be mounted and this process's path in it."""
    v2, v1 = PurePosixPath("/"), PurePosixPath("/")
    controllers = _V1_CONTROLLER
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, named = line.partition(":")
        names, _, path = named.partition(":")
        if not names:
            v2 = PurePosixPath(path)
        elif _V1_CONTROLLER in names.split(","):
            v1, controllers = PurePosixPath(path), names
    yield [mounts, mounts / "unified"], v2
    yield sorted({mounts / _V1_CONTROLLER, mounts / controllers}), v1


def _quota(folder: Path) -> float | None:
    """Return the quota of one cgroup in cores; None where it has none."""
    return _quota_v2(folder) or _quota_v1(folder)


def _quota_v2(folder: Path) -> float | None:
    """Read ``cpu.max``, which holds "<quota|max> <period>" in microseconds."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    """Read ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``; a quota of -1 is none."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
