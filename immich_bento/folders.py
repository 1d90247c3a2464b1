"""A check that the folders which the service writes to can be written, made before anything else is imported.

The standard library is all that this needs: BentoML writes into its own folder while it is imported.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

NEEDED = ("MACHINE_LEARNING_CACHE_FOLDER", "SEARCH_FOLDER", "BENTOML_HOME")
"""Settings that name such a folder. Those that are not set are below the user's home, and are left alone here."""
_TEMPORARY = ("/tmp", "/dev/shm")  # noqa: S108  looked at, in this order; nothing with a known name is opened there


def folder_problem(environment: Mapping[str, str]) -> str | None:
    """Return which of the folders that ``environment`` names cannot be written, and what to do; None if all can.

    Nothing is left behind: of a folder that is missing, the one that it would be made in is tried.
    """
    for name in NEEDED:
        if not environment.get(name):
            continue
        folder = Path(environment[name]).expanduser()
        reason = _write(folder)
        if reason is not None:
            return _sentence(name, folder, reason)
    return None


def writable_temporary_folder(environment: Mapping[str, str]) -> str | None:
    """Return the folder for temporary files where the usual one cannot be written, as in a read-only container.

    None where TMPDIR is set, or the usual folder is right.
    """
    if environment.get("TMPDIR"):
        return None
    for position, folder in enumerate(_TEMPORARY):
        if os.access(folder, os.W_OK | os.X_OK):
            return folder if position else None
    cache = environment.get("MACHINE_LEARNING_CACHE_FOLDER")
    if cache is None:
        return None
    folder = str(Path(cache).expanduser() / "tmp")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def _write(folder: Path) -> str | None:
    """Return why no file can be made in ``folder``, or None."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return None
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()


def _sentence(name: str, folder: Path, reason: str) -> str:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    user, group, owner = os.getuid(), os.getgid(), existing.stat().st_uid
    if reason == "read-only file system":
        what_to_do = f"Mount a volume at {folder}, without `ro`"
    elif reason == "no space left on device":
        what_to_do = "Make room on its disk"
    else:
        where = "the folder of your machine that is mounted there" if os.environ.get("BENTO_PATH") else existing
        what_to_do = f"Run `sudo chown -R {user}:{group} {where}`"
    return (
        f"{folder} ({name}) cannot be written: {reason}. It belongs to user {owner}, and the service runs as user "
        f"{user}. {what_to_do}."
    )
