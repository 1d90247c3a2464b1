"""Digests of files, and remembering them so that a large file is not read again at every start."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.durable import read_json, write_json

log = logging.getLogger(__name__)

_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Digest:
    """A hash of a file's bytes."""

    algorithm: Literal["sha256", "git-sha1"]
    """``git-sha1``: git's object id, all that the Hugging Face hub says of a small file that is not in LFS."""
    value: str
    """Hexadecimal, lower case."""

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Return the digest that ``text``, made by ``str``, stands for. Raises ``ValueError``."""
        algorithm, _, value = text.partition(":")
        value = value.lower()  # as some hubs do not write it
        if algorithm == "sha256" and re.fullmatch("[0-9a-f]{64}", value):
            return cls("sha256", value)
        if algorithm == "git-sha1" and re.fullmatch("[0-9a-f]{40}", value):
            return cls("git-sha1", value)
        raise ValueError(f"{text[:100]!r} is no digest.")


def digest_of(path: Path, algorithm: Literal["sha256", "git-sha1"]) -> Digest:
    """Read ``path`` and return its digest. Raises ``OSError``."""
    with path.open("rb") as file:
        if algorithm == "sha256":
            hasher = hashlib.sha256()
        else:  # https://git-scm.com/book/en/v2/Git-Internals-Git-Objects: a header, then the bytes
            hasher = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return Digest(algorithm, hasher.hexdigest())


class DigestCache:
    """Digests that were computed before, kept in one JSON file, each valid while (size, mtime, inode) stay the same.

    Where that file is damaged, missing or cannot be written, digests are computed again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def in_folder(cls, folder: Path) -> DigestCache:
        """Return the one whose file lies in ``folder``: ``.verified.json``."""
        return cls(folder / ".verified.json")

    def digest(self, file: Path, algorithm: Literal["sha256", "git-sha1"]) -> Digest:
        """Return the digest of ``file``, from memory if the file has not changed. Raises ``OSError``."""
        key, before = self._key(file), _fingerprint(file)
        record = self._records().get(key)
        if isinstance(record, dict) and record.get("stat") == before:
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                known = Digest.parse(record["digest"])
                if known.algorithm == algorithm:
                    return known
        digest = digest_of(file, algorithm)
        if _fingerprint(file) == before:
            self._write(key, {"stat": before, "digest": str(digest)})
        return digest

    def remember(self, file: Path, digest: Digest) -> None:
        """Note that ``file`` as it is now has ``digest``."""
        self._write(self._key(file), {"stat": _fingerprint(file), "digest": str(digest)})

    def _key(self, file: Path) -> str:
        """Return ``file`` relative to the cache's own folder, so that the folder may be moved; absolute elsewhere."""
        folder = self._path.parent
        return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)

    def _records(self) -> dict[str, Any]:
        try:
            records = read_json(self._path)["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return records if isinstance(records, dict) else {}

    def _write(self, key: str, record: dict[str, Any]) -> None:
        # Two processes may write at once: the later one wins, and the other's file is read once more some day.
        try:
            write_json(self._path, {"files": {**self._records(), key: record}})
        except OSError as error:
            log.debug("%s cannot be written, so %s will be read again: %s", self._path, key, error)


def _fingerprint(file: Path) -> list[int]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]
