"""The end of a worker: what runs is finished, and what does not finish in time is cut off.

BentoML sends SIGTERM to all of its processes at once. A runner that obeyed at once would stop listening while the
gateway still has requests for it, and a gateway that waited for that runner would never end. So the gateway begins at
once: it accepts the connections that are made by then (``runners.bento.backlog``), answers every request that comes on
a connection that it has, with ``Connection: close``, and ends when none has come for a second. A runner serves on until
the gateways have ended and nobody has asked for anything for a while. Every process has the same last moment, after
which it ends by force, with status 1. A request that the gateway has not answered by then is answered by nothing, and
its connection breaks: a proxy may send it again, which it would not after a 500.

SIGHUP retires a worker because another takes its place: it stops listening (connections wait in the socket, which is
the arbiter's), answers every connection that it has, and ends.

Both reach the uvicorn server of their process through its signal handler, which uvicorn has installed by the time that
BentoML's start-up hooks run; BentoML passes on neither keep-alive nor the grace period to where they are needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import psutil
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from runners.bento.arbiter import RETIRES
from runners.bento.backlog import HANDSHAKE
from runners.bento.internals import Borrowed, first, lacking_parameters, missing, other_version
from runners.bento.listen import is_gateway

log = logging.getLogger("service")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_QUIET_PERIOD = 1.0
"""Seconds without a request in flight after which a runner believes that the gateway is done, and the gateway that its
clients are."""
_MARGIN = 1.0
"""Seconds after the deadline in which uvicorn may still tidy up before the process is ended by force."""
_LAST_REQUEST = 6.0
"""Seconds that a retired gateway keeps an idle connection, on which a request may be on its way. Immich's own client
closes idle connections after 4."""
_TICK = 0.05
"""Seconds between looks at what is in flight."""

UVICORN = Borrowed(
    name="uvicorn's server",
    gain="0 requests lost when the service stops, is reloaded, or keeps connections longer than 5 s: "
    "pytest tests/e2e/test_lifecycle.py; pytest tests/e2e/test_reload.py",
    depends_on="uvicorn/server.py: Server.capture_signals, handle_exit, servers, server_state, config; "
    "https://github.com/bentoml/BentoML/issues/4671 asks for a public way",
    otherwise="uvicorn ends as BentoML configures it: idle connections are closed after 5 s, and a runner stops before "
    "the gateway does",
    misfit=lambda: first(
        other_version("uvicorn", at_least="0.30", below="1"),
        missing(uvicorn.Server, "handle_exit", "capture_signals"),
        missing(ServerState(), "connections", "tasks", "total_requests"),
        lacking_parameters(uvicorn.Config, "timeout_keep_alive", "timeout_graceful_shutdown"),
    ),
)


def uvicorn_server() -> uvicorn.Server | None:
    """Return the uvicorn server that runs in this process, or None (in tests, or where it cannot be reached)."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(server, uvicorn.Server) and UVICORN.fits() else None


def stop_promptly(timeout: float, *, keep_alive: int, longest_request: float) -> None:
    """Finish running requests, and those that come on connections there are, within ``timeout`` seconds of SIGTERM; cut
    the others off. Retire at SIGHUP. For the gateway.

    ``keep_alive``: seconds that an idle connection is kept. ``longest_request``: seconds that a request may take; a
    retired gateway waits that long for those it has.
    """
    server = uvicorn_server()
    if server is None:
        return
    server.config.timeout_keep_alive = keep_alive
    server.config.timeout_graceful_shutdown = None  # uvicorn would answer 500 then
    loop = asyncio.get_running_loop()
    tasks = set()

    async def end(sig: int, frame: FrameType | None) -> None:
        CloseWhenRetired.retired = True
        loop.call_later(timeout, _cut_off, server)
        made_by = loop.time() + HANDSHAKE
        while loop.time() < made_by:  # in steps, so that the loop accepts in between even where it was held up
            await asyncio.sleep(_TICK)
        await _finish(server, timeout, idle=_QUIET_PERIOD)
        server.handle_exit(sig, frame)

    def start(sig: int, frame: FrameType | None) -> None:
        tasks.add(loop.create_task(end(sig, frame)))

    _on_signal(lambda sig, frame: loop.call_soon_threadsafe(start, sig, frame), timeout)
    _on_hangup(lambda: _retire(server, longest_request, idle=_LAST_REQUEST))


def stop_when_idle(timeout: float, *, longest_request: float) -> Callable[[], bool]:
    """Go on after SIGTERM, in a runner, until the gateways have ended and no request was in flight for a second; at
    most ``timeout`` seconds.

    At SIGHUP retire, within ``longest_request`` seconds. Returns a function that ends the process now if nobody is
    connected to it, and says whether it will. BentoML then starts another, and whoever asks meanwhile waits:
    connections queue in the socket, which is the arbiter's.
    """
    server = uvicorn_server()
    if server is None:
        return lambda: False
    loop = asyncio.get_running_loop()

    def end_if_idle() -> bool:
        if server.server_state.connections or server.server_state.tasks:
            return False
        server.should_exit = True
        return True

    async def obey_when_quiet(sig: int, frame: FrameType | None) -> None:
        deadline, quiet_since, gateways = loop.time() + timeout, loop.time(), _gateways()
        while loop.time() < deadline and (loop.time() - quiet_since < _QUIET_PERIOD or any(map(_lives, gateways))):
            await asyncio.sleep(_TICK)
            if server.server_state.tasks:
                quiet_since = loop.time()
        server.config.timeout_graceful_shutdown = max(1, int(deadline - loop.time()))
        server.handle_exit(sig, frame)

    tasks = set()

    def start(sig: int, frame: FrameType | None) -> None:
        tasks.add(loop.create_task(obey_when_quiet(sig, frame)))

    _on_signal(lambda sig, frame: loop.call_soon_threadsafe(start, sig, frame), timeout)
    _on_hangup(lambda: _retire(server, longest_request, idle=0))
    return end_if_idle


def _cut_off(server: uvicorn.Server) -> None:
    """Break every connection that is left; the work for it ends as it does for any client who has gone."""
    for connection in list(server.server_state.connections):
        transport = getattr(connection, "transport", None)
        if transport is not None:
            transport.abort()


def _gateways() -> list[psutil.Process]:
    """Return the gateways of this service, which a runner's watcher watches too."""
    with contextlib.suppress(psutil.Error):
        return [process for process in psutil.Process(os.getppid()).children() if is_gateway(process)]
    return []


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def retire_predecessors() -> None:
    """Retire, for a gateway that can answer now, those that it replaces (``runners.bento.arbiter.replace_first``)."""
    for entry in filter(None, os.environ.get(RETIRES, "").split(",")):
        pid, _, started = entry.partition(":")
        with contextlib.suppress(psutil.Error, ValueError):
            process = psutil.Process(int(pid))
            if process.create_time() == float(started):  # and not another that was given its number
                process.send_signal(signal.SIGHUP)


class CloseWhenRetired:
    """Ends a connection after the answer once this process is retired: its client then connects to the successor."""

    retired = False
    """Of this process."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; add ``connection: close`` where the process is retired by the time of the answer."""

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and CloseWhenRetired.retired:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self.app(scope, receive, send_closing if scope["type"] == "http" else send)


async def _retire(server: uvicorn.Server, longest_request: float, *, idle: float) -> None:
    """End once ``_finish`` has returned."""
    CloseWhenRetired.retired = True
    await _finish(server, longest_request, idle=idle)
    server.should_exit = True


async def _finish(server: uvicorn.Server, longest: float, *, idle: float) -> None:
    """Stop listening, then wait until no connection is left, or those left were idle for ``idle`` seconds (if not 0);
    for ``longest`` seconds at most.
    """
    for listener in server.servers:
        listener.close()
    loop = asyncio.get_running_loop()
    state = server.server_state
    deadline, busy_at, answered = loop.time() + longest, loop.time(), state.total_requests
    while state.connections and loop.time() < deadline:
        if state.tasks or state.total_requests != answered:
            busy_at, answered = loop.time(), state.total_requests
        elif idle and loop.time() - busy_at > idle:
            break
        await asyncio.sleep(_TICK)


def _on_hangup(retire: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Call ``retire`` in the running loop at the first SIGHUP."""
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []

    def start() -> None:
        if not tasks:
            tasks.append(loop.create_task(retire()))

    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(start))


def _on_signal(obey: Callable[[int, FrameType | None], object], timeout: float) -> None:
    """Call ``obey`` at the first signal only, and end the process by force if it is still there after the deadline."""
    stopping = False

    def handle(sig: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            return
        stopping = True
        last_moment = threading.Timer(timeout + _MARGIN, _end_by_force)
        last_moment.daemon = True
        last_moment.start()
        obey(sig, frame)

    for sig in _SIGNALS:
        signal.signal(sig, handle)


def _end_by_force() -> None:
    log.warning("Some work did not finish in time; the process ends without it.")
    os._exit(1)
