"""Work on a stranger's file in a process of its own, with limits on time, memory and answer.

A decoder may crash, spin or ask for memory without end there, and only that process goes down. It writes its answer to
standard output and ends with 0, or says on standard error in one line what is wrong with the file and ends with 2.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from errors import ErrorCode, ServiceError

SECONDS = 120.0
"""By the clock; a slow disk far away counts too."""
CPU_SECONDS = 60
"""Processor time; the caller also limits the time by the clock."""
MEMORY_BYTES = 4 << 30
"""Address space, of which decoding one picture of 100 megapixels needs about a quarter."""
FAULTY = 2
"""Exit status where the file is at fault."""

_ROOT = Path(__file__).resolve().parents[2]


def run_apart(module: str, *arguments: str, data: bytes | None = None, what: str, seconds: float = SECONDS) -> bytes:
    """Run ``python -m module arguments`` with ``data`` on its standard input, and return what it answers. Blocks.

    ``what``: what is made of which file, for the message. Raises ``ServiceError`` UNREADABLE_PICTURE.
    """
    command = [sys.executable, "-m", module, *arguments]
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    try:
        # A session of its own: Ctrl+C is for the one who asked, and what is in flight is finished.
        done = subprocess.run(  # noqa: S603 - this Python; what comes from outside is an argument of its own
            command,
            input=data,
            capture_output=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise _unreadable(what, f"no picture came of it in {seconds:g} s") from error
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode == FAULTY and lines:
        raise _unreadable(what, lines[-1][:300])
    last = lines[-1][:200] if lines else "without a word"
    raise _unreadable(what, f"the process that decoded it ended with {done.returncode} ({last})")


def limit_process() -> None:
    """Limit processor time and memory of this process, where the system can."""
    if sys.platform != "win32":
        import resource

        for what, most in (
            (resource.RLIMIT_CPU, CPU_SECONDS),
            (resource.RLIMIT_AS, MEMORY_BYTES),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(what)[1]
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _unreadable(what: str, why: str) -> ServiceError:
    return ServiceError(ErrorCode.UNREADABLE_PICTURE, f"{what}: {why}.")
