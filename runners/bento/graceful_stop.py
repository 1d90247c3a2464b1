"""How a process of this service ends: what runs is finished, and what does not finish in time is cut off.

BentoML sends SIGTERM to all of its processes at once. A runner that obeyed at once would stop listening while the
gateway still has requests for it, and a gateway that waited for that runner would never end. So the gateway obeys at
once, and a runner serves on until nobody has asked for anything for a while. Every process has the same last moment.

Both reach the uvicorn server of their process through its signal handler, which uvicorn has installed by the time that
BentoML's start-up hooks run; BentoML passes on neither keep-alive nor the grace period of ``bentoml serve`` to where
they are needed.

The process that watches the others is circus's, which drops a signal that arrives while it starts a process (at the
first start, and each time that one is replaced): there the signal is kept until circus can obey it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from circus.client import make_json
from circus.controller import Controller
from circus.sighandler import SysHandler

log = logging.getLogger("service")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_QUIET_PERIOD = 1.0
"""Seconds without a request in flight after which a runner believes that the gateway is done."""
_MARGIN = 1.0
"""Seconds after the deadline in which uvicorn may still tidy up before the process is ended by force."""
_BUSY = 0.05
"""Seconds after which circus is told to end once more, if it was busy."""


def uvicorn_server() -> uvicorn.Server | None:
    """The uvicorn server that runs in this process, or None (in tests)."""
    handler = signal.getsignal(signal.SIGTERM)
    server = getattr(handler, "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


def stop_although_busy() -> None:
    """For BentoML's watcher: have a signal that asks it to end obeyed once it has done what it is doing."""
    SysHandler.quit = _quit


def _quit(handler: SysHandler) -> None:
    handler.controller.loop.add_callback_from_signal(_quit_when_free, handler.controller)


def _quit_when_free(controller: Controller) -> None:
    # circus does one thing at a time, and answers a second with a ConflictError, which for a signal goes to nobody.
    running = controller.arbiter._exclusive_running_command
    if running is None:
        controller.dispatch((None, make_json("quit")))
    elif running != "arbiter_stop":
        controller.loop.call_later(_BUSY, _quit_when_free, controller)


def stop_promptly(timeout: float, *, keep_alive: int) -> None:
    """For the gateway: finish running requests within ``timeout`` seconds of SIGTERM. Also sets the keep-alive of idle
    connections (s).
    """
    server = uvicorn_server()
    if server is None:
        return
    server.config.timeout_keep_alive = keep_alive
    server.config.timeout_graceful_shutdown = int(timeout)
    _on_signal(lambda sig, frame: server.handle_exit(sig, frame), timeout)


def stop_when_idle(timeout: float) -> Callable[[], bool]:
    """For a runner: after SIGTERM go on until no request was in flight for a second, at most ``timeout`` seconds.

    Returns a function that ends the process now if nobody is connected to it, and says whether it will. BentoML then
    starts another, and whoever asks meanwhile waits: connections queue in the socket, which is the arbiter's.
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
        deadline, quiet_since = loop.time() + timeout, loop.time()
        while loop.time() < deadline and loop.time() - quiet_since < _QUIET_PERIOD:
            await asyncio.sleep(0.05)
            if server.server_state.tasks:
                quiet_since = loop.time()
        server.config.timeout_graceful_shutdown = max(1, int(deadline - loop.time()))
        server.handle_exit(sig, frame)

    tasks = set()

    def start(sig: int, frame: FrameType | None) -> None:
        tasks.add(loop.create_task(obey_when_quiet(sig, frame)))

    _on_signal(lambda sig, frame: loop.call_soon_threadsafe(start, sig, frame), timeout)
    return end_if_idle


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
    os._exit(0)
