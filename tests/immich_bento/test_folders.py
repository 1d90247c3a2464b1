"""Folders that cannot be written are told in one sentence, with the command to run, before BentoML is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from immich_bento import folders
from immich_bento.folders import folder_problem, writable_temporary_folder
from tools.harness.server import ROOT


def test_folders_that_can_be_written_are_no_problem_and_stay_as_they_are(tmp_path: Path) -> None:
    environment = {"MACHINE_LEARNING_CACHE_FOLDER": str(tmp_path / "a/b"), "SEARCH_FOLDER": str(tmp_path)}
    assert folder_problem(environment) is None
    assert folder_problem({}) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["/proc/cache", "/sys/cache"])
def test_one_that_cannot_is_named_with_what_to_do(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even root can make a folder in these two."""
    monkeypatch.delenv("BENTO_PATH", raising=False)
    said = folder_problem({"MACHINE_LEARNING_CACHE_FOLDER": where})
    assert said is not None
    assert said.startswith(f"{where} (MACHINE_LEARNING_CACHE_FOLDER) cannot be written: ")
    assert "`sudo chown -R " in said


def test_in_an_image_the_folder_to_change_is_the_one_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTO_PATH", "/home/bentoml/bento")
    assert "of your machine that is mounted there" in str(folder_problem({"SEARCH_FOLDER": "/proc/x"}))


def test_serve_says_it_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "immich_bento", "serve"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "BENTOML_HOME": "/proc/bentoml"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("immich-bento does not start: /proc/bentoml (BENTOML_HOME) cannot be written: ")


def test_temporary_files_go_where_they_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert writable_temporary_folder({"TMPDIR": "/somewhere"}) is None
    assert writable_temporary_folder({}) is None
    monkeypatch.setattr(folders, "_TEMPORARY", ("/proc/tmp", "/dev/shm"))
    assert writable_temporary_folder({}) == "/dev/shm"
    monkeypatch.setattr(folders, "_TEMPORARY", ("/proc/tmp",))
    assert writable_temporary_folder({}) is None
    cache = {"MACHINE_LEARNING_CACHE_FOLDER": str(tmp_path)}
    assert writable_temporary_folder(cache) == str(tmp_path / "tmp")
    assert (tmp_path / "tmp").stat().st_mode & 0o777 == 0o700
