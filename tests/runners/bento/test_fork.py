"""Workers forked from their watcher: what they take over from it, what they must not, and when they are started anew
instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import circus.process
import psutil
import pytest

from runners.bento import fork

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")

# A watcher with all that a worker must not keep, and a worker that runs the lines it is given.
WATCHER = """
import asyncio, atexit, json, os, signal, socket, sys, tempfile, types
import errors, prometheus_client
from runners.bento import fork

worker = types.ModuleType(fork._WORKER)
def main(arguments):
    exec(arguments[1], {"arguments": arguments})
worker.main = main
sys.modules[fork._WORKER] = worker
fork._SHARED = ()

signal.signal(signal.SIGTERM, lambda *_: print("the watcher's handler"))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
atexit.register(print, "the watcher's exit handler", flush=True)
closed, passed_on = tempfile.TemporaryFile(), tempfile.TemporaryFile()
os.set_inheritable(passed_on.fileno(), True)
assert fork.fork_workers()

async def watch():
    import circus.process
    arguments = ["--service-name", sys.argv[1], str(closed.fileno()), str(passed_on.fileno())]
    command = [sys.executable, "-m", fork._WORKER, *arguments]
    return circus.process.Popen(command, env={"ONLY": "this"}, preexec_fn=os.setsid, close_fds=False)

process = asyncio.run(watch())
print(json.dumps({"status": process.wait(), "pid": process.pid}), flush=True)
"""


def run_worker(body: str) -> tuple[list[str], dict[str, Any], str]:
    """Return the lines that the worker printed; its exit status and pid; and what was written to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHER, body], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    *lines, end, goodbye = done.stdout.splitlines()
    assert goodbye == "the watcher's exit handler"
    found: dict[str, Any] = json.loads(end)
    return lines, found, done.stderr


def test_a_worker_leaves_behind_what_is_the_watchers() -> None:
    lines, end, _ = run_worker(
        """
import asyncio, gc, json, os, signal, sys
def is_open(number):
    return os.readlink(f"/proc/self/fd/{number}") != "/dev/null"
print(json.dumps({
    "environment": dict(os.environ),
    "argv": sys.argv[2:],
    "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
    "int": signal.getsignal(signal.SIGINT) == signal.default_int_handler,
    "pipe": signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN,
    "open": [is_open(number) for number in arguments[2:]],
    "own": [name for name in sys.modules if name in ("errors", "runners.bento.fork", "prometheus_client")],
    "shared": "psutil" in sys.modules,
    "collects": gc.isenabled(),
    "pid": os.getpid(), "session": os.getsid(0),
}))
async def loop():
    return 1
assert asyncio.run(loop()) == 1
"""
    )
    found = json.loads(lines[0])
    assert found["environment"] == {"ONLY": "this"}
    assert found["argv"][0].strip().startswith("import")
    assert found["collects"]
    assert found["term"]
    assert found["int"]
    assert found["pipe"], "or a client that hangs up would kill the process"
    assert found["open"] == [False, True]
    assert found["own"] == []
    assert found["shared"]
    assert found["pid"] == found["session"] == end["pid"]
    assert end["status"] == 0


def test_a_workers_exit_handlers_run_and_its_threads_are_waited_for() -> None:
    lines, end, _ = run_worker(
        """
import atexit, threading, time
atexit.register(print, "the worker's own")
threading.Thread(target=lambda: (time.sleep(0.2), print("a thread's"))).start()
"""
    )
    assert lines == ["a thread's", "the worker's own"]
    assert end["status"] == 0


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('words')", 1, ""),
        ("raise ValueError('of the worker')", 1, "of the worker"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15, ""),
    ],
)
def test_how_a_worker_ends_is_told_to_the_watcher(body: str, status: int, told: str) -> None:
    lines, end, written = run_worker(body)
    assert lines == []
    assert end["status"] == status
    assert told in written


class Started(Exception):
    """In place of a process."""


@pytest.fixture
def without_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    def anew(args: object, *, preexec_fn: object, env: object) -> None:
        assert preexec_fn is None, "this would be forked"
        raise Started

    monkeypatch.setattr(psutil, "Popen", anew)


WORKER = [sys.executable, "-m", "_bentoml_impl.worker.service"]


@pytest.mark.usefixtures("without_fork")
@pytest.mark.parametrize(
    "command",
    [["/bin/true"], [sys.executable, "-c", "pass"], ["/another/python", *WORKER[1:]], [*WORKER, "--development-mode"]],
    ids=["program", "python", "another python", "development"],
)
def test_other_programs_are_started_as_ever(command: list[str]) -> None:
    with pytest.raises(Started):
        fork._start(command, env={})


@pytest.mark.usefixtures("without_fork")
@pytest.mark.parametrize("library", ["openvino", "onnxruntime", "torch"])
def test_a_watcher_that_has_loaded_an_engine_is_not_forked(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, ModuleType(library))
    with pytest.raises(Started):
        fork._start(WORKER, env={})


def test_circus_starts_processes_by_the_name_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert circus.process.Popen is psutil.Popen
    monkeypatch.setattr(circus.process, "Popen", psutil.Popen)
    assert fork.fork_workers()
    assert circus.process.Popen is fork._start
