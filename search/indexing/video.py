"""The middle frame of a video, taken by a process of its own (``video_frame``), with limits on time, memory and
answer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from errors import ErrorCode, ServiceError

SECONDS = 120.0
"""By the clock; a slow disk far away counts too."""

_ROOT = Path(__file__).resolve().parents[2]


def middle_frame(uri: str, *, max_pixels: int, seconds: float = SECONDS) -> bytes:
    """Return a JPEG of the frame in the middle of the video. Blocks. Raises ``ServiceError`` UNREADABLE_PICTURE."""
    command = [sys.executable, "-m", "search.indexing.video_frame", uri, str(max_pixels)]
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    try:
        # A session of its own: Ctrl+C is for the one who asked, and what is in flight is finished.
        done = subprocess.run(  # noqa: S603 - this Python; the uri is one argument
            command,
            capture_output=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise _unreadable(f"no picture came of it in {seconds:g} s") from error
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if done.returncode == 2 and lines:
        raise _unreadable(lines[-1][:300])
    raise _unreadable(
        f"the process that decoded it ended with {done.returncode} ({lines[-1][:200] if lines else 'without a word'})"
    )


def _unreadable(why: str) -> ServiceError:
    return ServiceError(ErrorCode.UNREADABLE_PICTURE, f"No picture could be taken from the video: {why}.")
