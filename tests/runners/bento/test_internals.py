"""The touches of other packages' insides: each fits the installed versions, and what it stands on is as it says.

A new version of BentoML, circus, uvicorn or Python that breaks one fails here, not in a request.
"""

from __future__ import annotations

import inspect
import logging
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import circus.controller
import circus.process
import psutil
import pytest
from _bentoml_impl.server import serving
from _bentoml_impl.worker import service as worker
from bentoml._internal.utils.analytics import usage_stats
from circus.arbiter import Arbiter
from circus.controller import Controller
from circus.sighandler import SysHandler
from circus.util import synchronized
from circus.watcher import Watcher

from runners.bento import arbiter, fork, http_limits, stop, usage_reports
from runners.bento.internals import Borrowed, first, lacking_parameters, missing, other_version

ROOT = Path(__file__).parents[3]
ALL = (arbiter.ARBITER, fork.FORK, stop.UVICORN, http_limits.HTTP_PROTOCOL, usage_reports.USAGE_REPORTS)


@pytest.mark.parametrize("touch", ALL, ids=lambda touch: touch.name)
def test_it_fits_the_installed_versions(touch: Borrowed) -> None:
    if touch is fork.FORK and sys.platform != "linux":
        pytest.skip("workers are forked on Linux alone")
    assert touch.misfit() is None


@pytest.mark.parametrize("touch", ALL, ids=lambda touch: touch.name)
def test_the_architecture_page_lists_it(touch: Borrowed) -> None:
    rows = [line for line in (ROOT / "docs/architecture.md").read_text("utf-8").splitlines() if line.startswith("| **")]
    (row,) = [row for row in rows if row.startswith(f"| **{touch.name}**")]
    for command in re.findall(r"(?:pytest|python -m) [^:;,]+", touch.gain):
        assert command.strip() in row


def test_what_does_not_fit_is_logged_once_with_what_happens_instead(caplog: pytest.LogCaptureFixture) -> None:
    touch = Borrowed("a touch", "speed", "a line", "BentoML's own way", misfit=lambda: "it moved")
    with caplog.at_level(logging.WARNING):
        assert not touch.fits()
    (record,) = caplog.records
    assert record.getMessage() == "Not used with these packages: a touch (it moved). Instead: BentoML's own way."


def test_guards_tell_what_is_not_as_expected() -> None:
    assert missing(threading, "Thread.start", "current_thread") is None
    assert missing(threading, "Thread.begin") == "threading has no Thread.begin"
    assert lacking_parameters(signal.signal, "signalnum") is None
    assert lacking_parameters(signal.signal, "action") == "signal takes no action"
    assert other_version("bentoml", at_least="1.0", below="2") is None
    assert str(other_version("bentoml", at_least="9", below="10")).startswith("bentoml is 1.")
    assert first(None, "one", "two") == "one"
    assert first(None, None) is None


@pytest.mark.parametrize("touch", [arbiter.ARBITER, fork.FORK], ids=["arbiter", "fork"])
def test_nothing_is_patched_where_the_guard_says_no(touch: Borrowed, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Borrowed(touch.name, touch.gain, touch.depends_on, touch.otherwise, misfit=lambda: "another version")
    monkeypatch.setattr(arbiter, "ARBITER", refused)
    monkeypatch.setattr(fork, "FORK", refused)
    before = (circus.controller.SysHandler, circus.process.Popen)
    assert not arbiter.watch_workers(lambda: None)
    assert not fork.fork_workers()
    assert (circus.controller.SysHandler, circus.process.Popen) == before


# --- circus's signals


def test_a_controller_makes_its_signal_handler_by_the_name_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(circus.controller, "SysHandler", made.append)
    controller = Controller("tcp://127.0.0.1:1", None, None, None, None)
    assert made == [controller]
    assert controller.sys_hdl is None


def test_circus_calls_a_handler_by_the_signals_name_and_hears_of_children(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"handle_{SysHandler.SIG_NAMES[signal.SIGCHLD]}" in dir(arbiter.SignalHandler)
    assert signal.SIGCHLD in arbiter.SignalHandler.SIGNALS
    for name in ("term", "int", "hup"):
        assert f"handle_{name}" in dir(SysHandler)


def test_a_busy_arbiter_says_what_it_does_and_refuses_a_second_command() -> None:
    class Busy:
        _exclusive_running_command = "arbiter_start_watchers"
        _restarting = False

        @synchronized("arbiter_stop")  # type: ignore[untyped-decorator]
        def stop(self) -> None: ...

    with pytest.raises(Exception, match="already running arbiter_start_watchers"):
        Busy().stop()
    assert '"arbiter_stop"' in inspect.getsource(Arbiter)


def test_a_watcher_has_what_a_reload_uses() -> None:
    watcher = Watcher("service", "true", numprocesses=2, copy_env=True, respawn=False)
    assert (watcher.processes, watcher.hooks, watcher.respawn, watcher.numprocesses) == ({}, {}, False, 2)
    assert isinstance(watcher.env, dict)
    assert watcher.is_stopped()
    assert watcher.spawn_process() is True  # nothing: it is stopped
    watcher.hooks["after_reap"] = lambda **told: told["process_pid"] == 7
    assert watcher.call_hook("after_reap", process_pid=7, exit_code=0) is True
    source = inspect.getsource(Watcher.reap_process)
    assert "after_reap" in source
    assert "exit_code" in source


def test_bentoml_names_its_watchers_as_the_reload_expects() -> None:
    source = inspect.getsource(serving)
    assert f'name="{arbiter.ENTRY_WATCHER}"' in source
    assert f'name=f"{arbiter.ENTRY_WATCHER}_{{svc.name}}"' in source


# --- uvicorn


def test_uvicorns_server_is_found_by_its_signal_handler() -> None:
    """In a process of its own, on a free port, as BentoML runs it."""
    code = """
import asyncio, json, signal, socket, uvicorn
from runners.bento import stop
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                found.append(stop.uvicorn_server())
                stop.stop_promptly(3, keep_alive=77, longest_request=9)
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
found = []
sock = socket.socket(); sock.bind(("127.0.0.1", 0)); sock.listen()
server = uvicorn.Server(uvicorn.Config(app, log_config=None))
async def end():
    while not server.started:
        await asyncio.sleep(0.01)
    assert server.servers and not server.server_state.connections and not server.server_state.tasks
    assert server.server_state.total_requests == 0
    signal.raise_signal(signal.SIGHUP)
async def main():
    await asyncio.gather(server.serve([sock]), end())
asyncio.run(main())
assert found == [server]
assert (server.config.timeout_keep_alive, server.config.timeout_graceful_shutdown) == (77, None)
assert server.should_exit and stop.CloseWhenRetired.retired
print("retired")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "retired\n", done.stderr


# --- BentoML's worker and usage reports


def test_bentomls_worker_is_a_module_with_a_main_and_the_flags_that_are_read() -> None:
    assert serving._SERVICE_WORKER_SCRIPT == fork._WORKER
    assert callable(worker.main)
    flags = {flag for option in worker.main.params for flag in option.opts}
    assert {"--service-name", "--development-mode"} <= flags
    assert circus.process.Popen is psutil.Popen


def test_usage_is_not_reported_even_where_bentoml_has_looked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENTOML_DO_NOT_TRACK", raising=False)
    usage_stats.do_not_track.cache_clear()
    try:
        assert not usage_stats.do_not_track()
        usage_reports.send_no_usage_reports()
        assert usage_stats.do_not_track()
    finally:
        usage_stats.do_not_track.cache_clear()


def test_the_deployment_hook_runs_before_any_socket_is_made() -> None:
    source = inspect.getsource(serving.serve_http.__wrapped__)
    assert source.index("server_on_deployment(svc)") < source.index("CircusSocket(")
    assert source.index("server_on_deployment(svc)") < source.index("create_watcher(")
