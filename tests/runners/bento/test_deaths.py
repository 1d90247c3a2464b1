"""What is told of a worker that died, and how the kernel's own count of memory kills is read."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from runners.bento import deaths
from runners.bento.deaths import Deaths, count_memory_kills


def a_watcher(name: str, *, stopping: bool = False) -> SimpleNamespace:
    return SimpleNamespace(name=name, is_stopping=lambda: stopping, is_stopped=lambda: False)


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Return what the kernel counts, at each look."""
    counts: list[int | None] = []
    monkeypatch.setattr(deaths, "count_memory_kills", lambda: counts.pop(0))
    return counts


@pytest.mark.parametrize(
    ("counted", "exit_code", "words"),
    [
        ([3, 4], -9, ["PictureRunner (process 7)", "killed by the kernel: out of memory", "more memory"]),
        ([3, 3], -9, ["PictureRunner (process 7)", "signal 9", "as the kernel does when memory runs out"]),
        ([None, None], -9, ["signal 9"]),
        ([0, 0], -11, ["PictureRunner (process 7) ended by signal 11"]),
        ([0, 0], 1, ["PictureRunner (process 7) ended with status 1"]),
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


def test_the_count_is_that_of_the_nearest_cgroup_that_has_one(tmp_path: Path) -> None:
    (tmp_path / "root/slice/unit").mkdir(parents=True)
    (tmp_path / "root/slice/memory.events").write_text("low 0\nhigh 0\nmax 12\noom 5\noom_kill 4\n")
    (tmp_path / "cgroup").write_text("1:name=systemd:/x\n0::/slice/unit\n")
    assert count_memory_kills(tmp_path / "root", tmp_path / "cgroup") == 4
    (tmp_path / "root/slice/unit/memory.events").write_text("oom_kill 1\n")
    assert count_memory_kills(tmp_path / "root", tmp_path / "cgroup") == 1


@pytest.mark.parametrize("text", ["", "1:memory:/x\n", "0::/\n"])
def test_without_a_count_there_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cgroup").write_text(text)
    assert count_memory_kills(tmp_path, tmp_path / "cgroup") is None
    assert count_memory_kills(tmp_path, tmp_path / "nowhere") is None
