"""Writes that a power cut leaves done or undone, never half, whatever is in their way."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

log = logging.getLogger(__name__)


def write_json(path: Path, document: dict[str, Any], *, sync: bool = False) -> None:
    """Write ``document`` so that a reader sees the old file or the new one, with the rights that new files have here.

    A folder of that name goes. ``sync``: have it on the disk before returning. Raises ``OSError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        clear_path(path, unless=lambda mode: not stat.S_ISDIR(mode))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        sync_path(path.parent)


def read_json(path: Path) -> Any:
    """Return the JSON in the file ``path``. Raises ``OSError``, ``ValueError``."""
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} nests deeper than any record.") from error


def open_lock(path: Path) -> TextIO:
    """Open the file that is locked, for writing; something else of its name goes. Raises ``OSError``."""
    clear_path(path, unless=stat.S_ISREG)
    return path.open("w")


def clear_path(path: Path, *, unless: Callable[[int], bool] = lambda mode: False) -> None:
    """Remove what has the name ``path``: a folder with all in it; a link, and not what it leads to. Nothing is opened.

    ``unless``: told its mode, such as ``stat.S_ISREG``; where that is true, it stays. Raises ``OSError``.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if unless(mode):
        return
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    else:
        path.unlink()


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it.

    Something else of its name may be the user's: it is kept as ``….rejected``. Raises ``OSError``.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        log.warning("%s is no folder; it is kept as %s.", folder, _set_aside(folder))
    folder.mkdir(parents=True, exist_ok=True)


def sync_path(path: Path) -> None:
    """Have the bytes of a file, or the names in a folder, on the disk. Raises ``OSError``."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Have all files and folders below ``folder`` on the disk. Raises ``OSError``."""
    for path in (*folder.rglob("*"), folder):
        sync_path(path)


def give_name(source: Path, target: Path) -> None:
    """Rename the file ``source``, whose bytes are on the disk, to ``target``, durably.

    What is there already may be the user's: it is kept beside it as ``….rejected``, in place of an earlier one. Raises
    ``OSError``.
    """
    if os.path.lexists(target):
        log.warning("%s is not the file that it should be; it is kept as %s.", target, _set_aside(target))
    else:
        clear_path(_rejected(target))
    os.replace(source, target)
    sync_path(target.parent)


def _set_aside(path: Path) -> str:
    """Rename ``path`` and return its new name."""
    rejected = _rejected(path)
    clear_path(rejected)
    os.replace(path, rejected)
    return rejected.name


def _rejected(path: Path) -> Path:
    return path.with_name(f"{path.name}.rejected")
