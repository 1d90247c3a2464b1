"""How much disk and memory there is, nested limits included, and the sentence where it does not suffice."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from models import capacity
from models.capacity import NotEnough, has_bf16, require_disk, require_memory, usable_memory

GB = 10**9


def _limit(folder: Path, name: str, value: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(value + "\n")


def test_without_a_limit_it_is_the_machines_memory(tmp_path: Path) -> None:
    assert usable_memory(tmp_path, tmp_path / "own") == psutil.virtual_memory().total
    (tmp_path / "own").write_text("0::/a\n")
    _limit(tmp_path / "a", "memory.max", "max")
    assert usable_memory(tmp_path, tmp_path / "own") == psutil.virtual_memory().total


@pytest.mark.parametrize(("inner", "outer"), [("200000000", "100000000"), ("100000000", "max"), ("max", "100000000")])
def test_the_least_limit_of_nested_groups_counts(tmp_path: Path, inner: str, outer: str) -> None:
    (tmp_path / "own").write_text("0::/outer/inner\n")
    _limit(tmp_path / "outer", "memory.max", outer)
    _limit(tmp_path / "outer/inner", "memory.max", inner)
    assert usable_memory(tmp_path, tmp_path / "own") == 100_000_000


def test_limits_of_the_first_version_count_too(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("12:cpu,cpuacct:/x\n4:memory:/docker/c\n0::/docker/c\n")
    _limit(tmp_path / "memory/docker/c", "memory.limit_in_bytes", "300000000")
    assert usable_memory(tmp_path, tmp_path / "own") == 300_000_000


@pytest.mark.parametrize(
    ("line", "half"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse2", True),
        ("Features\t: fp asimd i8mm bf16", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("", False),
    ],
)
def test_a_cpu_with_bf16_is_known(tmp_path: Path, line: str, half: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert has_bf16(tmp_path / "cpuinfo") is half
    assert not has_bf16(tmp_path / "none")


def test_a_cpu_without_bf16_needs_the_weights_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "usable_memory", lambda: 2 * GB)
    monkeypatch.setattr(capacity, "has_bf16", lambda: True)
    require_memory(1630 * 10**6, "ViT-L-14")
    monkeypatch.setattr(capacity, "has_bf16", lambda: False)
    with pytest.raises(NotEnough, match=r"ViT-L-14 needs at least 2\.0 GB of memory; .* has 2\.0 GB: 30 MB"):
        require_memory(1630 * 10**6, "ViT-L-14")


def test_what_is_missing_of_the_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "usable_memory", lambda: 2 * GB)
    monkeypatch.setattr(capacity, "has_bf16", lambda: True)
    require_memory(754 * 10**6, "ViT-B-16")
    with pytest.raises(
        NotEnough, match=r"ViT-H-14 needs at least 2\.3 GB of memory; .* has 2\.0 GB: 3\d\d MB are missing"
    ):
        require_memory(3833 * 10**6, "ViT-H-14")


def test_what_is_missing_of_the_disk_is_said_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("models.capacity.shutil.disk_usage", lambda path: usage(10 * GB, 9 * GB, GB))
    folder = tmp_path / "not/there/yet"
    require_disk(folder, GB, "A model")
    with pytest.raises(NotEnough) as caught:
        require_disk(folder, 3 * GB, "A model")
    assert f"A model needs 3.0 GB on the disk of {folder}, where 1.0 GB are free: 2.0 GB are missing" in str(
        caught.value
    )
