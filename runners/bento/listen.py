"""Whether the address that the service is to listen on can be had, found out before BentoML opens any socket."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket

import psutil


def address_problem(host: str, port: int) -> str | None:
    """Return why ``host`` (an IP address) and ``port`` cannot be listened on, in one sentence, or None if they can."""
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
            return _explain(error, host, port)
    return None


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is taken by {holder(port) or 'another program'}. End that, or choose another port with "
            "IMMICH_PORT."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"port {port} needs rights that this user does not have (ports below 1024 do). Choose another with "
            "IMMICH_PORT, such as 3003."
        )
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return (
            f"IMMICH_HOST={host} is not an address of this machine, which has {', '.join(own_addresses())}; 0.0.0.0 "
            "listens on all of them."
        )
    return f"{host} port {port} cannot be listened on: {error.strerror}."


def holder(port: int) -> str | None:
    """Return name and process id of who listens on TCP ``port``, or None where that may not be seen."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return None


def own_addresses() -> list[str]:
    """Return the IPv4 and IPv6 addresses of this machine, without link-local ones."""
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in (socket.AF_INET, socket.AF_INET6) and "%" not in entry.address
    ]
    return sorted(set(found), key=lambda text: (":" in text, text)) or ["none"]
