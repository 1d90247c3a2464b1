"""Worker processes forked from the process that watches them, so that the libraries of all are in memory once.

BentoML's watcher (circus) runs ``python -m _bentoml_impl.worker.service …`` for each worker, and each of these imports
the same 75 MB of libraries in a second of CPU time. Here a worker is the watcher's fork, which runs that same module
without a new interpreter: pages that nobody writes to are shared, and nothing is imported twice but our own. Servers
that preload their application do so too (gunicorn's ``preload_app``).

A fork takes everything over, so first of all it lets go of what is the watcher's: its signal handlers, event loop and
exit handlers, its open files (as an exec would), and this project's own modules, which it imports anew. What must not
be forked, the engines with their threads, the watcher never loads; where it has, workers are started in BentoML's own
way.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import gc
import importlib.util
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import circus.process
import psutil

from runners.bento.internals import Borrowed, first, missing, other_version

log = logging.getLogger("service")

_WORKER = "_bentoml_impl.worker.service"
_SHARED = (_WORKER, "_bentoml_impl.server.app", "uvicorn", "uvloop", "httptools", "PIL.Image")
"""Modules that every worker imports as it starts."""
_NOT_FORKED = ("openvino", "onnxruntime", "torch")
"""Libraries whose threads a fork would be without."""
_COMM = Path("/proc/self/comm")

_left_behind: list[ModuleType] = []
"""The watcher's modules, in a fork: kept, since freeing them would write to pages that are shared."""


def _misfit() -> str | None:
    return first(
        None if sys.platform == "linux" else f"{sys.platform} is not Linux",
        None if (3, 10) <= sys.version_info[:2] <= (3, 13) else "only Python 3.10 to 3.13 are tested",
        other_version("bentoml", at_least="1.4.39", below="1.5"),
        other_version("kantoku", at_least="0.18.3", below="0.19"),
        None if getattr(circus.process, "Popen", None) is psutil.Popen else "circus does not start psutil.Popen",
        None if _WORKER in sys.modules or importlib.util.find_spec(_WORKER) else f"there is no {_WORKER}",
        missing(threading, "_shutdown"),
        missing(atexit, "_run_exitfuncs", "_clear"),
        missing(asyncio, "_set_running_loop"),
    )


FORK = Borrowed(
    name="forked workers",
    gain="144 MB less while idle (PSS of all processes 191 MB instead of 335, 2 cores) and a worker that answers again "
    "1.2 s after it was killed instead of 3.1: python -m tools.bench memory, also with FORK_PROCESSES=false",
    depends_on="circus/process.py: Process.spawn calls Popen(args, preexec_fn=, env=, …); "
    "_bentoml_impl/server/serving.py: _SERVICE_WORKER_SCRIPT; _bentoml_impl/worker/service.py: main; CPython: "
    "threading._shutdown, atexit._run_exitfuncs, atexit._clear, asyncio._set_running_loop. Shared memory is asked in "
    "https://github.com/bentoml/BentoML/issues/1866",
    otherwise="each worker is a Python of its own, as BentoML starts it",
    misfit=_misfit,
)


_also_own: set[str] = set()
"""Modules of the user that this process has imported."""


def fork_workers(also_own: Iterable[str] = ()) -> bool:
    """Have this process, BentoML's watcher, fork its workers from now on. Returns whether it will.

    ``also_own``: modules of others that import ours, which a worker therefore imports anew, as it does ours.
    """
    if not FORK.fits():
        return False
    _also_own.update(name.partition(".")[0] for name in also_own)
    circus.process.Popen = _start
    return True


def _start(
    args: Sequence[str], *, preexec_fn: Callable[[], None] | None = None, env: Mapping[str, str], **options: Any
) -> psutil.Popen:
    """Start a process as ``psutil.Popen`` does, in whose place circus calls this; fork where it is a worker."""
    if not _is_worker(args) or not _may_fork():
        return psutil.Popen(args, preexec_fn=preexec_fn, env=env, **options)
    _warm_up()

    def become_worker() -> NoReturn:
        if preexec_fn is not None:
            preexec_fn()
        _become_worker(args, env)

    # Popen forks, calls this in the child, and takes the program for started once the child has closed its end of a
    # pipe.
    return psutil.Popen(args, preexec_fn=become_worker, env=env, **options)


def _is_worker(args: Sequence[str]) -> bool:
    return list(args[:3]) == [sys.executable, "-m", _WORKER] and "--development-mode" not in args


def _may_fork() -> bool:
    loaded = [name for name in _NOT_FORKED if name in sys.modules]
    if loaded:
        log.debug("Workers are not forked, since %s is loaded.", ", ".join(loaded))
    return not loaded and threading.current_thread() is threading.main_thread() and threading.active_count() == 1


@lru_cache(maxsize=1)
def _warm_up() -> None:
    """Import what workers import, and put all there is where the garbage collector will not write to it
    (``gc.freeze``).
    """
    for name in _SHARED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _become_worker(args: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Run the worker that ``args`` name in this process, just forked, and end it."""
    status = 1
    try:
        _leave_watcher_behind()
        os.environ.clear()
        os.environ.update(environment)
        arguments = list(args[3:])
        with contextlib.suppress(OSError, ValueError):
            _COMM.write_text(arguments[arguments.index("--service-name") + 1])  # what ps and top call it
        sys.argv = [_WORKER, *arguments]
        sys.modules[_WORKER].main(arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the bottom of this process's stack
        traceback.print_exc()
    finally:
        # As at the end of any interpreter; returning would go on as the watcher.
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _leave_watcher_behind() -> None:
    gc.enable()  # subprocess has disabled it for the moments between fork and exec
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for name in ("SIGPIPE", "SIGXFSZ"):  # ignored by any Python; Popen has reset them for another program
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    asyncio._set_running_loop(None)
    asyncio.set_event_loop(None)
    atexit._clear()
    _close_as_exec_would()
    _left_behind.extend(sys.modules.pop(name) for name in _own_modules())


def _close_as_exec_would() -> None:
    """Let go of all files that are marked close-on-exec.

    Their numbers stay taken, by /dev/null: the watcher's objects are still in memory, and would close a file of ours by
    its number.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in sorted(map(int, os.listdir("/proc/self/fd"))):
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            if number not in (0, 1, 2, nothing) and fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                os.dup2(nothing, number, inheritable=False)


def _own_modules() -> list[str]:
    """Return the names of the loaded modules of this project, and of what they set up by the environment as they are
    imported.
    """
    root = Path(__file__).resolve().parents[2]
    names = (
        {path.stem for path in root.glob("*.py")}
        | {path.parent.name for path in root.glob("*/__init__.py")}
        | {"prometheus_client"}
        | _also_own
    )
    return [name for name in sys.modules if name.partition(".")[0] in names]
