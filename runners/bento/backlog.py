"""The connections that the kernel has made for a listening socket and no process has accepted, at the end of a service.

The arbiter, each worker and each fork hold the listening socket open, so that none of them can end it by closing its
own. What connects after the last gateway has stopped to accept would wait, unread, until the last process ends, and be
reset then. A proxy that holds requests sends those again that were refused a connection, but not always those whose
connection broke.

So a stop has three steps: new connections are dropped before they are made (``drop_new``; their kernel tries again
after a second), the gateways accept those that were made by then, and the socket stops listening (``refuse``): whoever
tries again is refused at once.
"""

from __future__ import annotations

import ctypes
import logging
import socket
import struct
import sys

log = logging.getLogger("service")

HANDSHAKE = 0.2
"""Seconds in which a connection that began before ``drop_new`` is made, and accepted by a gateway."""
_SO_ATTACH_FILTER = 26
"""Of Linux's ``asm-generic/socket.h``, which Python does not name."""
_LOAD_BYTE, _JUMP_IF_SET, _RETURN = 0x30, 0x45, 0x06
_TCP_FLAGS, _SYN = 13, 0x02
_WHOLE_PACKET = 0xFFFFFFFF
_DROP_SYN = (
    (_LOAD_BYTE, 0, 0, _TCP_FLAGS),
    (_JUMP_IF_SET, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _WHOLE_PACKET),
)
"""A program for the kernel's packet filter, as (code, steps if true, steps if false, value): drop what asks for a
connection. It sees a packet from its TCP header on. A connection that is made inherits it, and is not hindered."""


def drop_new(listener: socket.socket) -> bool:
    """Have the kernel drop requests for a connection to ``listener``; those that are half made go on.

    Returns whether it does: on Linux. Elsewhere nothing is changed.
    """
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_DROP_SYN), ctypes.addressof(program))
        )
    except OSError as error:
        log.debug("SO_ATTACH_FILTER: %s", error)
        return False
    return True


def refuse(listener: socket.socket) -> None:
    """Have the kernel refuse connections to ``listener``, in every process that holds it, and reset those that no
    process has accepted.
    """
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError as error:  # it does not listen, or this system does not do it
        log.debug("The socket is closed at the end: %s", error)
