"""How fast bf16 is on this machine: measured once, remembered for this CPU, never in the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.engine import bf16
from runners.engine.bf16 import bf16_speedup

HAS_BF16 = {"openvino": "1", "cpu": "Processor", "computes": "BF16,FP32", "features": "abc"}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    bf16._remembered.cache_clear()
    yield
    bf16._remembered.cache_clear()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what measurements will find, in order."""
    answers = [0.56, 2.0]
    monkeypatch.setattr(bf16, "cpu_facts", lambda: HAS_BF16)
    monkeypatch.setattr(bf16, "_measured", lambda: answers.pop(0))
    return answers


def test_multiplications_are_timed_on_the_real_engine() -> None:
    found = bf16._measured()
    assert 0.05 < found < 20


def test_a_cpu_without_bf16_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bf16, "cpu_facts", lambda: HAS_BF16 | {"computes": "FP32,INT8"})
    monkeypatch.setattr(bf16, "_measured", lambda: pytest.fail("it was measured"))
    assert bf16_speedup(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_it_is_measured_once_for_a_process_and_once_for_a_machine(measured: list[float], tmp_path: Path) -> None:
    folder = tmp_path / "compiled"
    assert bf16_speedup(folder) == bf16_speedup(folder) == 0.56
    (kept,) = folder.iterdir()
    assert json.loads(kept.read_text()) == {"speedup": 0.56, **HAS_BF16}
    bf16._remembered.cache_clear()  # as in a new process
    assert bf16_speedup(folder) == 0.56
    assert measured == [2.0]


def test_another_cpu_is_measured_anew(measured: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bf16_speedup(tmp_path)
    bf16._remembered.cache_clear()
    monkeypatch.setattr(bf16, "cpu_facts", lambda: HAS_BF16 | {"features": "abc and AMX"})
    assert bf16_speedup(tmp_path) == 2.0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"speedup": "fast"}', b'{"speedup": null}', b"\xff"])
def test_what_cannot_be_read_is_measured_anew(measured: list[float], tmp_path: Path, content: bytes) -> None:
    bf16_speedup(tmp_path)
    next(tmp_path.iterdir()).write_bytes(content)
    bf16._remembered.cache_clear()
    assert bf16_speedup(tmp_path) == 2.0
    assert json.loads(next(tmp_path.iterdir()).read_text())["speedup"] == 2.0


def test_a_folder_that_cannot_be_written_to_costs_a_measurement_and_nothing_else(
    measured: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "runners.engine.bf16")
    (tmp_path / "file").write_text("in the way")
    assert bf16_speedup(tmp_path / "file" / "compiled") == 0.56
    assert "is not kept" in caplog.text


def test_nowhere_to_keep_it_is_fine(measured: list[float]) -> None:
    assert bf16_speedup(None) == 0.56
