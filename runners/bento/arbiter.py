"""The process that starts and watches the workers: what it does when it is signalled and when a worker dies.

BentoML's watcher is an arbiter of circus, which does one thing at a time and answers a second request with a
``ConflictError``. For a signal that error goes to nobody, so a SIGTERM that arrives while workers are started is lost
(https://github.com/circus-tent/circus/issues/935). Here a signal is kept until the arbiter is free. SIGHUP replaces the
workers without losing a request, and SIGCHLD makes the arbiter look for dead workers at once. Before the workers are
told to end, the kernel is told to make no new connections (``runners.bento.backlog``).
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import circus.controller
import psutil
from _bentoml_impl.server.serving import API_SERVER_NAME
from bentoml._internal.utils.circus import Arbiter as BentoArbiter
from circus.arbiter import Arbiter
from circus.client import make_json
from circus.controller import Controller
from circus.process import DEAD_OR_ZOMBIE, UNEXISTING
from circus.sighandler import SysHandler
from circus.watcher import Watcher

from runners.bento import backlog
from runners.bento.deaths import Deaths
from runners.bento.internals import Borrowed, first, lacking_parameters, missing, other_version

log = logging.getLogger("service")

ENTRY_WATCHER = "service"
"""BentoML's name for the watcher of the entry service; those of other services are called ``service_<name>``."""
RETIRES = "IMMICH_BENTO_RETIRES"
"""Variable by which a new worker is told whom it replaces: ``pid:start time``, comma separated."""
_BUSY = 0.05
"""Seconds after which a busy arbiter is asked once more."""
_AGE_OF_A_WORKER = 5.0
"""Seconds after which a worker that dies is replaced at once. One that dies earlier would die again: it waits for the
arbiter's own look, every ten seconds."""
_REFUSED_AFTER = backlog.HANDSHAKE + 0.4
"""Seconds after the signal to end after which connections are refused. By then no gateway accepts any more."""


def _misfit() -> str | None:
    return first(
        other_version("kantoku", at_least="0.18.3", below="0.19"),
        missing(circus.controller, "SysHandler"),
        missing(SysHandler, "SIGNALS", "quit", "reload", "signal"),
        missing(Controller, "_init_syshandler", "dispatch"),
        missing(Arbiter, "manage_watchers", "iter_watchers", "get_socket"),
        missing(Watcher, "spawn_process", "call_hook"),
        None if {"exit_stack", "ExitStack"} <= {*BentoArbiter.__init__.__code__.co_names} else "no Arbiter.exit_stack",
        lacking_parameters(Watcher.__init__, "env", "respawn", "hooks"),
        None if "_exclusive_running_command" in Arbiter.__init__.__code__.co_names else "no _exclusive_running_command",
    )


ARBITER = Borrowed(
    name="the arbiter's signals",
    gain="a SIGTERM during the start ends the service (otherwise never), a killed worker is replaced in 0.1 s instead "
    "of up to 10, SIGHUP loses no request, and a stop none that was connected: pytest tests/e2e/test_lifecycle.py; "
    "pytest tests/e2e/test_reload.py; pytest tests/e2e/test_restarts.py",
    depends_on="circus/controller.py: Controller._init_syshandler; circus/util.py: synchronized; circus/arbiter.py: "
    "Arbiter.get_socket; circus/watcher.py: Watcher.spawn_process, hooks, respawn; "
    "bentoml/_internal/utils/circus/__init__.py: Arbiter.exit_stack; _bentoml_impl/server/serving.py: API_SERVER_NAME; "
    "https://github.com/circus-tent/circus/issues/935",
    otherwise="circus handles signals: a SIGTERM during the start is lost, SIGHUP loses requests",
    misfit=_misfit,
)


def watch_workers(may_reload: Callable[[], str | None]) -> bool:
    """Have the arbiter that BentoML makes in this process handle signals as described above.

    ``may_reload`` returns why a reload must not be begun (wrong settings), or None. Returns whether the installed
    circus allows it.
    """
    if not ARBITER.fits():
        return False
    circus.controller.SysHandler = partial(SignalHandler, may_reload=may_reload)
    return True


class SignalHandler(SysHandler):  # type: ignore[misc] # circus has no types
    """Handles the signals of an arbiter. circus makes one, with its controller, and calls ``handle_<signal>``."""

    SIGNALS = (*SysHandler.SIGNALS, *([signal.SIGCHLD] if sys.platform != "win32" else []))

    def __init__(self, controller: Controller, may_reload: Callable[[], str | None]) -> None:
        super().__init__(controller)
        self._may_reload = may_reload
        self._retired: list[psutil.Process] = []
        self._told_to_retire: set[int] = set()
        deaths = Deaths()
        for watcher in controller.arbiter.watchers:
            # In a container BentoML would end the service when one worker dies, rather than start it again.
            watcher.respawn = True
            watcher.hooks["after_reap"] = deaths.tell

    def quit(self) -> None:
        """End the service, once the arbiter is free."""
        self.controller.loop.add_callback_from_signal(self._when_free, self._quit)

    def reload(self) -> None:
        """Replace the workers, once the arbiter is free."""
        self.controller.loop.add_callback_from_signal(self._when_free, self._reload)

    def handle_chld(self) -> None:
        """Start workers in place of those that have died, once the arbiter is free."""
        self.controller.loop.add_callback_from_signal(self._when_free, self._replace_dead)

    handle_cld = handle_chld  # what circus calls it where Python has both names

    def _when_free(self, act: Callable[[], None]) -> None:
        running = self.controller.arbiter._exclusive_running_command
        if running is None:
            act()
        elif running != "arbiter_stop":
            self.controller.loop.call_later(_BUSY, self._when_free, act)

    def _quit(self) -> None:
        for process in self._retired:
            if process.is_running():
                process.terminate()
        atexit.unregister(_tell_end)  # two signals, one line
        atexit.register(_tell_end)  # the arbiter ends when the last worker has
        _keep_until_the_end(self.controller.arbiter)
        listener = self.controller.arbiter.get_socket(API_SERVER_NAME)
        if listener is not None and backlog.drop_new(listener):
            self.controller.loop.call_later(_REFUSED_AFTER, backlog.refuse, listener)
        self.controller.dispatch((None, make_json("quit")))

    def _replace_dead(self) -> None:
        arbiter = self.controller.arbiter
        fell_early = [
            process.pid
            for watcher in arbiter.iter_watchers()
            for process in watcher.processes.values()
            if process.status in (DEAD_OR_ZOMBIE, UNEXISTING)
            and process.age() < _AGE_OF_A_WORKER
            and process.pid not in self._told_to_retire
        ]
        if not fell_early:
            self.controller.loop.add_future(arbiter.manage_watchers(), _log_failure)

    def _reload(self) -> None:
        problem = self._may_reload()
        if problem is not None:
            log.error("Nothing is reloaded: %s", problem)
            return
        log.info("Reloading: new workers read settings and weights again.")
        self._told_to_retire.clear()
        for watcher in self.controller.arbiter.iter_watchers():
            if watcher.name == ENTRY_WATCHER:
                self._retired = [one for one in self._retired if one.is_running()] + replace_first(watcher)
            elif watcher.name.startswith(f"{ENTRY_WATCHER}_"):
                # Ends once it has answered what it has; SIGCHLD then starts another. Meanwhile connections wait in the
                # socket, which is the arbiter's, and no model is in memory twice.
                # One that is still starting dies of the signal: it has answered nobody yet.
                self._told_to_retire.update(watcher.processes)
                for pid in list(watcher.processes):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGHUP)


def replace_first(watcher: Any) -> list[psutil.Process]:
    """Start new workers beside those of ``watcher``, which then watches the new ones alone.

    A new worker retires the old ones once it can answer (``runners.bento.stop.retire_predecessors``). Returns the old
    ones.
    """
    old = [psutil.Process(pid) for pid in list(watcher.processes) if psutil.pid_exists(pid)]
    watcher.processes.clear()
    watcher.env[RETIRES] = ",".join(f"{process.pid}:{process.create_time()}" for process in old)
    for _ in range(watcher.numprocesses):
        watcher.spawn_process()
    return old


def _keep_until_the_end(arbiter: Any) -> None:
    """Have what BentoML's arbiter clears away as it begins to stop cleared away when this process ends.

    It is the folder of the sockets between the processes: a gateway could not send a runner what it has still to do.
    """
    atexit.register(arbiter.exit_stack.pop_all().close)


def _tell_end() -> None:
    log.info("immich-bento has stopped.")


def _log_failure(future: Any) -> None:
    error = future.exception()
    if error is not None:
        log.error("Looking after the workers failed: %r", error)
