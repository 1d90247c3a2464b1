"""New connections to a socket that ends are dropped, then refused; those that were made are hindered by neither."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from runners.bento.backlog import drop_new, refuse

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the packet filter is Linux's")


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family, address = request.param
    with socket.socket(family) as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listener.listen(8)
        listener.settimeout(5)
        yield listener


def connected(listener: socket.socket, timeout: float = 5) -> socket.socket:
    return socket.create_connection(listener.getsockname()[:2], timeout=timeout)


def test_what_is_connected_by_then_is_accepted_and_answered(listener: socket.socket) -> None:
    with connected(listener) as waiting:
        waiting.sendall(b"asked before")
        assert drop_new(listener)
        accepted, _ = listener.accept()
        refuse(listener)
        with accepted:
            assert accepted.recv(100) == b"asked before"
            waiting.sendall(b"asked after")
            assert accepted.recv(100) == b"asked after"
            accepted.sendall(b"answered")
            assert waiting.recv(100) == b"answered"


def test_a_new_connection_is_not_made_and_is_refused_in_the_end(listener: socket.socket) -> None:
    assert drop_new(listener)
    with pytest.raises(TimeoutError):
        connected(listener, timeout=0.3)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    refuse(listener)
    with pytest.raises(ConnectionRefusedError):
        connected(listener)


def test_every_copy_of_the_socket_stops_listening(listener: socket.socket) -> None:
    with listener.dup() as copy:
        refuse(listener)
        assert not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        refuse(copy)  # nothing is raised where it has ended


def test_a_socket_of_another_kind_is_left_alone() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not drop_new(one)
        other.sendall(b"x")
        assert one.recv(1) == b"x"
