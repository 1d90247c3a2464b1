"""A conversion's process answers in JSON whatever libraries print, and its end is told as what it was."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.catalog import ModelEntry
from models.conversion import ConversionFailed, run_conversion
from models.convert import installed_vocabulary
from tests.models.small_clip import SmallClip, entry, small

__all__ = ["entry", "small"]

ROOT = Path(__file__).parents[2]


def _convert(path: Path, folder: Path, entry: ModelEntry) -> list[str]:
    """Return the steps that were told of a conversion."""
    steps: list[str] = []
    cosines = run_conversion(path, folder, installed_vocabulary(), entry, lambda step, _: steps.append(step))
    assert min(cosines) > 0.9999
    return steps


def _instead(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have ``script`` run in place of the module; ``child()`` in it runs the module all the same."""
    script = f"def child():\n import models.conversion\n models.conversion.main()\n{script}"
    started: Any = subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        return started([sys.executable, "-c", script, *command[3:]], **options)

    monkeypatch.setattr("models.conversion.subprocess.Popen", start)


LOUD = """
import os, sys, models.convert
convert = models.convert.convert
def loud(*given, **options):
    os.write(1, b"[W:onnxruntime:] a word of a library\\n{}\\n3\\n")
    print("another")
    return convert(*given, **options)
models.convert.convert = loud
child()
"""


def test_words_of_libraries_are_no_answers(
    tmp_path: Path,
    small: SmallClip,
    entry: ModelEntry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _instead(monkeypatch, LOUD)
    steps = _convert(small.checkpoint, tmp_path / "model", entry)
    assert steps[0].startswith("Reading")
    assert "another" not in caplog.text


def test_words_before_the_module_begins_are_no_answers_either(
    tmp_path: Path,
    small: SmallClip,
    entry: ModelEntry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "models")
    _instead(monkeypatch, 'import os; os.write(1, b"from sitecustomize \\xff\\n[1]\\n")\nchild()')
    assert _convert(small.checkpoint, tmp_path / "model", entry)
    assert "The conversion printed: from sitecustomize" in caplog.text


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed, as the kernel does when memory"),
        ("import sys; sys.exit(3)", "ended with 3 and no result"),
        ("import sys; sys.stdin.close(); print('{}'); sys.exit(3)", "ended with 3 and no result"),
        *(
            (f"import sys; print({line!r}); sys.exit(3)", "ended with 3 and no result")
            for line in (
                '{"step": 1}',
                '{"step": "Reading"}',
                '{"cosines": [1]}',
                '{"cosines": ["a", "b"]}',
                '{"refused": 1}',
                '{"errno": "x", "error": 1}',
            )
        ),
        ("print('[' * 100_000)", "ended with 0 and no result"),
        ("import models.convert as c\ndef full(*_, **__): raise MemoryError\nc.convert = full\nchild()", "more memory"),
    ],
)
def test_a_process_that_ends_without_a_result_is_told_as_what_it_was(
    tmp_path: Path, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch, script: str, complaint: str
) -> None:
    _instead(monkeypatch, script)
    with pytest.raises(ConversionFailed, match=complaint):
        _convert(tmp_path / "a.pt", tmp_path / "model", entry)


def test_a_process_that_cannot_be_started_is_not_told_as_a_fault_of_the_disk(
    tmp_path: Path, entry: ModelEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("models.conversion.subprocess.Popen", refuse)
    with pytest.raises(ConversionFailed, match=r"No process could be started .*Cannot allocate memory"):
        _convert(tmp_path / "a.pt", tmp_path / "model", entry)
