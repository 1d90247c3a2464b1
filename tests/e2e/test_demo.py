"""``make demo``, but for make: on an empty folder, again while it runs, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.harness.open_folder import open_folder
from tools.harness.server import ROOT


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made
        demo(made, "stop")


def demo(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        (sys.executable, "-m", "tools.demo", *arguments),
        cwd=ROOT,
        env={**os.environ, "DEMO_FOLDER": str(folder), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_demo_finds_what_it_promises_and_is_found_again(folder: Path) -> None:
    first = demo(folder)
    assert "23 computed" in first
    cells = [line.split("│")[2].strip() for line in first.splitlines() if line.count("│") == 5]
    found = [cell for cell in cells if cell]
    assert set(found[:2]) == {"invoice-hotel.jpg", "invoice-laptop.jpg"}
    assert "menu.jpg" in found
    assert "part-label.jpg" in found
    assert "drawing-umbrella.png" in found
    assert {"receipt-market.jpg", "drawing-apple.png"} <= set(found[-4:])
    assert "curl -G" in first

    second = demo(folder)
    assert "runs already" in second
    assert "0 computed, 23 unchanged" in second
    assert "stopped" in demo(folder, "stop")
    assert "does not run" in demo(folder, "stop")
