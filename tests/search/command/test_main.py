"""The command line of search, as far as it goes without a service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.command.main import main
from tools.harness.open_folder import open_folder


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the folder of a database of its own."""
    with open_folder() as made:
        monkeypatch.setenv("SEARCH_FOLDER", str(made / "search"))
        for name in ("DATABASE_URL", "SEARCH_SOURCE", "CLIP_MODEL"):
            monkeypatch.delenv(name, raising=False)
        yield made


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("index",),
        ("index", "x", "--jobs", "0"),
        ("index", "x", "--tasks", "faces"),
        ("reprocess",),
        ("reprocess", "--all", "--failed"),
        ("reprocess", "not-an-id"),
        ("nothing",),
    ],
)
def test_a_wrong_command_line_is_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as wrong:
        main(arguments)
    assert wrong.value.code == 2
    assert "usage: python -m search" in capsys.readouterr().err


def test_migrate_stats_and_failed_work_without_a_service(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate"]) == 0
    assert "up to date; search reads standalone" in capsys.readouterr().out
    assert main(["stats"]) == 0
    assert "pictures" in capsys.readouterr().out
    assert main(["failed"]) == 0
    assert "Nothing has failed." in capsys.readouterr().err
    assert main(["stats", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["assets"] == 0
    assert main(["failed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["find", "ocr:发票", "--url", "http://127.0.0.1:9"]) == 1
    assert "Nothing was found." in capsys.readouterr().err
    assert main(["find", "发票", "--json", "--url", "http://127.0.0.1:9"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["hits"] == []
    assert "No service answers" in answer["notes"][0]["message"], "without a service text alone is searched"
    assert main(["sync"]) == 1
    assert "no Immich" in capsys.readouterr().err


def test_a_database_that_cannot_be_reached_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    assert main(["stats"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "DATABASE_URL" in said


def test_settings_problems_are_told_by_their_names_and_without_their_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "me:hunter2@host")
    assert main(["stats"]) == 1
    said = capsys.readouterr().err
    assert "DATABASE_URL: must read like postgresql://" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("index", "/nowhere/at/all"), "/nowhere/at/all is not there"),
        (("index", "nope://bucket"), "nope://bucket cannot be opened"),
        (("index", "/", "--url", "http://127.0.0.1:9"), "No service answers at http://127.0.0.1:9"),
        (("index", "/", "--url", "ftp://127.0.0.1"), "No service answers at ftp://127.0.0.1"),
        (("reprocess", "--all", "--url", "http://127.0.0.1:9"), "No service answers"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_rights_are_of_a_database_with_roles(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert main(["grants"]) == main(["uninstall"]) == 1
    assert "SEARCH_FOLDER" in capsys.readouterr().err
    for url in ("nonsense user:s3cret@host", "postgresql://user:s3cret@127.0.0.1:9/none"):
        monkeypatch.setenv("DATABASE_URL", url)
        assert main(["grants", "bento"]) == 1
        said = capsys.readouterr().err
        assert "DATABASE_URL" in said
        assert "s3cret" not in said
