"""The arbiter's signals: kept until it is free, and obeyed in the order that loses nothing."""

from __future__ import annotations

import contextlib
import inspect
import signal
import socket
import sys
from functools import partial
from typing import Any, ClassVar

import pytest
from _bentoml_impl.server import serving
from circus.arbiter import Arbiter
from circus.sighandler import SysHandler
from circus.watcher import Watcher

from runners.bento import arbiter


class Loop:
    """A loop that runs callbacks when it is told to."""

    def __init__(self) -> None:
        self.pending: list[Any] = []

    def add_callback_from_signal(self, call: Any, *given: Any) -> None:
        self.pending.append(partial(call, *given))

    def call_later(self, seconds: float, call: Any, *given: Any) -> None:
        assert 0 < seconds < 1
        self.pending.append(partial(call, *given))

    def run(self) -> None:
        pending, self.pending = self.pending, []
        for call in pending:
            call()


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> arbiter.SignalHandler:
    class Arbiting:
        watchers = (Watcher("service", "true", respawn=False),)
        _exclusive_running_command: str | None = "arbiter_start_watchers"
        exit_stack = contextlib.ExitStack()
        sockets: ClassVar[dict[str, socket.socket]] = {}

        def get_socket(self, name: str) -> socket.socket | None:
            return self.sockets.get(name)

    class Controlling:
        arbiter = Arbiting()
        loop = Loop()

        def __init__(self) -> None:
            self.dispatched: list[Any] = []

        def dispatch(self, job: Any) -> None:
            self.dispatched.append(job)

    monkeypatch.setattr(SysHandler, "_register", lambda self: None)
    return arbiter.SignalHandler(Controlling(), may_reload=lambda: "a setting is wrong")


def test_a_signal_is_kept_until_the_arbiter_is_free(handler: arbiter.SignalHandler) -> None:
    controller = handler.controller
    handler.signal(signal.SIGTERM)
    for _ in range(3):
        controller.loop.run()
    assert controller.dispatched == []
    controller.arbiter._exclusive_running_command = None
    controller.loop.run()
    ((sender, message),) = controller.dispatched
    assert sender is None
    assert b"quit" in message
    assert controller.loop.pending == []


def test_what_bentoml_clears_away_as_it_begins_to_stop_is_kept_until_the_end(
    handler: arbiter.SignalHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BentoML's arbiter closes its ``exit_stack`` first of all: it removes the folder of the sockets."""
    at_the_end: list[Any] = []
    monkeypatch.setattr("atexit.register", at_the_end.append)
    controller = handler.controller
    cleared: list[str] = []
    controller.arbiter._exclusive_running_command = None
    controller.arbiter.exit_stack.callback(cleared.append, "sockets")
    handler.signal(signal.SIGTERM)
    controller.loop.run()
    controller.arbiter.exit_stack.close()
    assert cleared == []
    for clear in at_the_end:
        clear()
    assert cleared == ["sockets"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the socket is closed at the end alone")
def test_the_service_that_ends_refuses_connections_and_a_reload_does_not(handler: arbiter.SignalHandler) -> None:
    controller = handler.controller
    controller.arbiter._exclusive_running_command = None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        controller.arbiter.sockets = {serving.API_SERVER_NAME: listener}
        handler.signal(signal.SIGHUP)
        controller.loop.run()
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert controller.loop.pending == []
        handler.signal(signal.SIGTERM)
        controller.loop.run()  # the signal
        assert controller.dispatched != []
        controller.loop.run()  # what it leaves for later
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_bentomls_arbiter_keeps_the_listening_socket_by_its_name() -> None:
    made = Arbiter.__init__
    assert "self.sockets = CircusSockets(sockets)" in inspect.getsource(made)
    assert "self.sockets.get(name, None)" in inspect.getsource(Arbiter.get_socket)
    assert "name=API_SERVER_NAME" in inspect.getsource(serving.serve_http)


def test_an_arbiter_that_ends_is_told_nothing_more(handler: arbiter.SignalHandler) -> None:
    handler.controller.arbiter._exclusive_running_command = "arbiter_stop"
    handler.signal(signal.SIGTERM)
    handler.signal(signal.SIGCHLD)
    handler.controller.loop.run()
    assert handler.controller.dispatched == []
    assert handler.controller.loop.pending == []


def test_workers_are_started_again_in_a_container_too(handler: arbiter.SignalHandler) -> None:
    (watcher,) = handler.controller.arbiter.watchers
    assert watcher.respawn is True
    assert "after_reap" in watcher.hooks


def test_settings_problems_keep_the_workers_that_there_are(
    handler: arbiter.SignalHandler, caplog: pytest.LogCaptureFixture
) -> None:
    handler.controller.arbiter._exclusive_running_command = None
    handler.signal(signal.SIGHUP)
    handler.controller.loop.run()
    assert "Nothing is reloaded: a setting is wrong" in caplog.text
