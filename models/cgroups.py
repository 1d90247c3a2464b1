"""The control groups that this process is in, and those around them, whose limits hold for it too (cgroups(7))."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MOUNTS = Path("/sys/fs/cgroup")
"""Where control groups are mounted."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""The file that names the groups of this process."""


def cgroup_folders(controller: str, mounts: Path, membership: Path) -> Iterator[Path]:
    """Yield the folder of each group of this process that ``controller`` (``cpu``, ``memory``) may limit, and of all
    groups around it: of version 2, then of version 1, the innermost first.

    A container often sees a path of the host that is not below its own mount; the mount itself is then its group.
    """
    for roots, path in _memberships(controller, mounts, membership):
        for root in roots:
            folder = root.joinpath(*path.parts[1:]) if ".." not in path.parts else root
            while folder != root:
                yield folder
                folder = folder.parent
            yield root


def _memberships(controller: str, mounts: Path, membership: Path) -> Iterator[tuple[list[Path], PurePosixPath]]:
    """Yield, for each hierarchy with ``controller``, where it may be mounted and this process's path in it."""
    v2, v1, controllers = PurePosixPath("/"), PurePosixPath("/"), controller
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, named = line.partition(":")
        names, _, path = named.partition(":")
        if not names:
            v2 = PurePosixPath(path)
        elif controller in names.split(","):
            v1, controllers = PurePosixPath(path), names
    yield [mounts, mounts / "unified"], v2
    yield sorted({mounts / controller, mounts / controllers}), v1
