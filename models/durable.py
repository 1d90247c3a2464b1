"""Writes that a power cut leaves done or undone, never half."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

log = logging.getLogger(__name__)


def write_json(path: Path, document: dict[str, Any], *, sync: bool = False) -> None:
    """Write ``document`` so that a reader sees the old file or the new one, with the rights that new files have here.

    ``sync``: have it on the disk before returning. Raises ``OSError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        sync_path(path.parent)


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

    A file of other content that is there already may be the user's: it is kept beside it as ``….rejected``. Raises
    ``OSError``.
    """
    if target.exists():
        rejected = target.with_name(target.name + ".rejected")
        log.warning("%s is not the file that it should be; it is kept as %s.", target, rejected.name)
        os.replace(target, rejected)
    os.replace(source, target)
    sync_path(target.parent)
