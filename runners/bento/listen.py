"""A check that the address which the service is to listen on can be had, made before BentoML opens any socket."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from pathlib import Path

import psutil

_WATCHER_ARGUMENTS = {"bentoml", "serve"}
"""In the command line of the process that starts and watches the workers."""
_OUR_NAME = "immich_bento"
"""Name of the gateway worker, as a process that was forked or by its arguments."""


def address_problem(host: str, port: int, variable: str = "IMMICH_PORT") -> str | None:
    """Return why ``host`` (an IP address) and ``port`` cannot be listened on, in one sentence, or None if they can.

    ``variable``: the setting, or the flag, that the port was read from.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return f"IMMICH_HOST={host} is no IP address; 0.0.0.0 listens on all addresses of this machine."
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as circus does
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return _explain(error, host, port, variable)
    return None


def _explain(error: OSError, host: str, port: int, variable: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken by {_who_to_end(port)}, or choose another port with {variable} (now {port})."
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"port {port} needs rights that this user does not have (ports below 1024 do). Choose another with "
            f"{variable}, such as 3003."
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return (
            f"IMMICH_HOST={host} is not an address of this machine, which has {', '.join(own_addresses())}; 0.0.0.0 "
            "listens on all of them."
        )
    return f"{host} port {port} cannot be listened on: {error.strerror}."


def _who_to_end(port: int) -> str:
    """Return who listens on ``port``, and how to end that."""
    with contextlib.suppress(psutil.Error, OSError):
        process = holder(port)
        if process is not None:
            watcher = watcher_of(process)
            if watcher is not None:
                return (
                    f"another immich-bento (process {watcher.pid}); stop it with Ctrl+C there or `kill {watcher.pid}`"
                )
            return f"{process.name()} (process {process.pid}); end that"
    return "another program; end that"


def holder(port: int) -> psutil.Process | None:
    """Return who listens on TCP ``port``, or None where that may not be seen. Raises ``psutil.Error``, ``OSError``."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
            return psutil.Process(connection.pid)
    return None


def watcher_of(process: psutil.Process) -> psutil.Process | None:
    """Return the process to end to end ``process``, the topmost ``bentoml serve`` above it or it itself.

    Returns None where ``process`` is of no service of this kind. A worker that is ended alone would be started again.
    Raises ``psutil.Error``.
    """
    serving = [one for one in (process, *process.parents()) if _is_watcher(one)]
    if serving and any(is_gateway(one) for one in (process, *serving[-1].children(recursive=True))):
        return serving[-1]
    return None


def _is_watcher(process: psutil.Process) -> bool:
    """Return whether it is a ``bentoml serve``, or was forked from one."""
    program, *arguments = [Path(argument).name for argument in process.cmdline()] or [""]
    return program.startswith(("python", "bentoml")) and {program, *arguments} >= _WATCHER_ARGUMENTS


def is_gateway(process: psutil.Process) -> bool:
    """Return whether ``process`` is the worker that speaks HTTP. Raises ``psutil.Error``."""
    return process.name() == _OUR_NAME or _OUR_NAME in process.cmdline()


def own_addresses() -> list[str]:
    """Return the IPv4 and IPv6 addresses of this machine, without link-local ones."""
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6) and "%" not in entry.address
    ]
    return sorted(set(found), key=lambda text: (":" in text, text)) or ["none"]
