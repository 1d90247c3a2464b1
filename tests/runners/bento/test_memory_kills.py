"""How the kernel's own count of memory kills is read, and for how long one explains what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.bento import memory_kills
from runners.bento.memory_kills import MemoryKills, count_memory_kills


def test_the_count_is_that_of_the_nearest_cgroup_that_has_one(tmp_path: Path) -> None:
    (tmp_path / "root/slice/unit").mkdir(parents=True)
    (tmp_path / "root/slice/memory.events").write_text("low 0\nhigh 0\nmax 12\noom 5\noom_kill 4\n")
    (tmp_path / "cgroup").write_text("1:name=systemd:/x\n0::/slice/unit\n")
    assert count_memory_kills(tmp_path / "root", tmp_path / "cgroup") == 4
    (tmp_path / "root/slice/unit/memory.events").write_text("oom_kill 1\n")
    assert count_memory_kills(tmp_path / "root", tmp_path / "cgroup") == 1


def test_the_first_version_of_cgroups_counts_too(tmp_path: Path) -> None:
    """As in a container whose own group is the top of what it sees, though it is told another path."""
    (tmp_path / "root/memory").mkdir(parents=True)
    (tmp_path / "root/memory/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (tmp_path / "cgroup").write_text("9:name=systemd:/\n4:memory:/docker/4711\n1:cpu:/\n0::/\n")
    assert count_memory_kills(tmp_path / "root", tmp_path / "cgroup") == 2


@pytest.mark.parametrize("text", ["", "1:memory:/x\n", "0::/\n"])
def test_without_a_count_there_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cgroup").write_text(text)
    assert count_memory_kills(tmp_path, tmp_path / "cgroup") is None
    assert count_memory_kills(tmp_path, tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([3, 3], [False]), ([3, 4, 4], [True, True]), ([None, None], [False]), ([None, 3, 3], [False, False])],
)
def test_a_kill_is_remembered_for_a_minute(
    counts: list[int | None], expected: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_kills, "count_memory_kills", lambda: counts.pop(0))
    kills = MemoryKills()
    assert [kills.lately() for _ in expected] == expected
    monkeypatch.setattr(memory_kills, "_LATELY", 0.0)
    monkeypatch.setattr(memory_kills, "count_memory_kills", lambda: 4)
    assert not kills.lately()
