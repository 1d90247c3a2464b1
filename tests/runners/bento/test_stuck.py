"""A process whose event loop stands still is ended, and says what its threads were doing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import asyncio, ctypes, time
from runners.bento.stuck import end_if_stuck

async def main():
    stop = end_if_stuck({after})
    {what}
    print("went on", flush=True)

asyncio.run(main())
"""
HOLDS_THE_INTERPRETER = "ctypes.PyDLL(None).sleep(20)"  # PyDLL keeps the interpreter lock, so that no thread runs
STAYS_AWAY = "time.sleep(2)"


def run(after: float, what: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(after=after, what=what)
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("what", [HOLDS_THE_INTERPRETER, STAYS_AWAY])
def test_a_loop_that_stands_still_ends_its_process(what: str) -> None:
    done = run(0.5, what)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Timeout (0:00:00.500000)!" in done.stderr
    assert "in main" in done.stderr


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (1, "await asyncio.sleep(3)"),
        (1, "await asyncio.to_thread(time.sleep, 3)"),
        (0.5, f"stop(); {STAYS_AWAY}"),
        (0, STAYS_AWAY),
    ],
)
def test_a_loop_that_goes_on_or_is_not_watched_lives(after: float, what: str) -> None:
    done = run(after, what)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
