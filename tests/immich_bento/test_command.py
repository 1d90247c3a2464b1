"""``python -m immich_bento``: one command that leads to all others, and completes itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

from immich_bento import serve
from immich_bento.command import PARTS, main
from immich_bento.completion import script
from settings.version import VERSION
from tools.harness.server import ROOT

NAMES = [part.name for part in PARTS]


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"immich-bento {VERSION}\n"


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("models",), ("search", "nothing")])
def test_a_wrong_command_line_is_2(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(arguments)
    assert wrong.value.code == 2
    assert "usage: immich-bento" in capsys.readouterr().err


def test_the_commands_of_before_are_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--here"]) == 0
    assert "cn-clip-tiny" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["search", "find", "--help"])
    assert "usage: immich-bento search find" in capsys.readouterr().out


def test_serve_becomes_bentoml(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Sequence[str]] = []
    monkeypatch.delenv("BENTO_PATH", raising=False)
    monkeypatch.setattr("os.execv", lambda program, arguments: became.append(arguments))
    monkeypatch.setattr(serve, "folder_problem", lambda environment: None)
    main(["serve", "--port", "4000"])
    assert became[0] == [sys.executable, "-m", "bentoml", "serve", "--port", "4000", str(ROOT)]


def test_serve_does_not_start_where_it_could_not_write(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "folder_problem", lambda environment: "/cache cannot be written.")
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == "immich-bento does not start: /cache cannot be written.\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_that_it_can_read(shell: str) -> None:
    text = script(shell, NAMES)
    for word in (*NAMES, "pull", "--retry-failed", "--proxy"):
        assert word in text
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=text, text=True, check=False).returncode == 0


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("im", ""), {*NAMES, "--version", "--help"}),
        (("im", "models", "pu"), {"pull"}),
        (("im", "search", "index", "--pr"), {"--prune"}),
        (("im", "completion", ""), {"bash", "zsh", "fish"}),
    ],
)
def test_bash_completes(typed: Sequence[str], expected: set[str]) -> None:
    words = " ".join(f"'{word}'" for word in typed)
    ask = f"COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _immich_bento; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash"], input=script("bash", NAMES) + ask, text=True, capture_output=True, check=False)
    assert set(done.stdout.split()) == expected, done.stderr
