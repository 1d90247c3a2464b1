"""How many cores a process may use, by the files that a container's kernel shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runners.engine.threads import available_cores, keep_opencv_to_the_calling_thread

HOST = 16
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _a_host_of_16_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(HOST)), raising=False)


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("150000 100000\n", 2),
        ("100000 100000\n", 1),
        ("100001 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 100000\n", 1),
        ("400000 100000\n", 4),
        ("3200000 100000\n", HOST),
        ("max 100000\n", HOST),
        ("", HOST),
        ("max", HOST),
        ("150000", HOST),
        ("many few", HOST),
        ("150000 0", HOST),
        ("1 2 3", HOST),
    ],
)
def test_the_quota_of_cgroup_v2_is_rounded_up(tmp_path: Path, cpu_max: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(cpu_max)
    assert available_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [
        ("150000\n", "100000\n", 2),
        ("50000", "100000", 1),
        ("-1", "100000", HOST),
        ("0", "100000", HOST),
        ("150000", "0", HOST),
        ("x", "100000", HOST),
        ("150000", "", HOST),
    ],
)
def test_the_quota_of_cgroup_v1_is_rounded_up(tmp_path: Path, quota: str, period: str, cores: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text(period)
    assert available_cores(tmp_path) == cores


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == HOST


def test_the_affinity_counts_where_it_is_the_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    (tmp_path / "cpu.max").write_text("800000 100000")
    assert available_cores(tmp_path) == 2


def test_a_system_without_affinity_counts_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"system.slice/bento.service": "200000 100000"}, 2),
        ({"system.slice": "300000 100000", "system.slice/bento.service": "max 100000"}, 3),
        ({"system.slice": "300000 100000", "system.slice/bento.service": "700000 100000"}, 3),
        ({"": "500000 100000", "system.slice/bento.service/worker": "600000 100000"}, 5),
        ({"system.slice/other.service": "100000 100000"}, HOST),
    ],
)
def test_the_quota_of_every_ancestor_counts_in_cgroup_v2(tmp_path: Path, quotas: dict[str, str], cores: int) -> None:
    membership = tmp_path / "self"
    membership.write_text("0::/system.slice/bento.service/worker\n")
    mounts = tmp_path / "cgroup"
    for folder, quota in quotas.items():
        (mounts / folder).mkdir(parents=True, exist_ok=True)
        (mounts / folder / "cpu.max").write_text(quota)
    assert available_cores(mounts, membership) == cores


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize("folder", ["system.slice/bento.service", "system.slice", ""])
def test_the_quota_of_every_ancestor_counts_in_cgroup_v1(tmp_path: Path, mount: str, folder: str) -> None:
    membership = tmp_path / "self"
    membership.write_text(
        "5:memory:/other\n4:cpu,cpuacct:/system.slice/bento.service\n0::/system.slice/bento.service\n"
    )
    quota = tmp_path / "cgroup" / mount / folder
    quota.mkdir(parents=True)
    (quota / "cpu.cfs_quota_us").write_text("250000")
    (quota / "cpu.cfs_period_us").write_text("100000")
    assert available_cores(tmp_path / "cgroup", membership) == 3


@pytest.mark.parametrize("path", ["/docker/0123abcd", "/../..", "/../other", "no path", ""])
def test_a_path_outside_of_the_container_leaves_the_mounts_own_quota(tmp_path: Path, path: str) -> None:
    membership = tmp_path / "self"
    membership.write_text(f"0::{path}\n")
    (tmp_path / "cpu.max").write_text("400000 100000")
    assert available_cores(tmp_path, membership) == 4


def test_opencv_computes_in_the_calling_thread() -> None:
    script = """
from runners.engine.threads import keep_opencv_to_the_calling_thread
keep_opencv_to_the_calling_thread()
import cv2
print(cv2.getNumThreads())
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENCV_FOR_THREADS_NUM"}
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout == "1\n"


def test_what_the_environment_says_of_opencv_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FOR_THREADS_NUM", "3")
    keep_opencv_to_the_calling_thread()
    assert os.environ["OPENCV_FOR_THREADS_NUM"] == "3"
