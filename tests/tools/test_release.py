"""Questions of the release workflow to the tree: the tag, the base with its digest, and the notes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from settings.version import VERSION
from tools.harness.server import ROOT
from tools.image.release import CHANGELOG, main, notes, version

TEXT = "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [1.2.0] - 2026-01-02\n\n- old\n\n## [1.1.0]\n\n- older\n"
BASE = f"docker.io/library/python:3.11-slim@sha256:{'0a' * 32}"


def test_notes_end_where_the_version_before_begins() -> None:
    assert notes(TEXT, "1.2.0") == "- old\n"
    assert notes(TEXT, "1.1.0") == "- older\n"


def test_a_version_without_notes_is_told() -> None:
    with pytest.raises(ValueError, match=r"no part for 1\.3\.0"):
        notes(TEXT, "1.3.0")


def test_this_version_has_notes(capsys: pytest.CaptureFixture[str]) -> None:
    assert version() == VERSION
    assert main(["notes"]) == 0
    printed = capsys.readouterr().out
    assert printed == notes(CHANGELOG.read_text(encoding="utf-8"), VERSION)
    assert printed.strip()


def test_it_needs_no_package() -> None:
    """The workflow's job for the notes installs nothing."""
    command = [sys.executable, "-S", "-m", "tools.image.release", "notes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize(
    ("tag", "base", "said"),
    [
        (f"v{VERSION}", BASE, ""),
        ("v9.9.9", BASE, f"The tag is v9.9.9, but settings/version.py says {VERSION}"),
        (VERSION, BASE, "tag the commit v"),
        (f"v{VERSION}", "", "PYTHON_IMAGE of the repository is empty"),
        (f"v{VERSION}", "python:3.11-slim", "with its digest"),
        (f"v{VERSION}", BASE.replace("3.11", "3.12"), "with its digest"),
    ],
)
def test_a_tag_and_a_base_that_do_not_fit_are_told(
    tag: str, base: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", tag, base]) == (1 if said else 0)
    assert said in capsys.readouterr().err
