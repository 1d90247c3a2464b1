"""The processes of a server, found by its pid or its listening port; their CPU time and memory together."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of CPU, as ``utime`` and ``stime`` of ``/proc/PID/stat`` have them.

    The kernel knows the sum exactly. Most kernels share it out by what they found at each tick (4 or 10 ms), so that
    the parts want a second of work or more.
    """

    user: float
    system: float
    """In the kernel: page faults, sockets, files."""

    @property
    def total(self) -> float:
        """Return both together."""
        return self.user + self.system

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.user - earlier.user, self.system - earlier.system)

    def __truediv__(self, count: float) -> CpuTime:
        return CpuTime(self.user / count, self.system / count)


@dataclass(frozen=True, slots=True)
class ProcessTree:
    """A server's first process and all its descendants, looked up anew for every figure."""

    pid: int

    def processes(self) -> list[psutil.Process]:
        """List the processes, the first one first. Empty if it has ended."""
        try:
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu(self) -> CpuTime:
        """Return the CPU time of all of them so far, without that of processes that have ended."""
        return cpu_of(self.processes())

    def pss(self) -> float:
        """Return MB of proportional set size, summed: pages that n processes share count 1/n in each."""
        return sum_of_pss(self.processes())


def cpu_of(processes: Iterable[psutil.Process]) -> CpuTime:
    """Return the CPU time of ``processes`` so far, without those that have ended."""
    user = system = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            user, system = user + times.user, system + times.system
    return CpuTime(user, system)


def sum_of_pss(processes: Iterable[psutil.Process]) -> float:
    """Return MB of ``processes`` together, without those that have ended."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process_pss(process)
    return total


def process_pss(process: psutil.Process) -> float:
    """Return MB of one process, from ``smaps_rollup``, which the kernel sums up.

    Where that file is missing psutil adds up the long ``smaps``.
    """
    try:
        return kernel_sizes(process.pid, "smaps_rollup").get("Pss", 0) / 2**20
    except FileNotFoundError:
        return float(process.memory_full_info().pss) / 2**20
    except ProcessLookupError as error:  # it has ended, and was not waited for
        raise psutil.NoSuchProcess(process.pid) from error


def kernel_sizes(pid: int, file: Literal["smaps_rollup", "status"]) -> dict[str, int]:
    """Return the sizes in one of the kernel's files about a process, in bytes by name."""
    lines = (line.split() for line in Path(f"/proc/{pid}/{file}").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1:] == ["kB"]}


def tree_of(url: str, pid: int | None = None) -> ProcessTree | None:
    """Return the processes of the server at ``url``: those of ``pid`` if given, else of whoever listens there.

    The first process is the topmost that can be seen to hold the listening socket: its workers inherit that. None: the
    server is not on this machine, or its processes are hidden from us.
    """
    if pid is not None:
        return ProcessTree(pid)
    address = urlsplit(url)
    if not _is_local(address.hostname or ""):
        return None
    try:
        found = next(
            (
                holder.pid
                for holder in psutil.net_connections("tcp")
                if holder.pid and _listens(holder, address.port or 80)
            ),
            None,
        )
        if found is None:
            return None
        process = psutil.Process(found)
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return None
    with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
        while (parent := process.parent()) and any(
            _listens(one, address.port or 80) for one in parent.net_connections("tcp")
        ):
            process = parent
    return ProcessTree(process.pid)


def _listens(connection: Any, port: int) -> bool:
    return bool(connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port)


def _is_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(socket.gethostbyname(host))
    except OSError:
        return False
    own = {one.address for addresses in psutil.net_if_addrs().values() for one in addresses}
    return address.is_loopback or str(address) in own
