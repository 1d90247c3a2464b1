"""The record of what the files in a folder must be, kept beside them for later starts without a network."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.digest import Digest
from models.durable import write_json
from models.paths import UnsafeName, checked_name

log = logging.getLogger(__name__)

_MANIFEST = ".manifest.json"
_LARGEST_RECORD = 2**22
"""Bytes; a file of a repository takes some 150."""
LARGEST_FILE = 2**40
"""Bytes. No model has a file as large: a hub that says so is wrong."""
# Forms of the same weights for other engines, which Immich keeps beside the ONNX files.
_OTHER_ENGINES = (".armnn", ".rknn")


class DamagedRecord(Exception):
    """A record of digests is there and cannot be read, or not trusted; the message names the file and says why."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of one revision of a repository, or those that were made of a checkpoint."""

    repo: str
    commit: str
    """The revision; of a model that was converted, the checkpoint's sha256."""
    files: Mapping[str, tuple[Digest, int]]
    """Digest and bytes by path."""


def read_manifest(folder: Path) -> Manifest | None:
    """Read what ``write_manifest`` left in ``folder``; None where there is none, as in a folder laid by hand.

    Raises ``DamagedRecord``.
    """
    path = folder / _MANIFEST
    text = read_record(path)
    if text is None:
        return None
    try:
        document = json.loads(text)
        files = {
            name: (Digest.parse(item["digest"]), checked_size(item["bytes"]))
            for name, item in document["files"].items()
            if is_wanted(name)
        }
        return Manifest(str(document["repo"]), checked_commit(document["commit"]), files)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedRecord(f"{path} is damaged ({repr(error)[:100]})") from error


def usable_manifest(folder: Path) -> Manifest | None:
    """Return what ``read_manifest`` does; None, with a warning, where the record is damaged too: for those who fetch
    or convert anew what it is about.
    """
    try:
        return read_manifest(folder)
    except DamagedRecord as error:
        log.warning("%s; what it is about is fetched or made anew.", error)
        return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write beside the files what they must be. Raises ``OSError``."""
    files = {path: {"digest": str(digest), "bytes": size} for path, (digest, size) in manifest.files.items()}
    document = {"repo": manifest.repo, "commit": manifest.commit, "files": files}
    write_json(folder / _MANIFEST, document, sync=True)


def read_record(path: Path) -> str | None:
    """Return the text of a record; None where there is no such file. Raises ``DamagedRecord``."""
    try:
        if path.exists() and not path.is_file():  # a pipe, for example, which would be waited for
            raise DamagedRecord(f"{path} is no file")
        with path.open("rb") as file:
            content = file.read(_LARGEST_RECORD + 1)
        if len(content) > _LARGEST_RECORD:
            raise DamagedRecord(f"{path} is larger than {_LARGEST_RECORD:,} bytes")
        return content.decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamagedRecord(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DamagedRecord(f"{path} is damaged (it is no UTF-8)") from error


def checked_commit(value: object) -> str:
    """Return ``value`` if it may be a revision. Raises ``ValueError``."""
    if not isinstance(value, str) or not value.isalnum() or len(value) > 100:
        raise ValueError(f"{str(value)[:100]!r} is no commit")
    return value


def checked_size(value: object) -> int:
    """Return ``value``, a number or digits, as the bytes of a file. Raises ``ValueError``, ``TypeError``."""
    size = int(value)  # type: ignore[call-overload]
    if not 0 <= size < LARGEST_FILE:
        raise ValueError(f"{str(value)[:100]} is no size of a file")
    return int(size)


def is_wanted(path: object) -> bool:
    """Return whether ``path`` is a file at the top or one folder down, for this engine, that stays below the folder."""
    try:
        name = checked_name(path)
    except UnsafeName:
        return False
    return name.count("/") <= 1 and not name.endswith(_OTHER_ENGINES)
