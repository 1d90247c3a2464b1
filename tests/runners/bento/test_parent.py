"""A worker ends when the process that watches it has ended, asked of the kernel or found out by looking."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from runners.bento import parent

ROOT = Path(__file__).parents[3]

# Starts a worker that waits for a minute, prints its number once it is tied to this process, and waits too.
WATCHER = """
import subprocess, sys, time
from runners.bento import parent
parent.name_arbiter()
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
worker.stdout.readline()
print(worker.pid, flush=True)
time.sleep(60)
"""
WORKER = """
import time
from runners.bento import parent
{change}
parent.end_with_parent()
print("tied", flush=True)
time.sleep(60)
"""
WAYS = {"looking": "parent._ask_kernel = lambda: None", "asking the kernel": "parent._look = lambda arbiter: None"}


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_ends_with_its_watcher(way: str) -> None:
    if way == "asking the kernel" and sys.platform != "linux":
        pytest.skip("PR_SET_PDEATHSIG is Linux's")
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCHER, WORKER.format(change=WAYS[way])], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdout is not None
    worker = psutil.Process(int(watcher.stdout.readline()))
    try:
        watcher.kill()
        watcher.wait()
        assert psutil.wait_procs([worker], timeout=20)[1] == []
    finally:
        watcher.stdout.close()
        if worker.is_running():
            worker.kill()


def test_a_worker_whose_watcher_ended_before_it_could_ask_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: told.append((pid, number)))
    parent._look(arbiter=-1)
    assert told == [(os.getpid(), 15)]


@pytest.mark.parametrize("value", [None, "", "no number", pytest.param(str(os.getpid()), id="its own")])
def test_a_process_that_is_no_worker_is_tied_to_nobody(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(parent, "_ask_kernel", lambda: started.append("kernel"))
    monkeypatch.setattr("threading.Thread", lambda **given: started.append(given))
    monkeypatch.delenv(parent.ARBITER_PID, raising=False)
    if value is not None:
        monkeypatch.setenv(parent.ARBITER_PID, value)
    parent.end_with_parent()
    assert started == []
