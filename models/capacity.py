"""A check that the disk and the memory of this machine suffice for a model, made before it is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from models.cgroups import MEMBERSHIP, MOUNTS, cgroup_folders

_SERVICE_BYTES = 400 * 10**6
"""Memory that the service takes beside the weights of its models, at least."""

_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Flags of /proc/cpuinfo: Linux's names on x86-64, and on arm64."""


class NotEnough(Exception):
    """The machine lacks disk or memory for a model; the message says how much, and where."""


def require_disk(folder: Path, needed: int, what: str) -> None:
    """Raise ``NotEnough`` if less than ``needed`` bytes are free on the disk of ``folder``; ``what`` needs them."""
    free = free_bytes(folder)
    if free < needed:
        raise NotEnough(
            f"{what} needs {_size(needed)} on the disk of {folder}, where {_size(free)} are free: "
            f"{_size(needed - free)} are missing. Make room there, or name a folder on another disk"
        )


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free on the disk of ``folder``, which need not exist yet."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(existing).free


def require_memory(weights: int, what: str) -> None:
    """Raise ``NotEnough`` if this machine or container cannot hold ``weights`` bytes of fp32, as it computes with them:
    in half precision where its CPU does (L-14-336 then took 1.1 GB in all, and 2.0 GB in fp32).
    """
    needed, usable = (weights // 2 if has_bf16() else weights) + _SERVICE_BYTES, usable_memory()
    if usable < needed:
        raise NotEnough(
            f"{what} needs at least {_size(needed)} of memory; this machine or container has {_size(usable)}: "
            f"{_size(needed - usable)} are missing. Choose a smaller model, or raise the limit"
        )


def has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the CPU multiplies in bf16, so that the engine may keep weights in half precision."""
    try:
        words = set(cpuinfo.read_text().split())
    except OSError:  # no Linux
        return False
    return not _BF16.isdisjoint(words)


def usable_memory(mounts: Path = MOUNTS, membership: Path = MEMBERSHIP) -> int:
    """Return the bytes of memory that this process may use: the machine's, or the least limit of its control groups.

    ``mounts``, ``membership``: as in ``models.cgroups``.
    """
    return min([int(psutil.virtual_memory().total), *_limits(cgroup_folders("memory", mounts, membership))])


def _limits(folders: Iterable[Path]) -> Iterator[int]:
    for folder in folders:
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # of the other version of control groups, or `max`
                yield int((folder / name).read_text())


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{max(1, count // 10**6)} MB"
