"""Number of threads that this process may compute with: the cgroups' CPU quota, not the host's core count."""

from __future__ import annotations

import math
import os
from pathlib import Path

from models.cgroups import MEMBERSHIP, MOUNTS, cgroup_folders


def available_cores(mounts: Path = MOUNTS, membership: Path = MEMBERSHIP) -> int:
    """Return how many cores this process may use, at least 1: the smallest of CPU affinity and all cgroup quotas.

    A quota holds for all descendants of a cgroup (systemd sets it on a slice or a service), so every ancestor is read.
    ``mounts``, ``membership``: as in ``models.cgroups``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in cgroup_folders("cpu", mounts, membership) if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def keep_opencv_to_the_calling_thread() -> None:
    """Have OpenCV start no threads of its own in this process; call it before OpenCV computes anything.

    The cores are the engines', and OpenCV's threads wait for work by asking the kernel for their turn again and again:
    2.4 ms of CPU for a picture of 3 megapixels, without an answer being earlier. OpenCV reads the variable.
    """
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")


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
