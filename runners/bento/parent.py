"""Ends a worker when the process that watches it has ended, however that came about.

A watcher that is killed (SIGKILL, out of memory) ends nobody: without this its workers would hold the port, and answer
pings, for ever.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time

log = logging.getLogger("service")

ARBITER_PID = "IMMICH_BENTO_ARBITER"
"""Variable in which workers find the process id of their watcher."""
_PR_SET_PDEATHSIG = 1
_LOOK_EVERY = 2.0
"""Seconds between looks at who the parent is."""


def name_arbiter() -> None:
    """Tell the workers that this process will start who watches them."""
    os.environ[ARBITER_PID] = str(os.getpid())


def end_with_parent() -> None:
    """Have this worker told to end (SIGTERM) when its watcher ends. Does nothing in a process that is no worker."""
    arbiter = os.environ.get(ARBITER_PID)
    if arbiter is None or not arbiter.isdigit() or int(arbiter) == os.getpid():
        return
    if sys.platform == "linux":
        _ask_kernel()
    threading.Thread(target=_look, args=(int(arbiter),), name="parent", daemon=True).start()


def _ask_kernel() -> None:
    """Ask Linux to send SIGTERM when the parent ends. Where it refuses, looking remains."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        log.debug("PR_SET_PDEATHSIG: %s", os.strerror(ctypes.get_errno()))


def _look(arbiter: int) -> None:
    # The first look is at once: the parent may have ended before the kernel was asked.
    while os.getppid() == arbiter:
        time.sleep(_LOOK_EVERY)
    log.warning("The process that watches this one is gone; it ends too.")
    os.kill(os.getpid(), signal.SIGTERM)
