"""The notes of a release are its part of the changelog."""

from __future__ import annotations

import pytest

from settings.version import VERSION
from tools.image.notes import CHANGELOG, main, notes

TEXT = "# Changelog\n\n## [Unreleased]\n\n- new\n\n## [1.2.0] - 2026-01-02\n\n- old\n\n## [1.1.0]\n\n- older\n"


def test_they_end_where_the_version_before_begins() -> None:
    assert notes(TEXT, "1.2.0") == "- old\n"
    assert notes(TEXT, "1.1.0") == "- older\n"


def test_a_version_without_notes_is_told() -> None:
    with pytest.raises(ValueError, match=r"no part for 1\.3\.0"):
        notes(TEXT, "1.3.0")


def test_this_version_has_notes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    printed = capsys.readouterr().out
    assert printed == notes(CHANGELOG.read_text(encoding="utf-8"), VERSION)
    assert printed.strip()
