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
STAYS_AWAY = "time.sleep(3)"


def run(after: float, what: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(after=after, what=what)
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("what", [HOLDS_THE_INTERPRETER, STAYS_AWAY])
def test_a_loop_that_stands_still_ends_its_process(what: str) -> None:
    done = run(1, what)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Timeout (0:00:01)!" in done.stderr
    assert "in main" in done.stderr


def test_nobody_has_to_read_what_it_says() -> None:
    program = PROGRAM.format(after=1, what="import os; os.write(2, b'x' * 2**20)")  # waits for a reader of the pipe
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.communicate()


def test_it_is_watched_without_a_standard_error_too() -> None:
    program = PROGRAM.format(after=1, what=STAYS_AWAY)
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60).returncode == 1


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (1, "await asyncio.sleep(3)"),
        (1, "await asyncio.to_thread(time.sleep, 3)"),
        (1, f"stop(); {STAYS_AWAY}"),
        (0, STAYS_AWAY),
    ],
)
def test_a_loop_that_goes_on_or_is_not_watched_lives(after: float, what: str) -> None:
    done = run(after, what)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
