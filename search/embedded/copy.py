"""A copy of PostgreSQL's programs for the user that it runs as where we are root, if that user may not enter where they
are installed.

A virtual environment below ``/root`` is such a place, and is not to be opened. The copy is in SEARCH_FOLDER, is named
after its content, and only root may write to it. Everything here happens under the folder's ``start.lock``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from search.embedded.setup import Programs, ServerUser, closed_to
from search.store.errors import SearchUnavailable

log = logging.getLogger("service")

_USED = ("postgres", "initdb", "pg_ctl")
_COPY = re.compile(r"programs-\d+-[0-9a-f]{16}")
_UNFINISHED = "programs.new"
"""The name of what is not whole: being copied, being removed, or left so by a kill."""


def reachable(programs: Programs, folder: Path, user: ServerUser | None) -> Programs:
    """Return ``programs``, or if ``user`` may not enter where they are, their copy in ``folder``, which is made if it
    is not there.

    Raises ``ServiceError`` where a copy is needed and cannot be had.
    """
    if user is None or (closed := closed_to(user, programs.folder / "postgres")) is None:
        return programs
    place = folder.resolve()
    why = (
        f"PostgreSQL does not run as root, and the user {user.name!r}, whom it runs as then, may not enter {closed}, "
        "where its programs are"
    )
    if shared := _shared(place):
        raise SearchUnavailable(
            f"{why}. A copy of them in SEARCH_FOLDER {folder} would not be safe: others than root may write to "
            f"{shared}."
            " Set SEARCH_FOLDER to a folder that only root may write to, such as /var/lib/immich-bento;"
            " or install this software where every user may read it, such as /opt; or set DATABASE_URL."
        )
    files = _files(programs)
    packages = programs.folder.parents[2]
    copy = place / f"programs-{programs.version}-{_digest(files, packages)}"
    copied = Programs(copy / programs.folder.relative_to(packages), programs.version)
    if not copy.is_dir():
        try:
            _copy(files, packages, copy, copied, user)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SearchUnavailable(
                f"{why}. They could not be copied into SEARCH_FOLDER {folder}: {error}. It needs 25 MB, on a disk "
                "that is not mounted"
                " `noexec`. Or install this software where every user may read it, such as /opt; or set DATABASE_URL."
            ) from error
        log.info(
            "PostgreSQL's programs are copied to %s, as the user %r, whom they run as, may not enter %s.",
            copy,
            user.name,
            closed,
        )
    return copied


def remove_unused(programs: Programs, folder: Path, user: ServerUser | None) -> None:
    """Remove the copies in ``folder`` other than ``programs``: of former releases. Only while no server runs from
    there.
    """
    place = folder.resolve()
    if user is None or _shared(place):
        return
    for copy in place.iterdir():
        if _COPY.fullmatch(copy.name) and copy not in programs.folder.parents:
            shutil.rmtree(place / _UNFINISHED, ignore_errors=True)
            copy.rename(place / _UNFINISHED)  # first of all: a kill must not leave half of it under its name
            shutil.rmtree(place / _UNFINISHED, ignore_errors=True)


def _copy(files: list[Path], packages: Path, copy: Path, copied: Programs, user: ServerUser) -> None:
    unfinished = copy.with_name(_UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(
            mode=0o700
        )  # until it is whole nobody else comes in, whatever our umask makes of the folders below
        for source in files:
            target = unfinished / source.relative_to(packages)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644)
        for path, _, _ in os.walk(unfinished, topdown=False):
            os.chmod(path, 0o755)  # noqa: S103 - to be read by the server's user; only root may write
        for program in _USED:
            Programs(unfinished / copied.folder.relative_to(copy), copied.version).run(program, "--version", user=user)
        os.sync()  # or a power failure might leave the name without the content
        unfinished.rename(copy)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _files(programs: Programs) -> list[Path]:
    """List what the programs need, and no more.

    The libraries are those that the wheel keeps beside them (Linux) or in the package (macOS).
    """
    install, package, packages = programs.folder.parents[:3]
    folders = (install / "lib", install / "share", package / ".dylibs", packages / f"{package.name}.libs")
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".a"]
    return sorted([*found, *(programs.folder / name for name in _USED)])


def _digest(files: list[Path], packages: Path) -> str:
    """Return the digest of the content, not the package's version: a folder may move to a machine with another
    processor.
    """
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(packages)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _shared(place: Path) -> Path | None:
    """Return the first folder, of ``place`` and those above it, that others may change, or None.

    Others are all but root; they could replace what is ours.
    """
    for folder in (place, *place.parents):
        status = folder.lstat()
        writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if folder != place and status.st_mode & stat.S_ISVTX:
            writable = 0  # such as /tmp: what is root's there stays in its place
        if status.st_uid != 0 or writable:
            return folder
    return None
