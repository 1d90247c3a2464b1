"""Every pin of the lock is a wheel for arm64, as the image of that architecture needs, and those of the tests can be
had for the oldest Python: the package index is asked.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.test_packaging import applies, pins

pytestmark = [pytest.mark.slow, pytest.mark.index]

OLDEST = "3.10"
GLIBC = 36
"""Minor version of the C library of Debian 12; the image's base has at least that."""


def of_arm64(pin: Requirement) -> bool:
    return applies(pin.marker, "3.11")


def test_every_pin_is_a_wheel_for_arm64(tmp_path: Path) -> None:
    chosen = [f"{pin.name}{pin.specifier}" for pin in pins("requirements.lock") if of_arm64(pin)]
    platforms = [word for glibc in range(17, GLIBC + 1) for word in ("--platform", f"manylinux_2_{glibc}_aarch64")]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet", "--only-binary=:all:"]
    command += ["--python-version", "3.11", "--platform", "manylinux2014_aarch64", *platforms]
    asked = subprocess.run(
        [*command, "--target", str(tmp_path), *chosen], capture_output=True, text=True, check=False, timeout=900
    )
    if "Connection" in asked.stderr or "Temporary failure" in asked.stderr:
        pytest.skip("skipped: no package index")
    assert asked.returncode == 0, asked.stderr[-2000:]


def test_every_pin_of_the_tests_can_be_had_for_the_oldest_python(tmp_path: Path) -> None:
    """A package drops an old Python in a minor version: then `make test` ends there before the first test."""
    chosen = [f"{pin.name}{pin.specifier}" for pin in pins("requirements-test.lock") if applies(pin.marker, OLDEST)]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet", "--python-version", OLDEST]
    asked = subprocess.run(
        [*command, "--target", str(tmp_path), *chosen], capture_output=True, text=True, check=False, timeout=900
    )
    if "Connection" in asked.stderr or "Temporary failure" in asked.stderr:
        pytest.skip("skipped: no package index")
    assert asked.returncode == 0, asked.stderr[-2000:]
