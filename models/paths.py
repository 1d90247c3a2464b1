"""Names of files as a hub, a catalog or a ``model.yaml`` gives them, judged before they become paths."""

from __future__ import annotations

import unicodedata
from pathlib import Path

_LONGEST_PART = 255
"""Bytes: the limit of common file systems."""


class UnsafeName(ValueError):
    """A file name that could lead out of the folder that it belongs to; the message quotes it."""


def checked_name(name: object) -> str:
    """Return ``name`` if it is a relative path with forward slashes that stays below any folder.

    Raises ``UnsafeName`` where it is no text, is empty or absolute, names a drive, holds a backslash, a colon or a
    control character, or has a part that begins with a dot (``..``, and the files in which this project keeps records).
    """
    if not isinstance(name, str):
        raise UnsafeName(f"{name!r} is no file name")
    shown = repr(name if len(name) <= 100 else name[:100] + "…")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name) or "\\" in name or ":" in name:
        raise UnsafeName(f"the file name {shown} holds a backslash, a colon or a control character")
    for part in name.split("/"):
        if not part or part.startswith(".") or len(part.encode()) > _LONGEST_PART:
            raise UnsafeName(f"the file name {shown} does not stay below its folder or begins a part with a dot")
    return name


def path_below(folder: Path, name: object) -> Path:
    """Return the path of ``name`` below ``folder``, for writing.

    Raises ``UnsafeName`` as ``checked_name`` does, and where a link below ``folder`` leads out of it.
    """
    path = folder / checked_name(name)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise UnsafeName(f"{path.parent} is a link that leads out of {folder}; nothing is written through it")
    return path
