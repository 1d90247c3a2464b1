"""Gauges of processes that are gone are forgotten, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import metrics


@pytest.fixture
def dead_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_only_live_gauges_of_dead_processes_are_forgotten(
    tmp_path: Path, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    dead = [f"gauge_livesum_{dead_pid}.db", f"gauge_liveall_{dead_pid}.db", f"gauge_livemostrecent_{dead_pid}.db"]
    kept = [
        f"gauge_livesum_{os.getpid()}.db",  # alive
        f"gauge_all_{dead_pid}.db",  # meant to outlive its process
        f"counter_{dead_pid}.db",
        f"histogram_{dead_pid}.db",
        "gauge_livesum_somebody.db",  # not ours to judge
        f"gauge_livesum_{dead_pid}.txt",
    ]
    for name in (*dead, *kept):
        (tmp_path / name).touch()
    metrics.forget_dead_processes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_nothing_is_done_without_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    metrics.forget_dead_processes()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))
    metrics.forget_dead_processes()


def test_a_killed_process_no_longer_counts_in_the_scrape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    script = (
        "import metrics, os; metrics.MODELS_LOADED.labels('ocr').set(2); metrics.REQUESTS.labels('ocr', '200').inc(); "
        "os._exit(9)"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": "."}
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=Path(__file__).parent.parent, check=False)

    def scrape() -> str:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(tmp_path))  # type: ignore[no-untyped-call]
        return generate_latest(registry).decode()

    assert 'immich_bento_models_loaded{runner="ocr"} 2.0' in scrape()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    metrics.forget_dead_processes()
    assert "immich_bento_models_loaded{" not in scrape()
    assert 'immich_bento_requests_total{status="200",task="ocr"} 1.0' in scrape()
