"""What is told of a worker that died."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from runners.bento import memory_kills
from runners.bento.deaths import Deaths


def a_watcher(name: str, *, stopping: bool = False) -> SimpleNamespace:
    return SimpleNamespace(name=name, is_stopping=lambda: stopping, is_stopped=lambda: False)


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Return what the kernel counts, at each look."""
    counts: list[int | None] = []
    monkeypatch.setattr(memory_kills, "count_memory_kills", lambda: counts.pop(0))
    return counts


@pytest.mark.parametrize(
    ("counted", "exit_code", "words"),
    [
        ([3, 4], -9, ["PictureRunner (process 7)", "killed by the kernel: out of memory", "more memory"]),
        ([3, 3], -9, ["PictureRunner (process 7)", "signal 9", "as the kernel does when memory runs out"]),
        ([None, None], -9, ["signal 9"]),
        ([0, 0], -11, ["PictureRunner (process 7) ended by signal 11"]),
        ([0, 0], 1, ["PictureRunner (process 7) ended with status 1", "STUCK_AFTER"]),
        ([0, 0], 3, ["PictureRunner (process 7) ended with status 3; a fresh one is started."]),
    ],
)
def test_a_death_is_told_with_its_likely_cause(
    kills: list[int | None],
    counted: list[int | None],
    exit_code: int,
    words: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    kills.extend(counted)
    Deaths().tell(watcher=a_watcher("service_PictureRunner"), process_pid=7, exit_code=exit_code, time=0, hook_name="x")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert [word for word in words if word not in record.getMessage()] == []


@pytest.mark.parametrize(("exit_code", "stopping"), [(0, False), (-1, False), (-15, True), (None, False)])
def test_an_end_that_was_asked_for_is_no_error(
    kills: list[int | None], exit_code: int | None, stopping: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kills.extend([0, 0])
    Deaths().tell(watcher=a_watcher("service", stopping=stopping), process_pid=7, exit_code=exit_code)
    assert caplog.records == []
