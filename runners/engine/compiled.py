"""Compiled models on disk: what an engine made of a model file, so that the next start need not make it again.

One file per entry, ``<key>.blob``: a line of JSON (``Entry``), padding, then the engine's own bytes, which are mapped
and not read. An entry gets its name only when it is whole. Nothing in here is needed: whatever is missing, damaged or
of another version is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

_SUFFIX = ".blob"
_PAGE = 1 << 16
"""Bytes: a multiple of every system's page size. The engine's part begins at a multiple of it, so that its weights stay
aligned.
"""
_UNUSED_DAYS = 30.0
_ROOM = 8 * 2**30
"""Bytes that all entries may have together; the one that was used least recently goes first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What an entry was made of."""

    source: str
    """The model file."""
    facts: Mapping[str, str]
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The graph's own, which an engine's bytes do not keep."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """An entry in memory: pages are read from the file when they are touched, and may be dropped and read again."""

    entry: Entry
    mapping: mmap.mmap
    start: int

    def drop_pages(self) -> None:
        """Let go of the pages in memory. Who touches one again gets it from the file."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED)


class CompiledModels:
    """The entries of one folder. Any number of processes may use it at once; none of them is made to wait, or fails for
    its sake.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, source: Path, facts: Mapping[str, str]) -> Mapped | None:
        """Open the entry made of ``source`` as it is now, under the same ``facts``.

        None if there is none that can be read.
        """
        path = self._path(source, facts)
        try:
            with path.open("rb") as file:
                header = file.readline()
                entry = Entry(**json.loads(header))
                # A private mapping: numpy and OpenVINO want one that could be written to, and nothing of it reaches the
                # file.
                mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            if len(mapping) <= _padded(header) or entry.facts != dict(facts):
                return None
        except (OSError, ValueError, TypeError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return Mapped(entry, mapping, _padded(header))

    def write(
        self,
        source: Path,
        facts: Mapping[str, str],
        metadata: Mapping[str, str],
        write: Callable[[io.BufferedIOBase], None],
    ) -> bool:
        """Make an entry of what ``write`` writes. False, and a line in the log, where the folder cannot be written
        to.
        """
        header = json.dumps(asdict(Entry(str(source), dict(facts), dict(metadata)))).encode() + b"\n"
        path, temporary = self._path(source, facts), None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=self.folder, prefix=path.stem, suffix=".partial", delete=False
            ) as file:
                temporary = Path(file.name)
                file.write(header.ljust(_padded(header)))
                write(file)  # type: ignore[arg-type]  # typeshed's wrapper of a temporary file has the methods, not the base
            temporary.replace(path)
        except OSError as error:
            log.info("The compiled model is not kept in %s: %s.", self.folder, error)
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            return False
        self._tidy(keep=path)
        return True

    def remove(self, source: Path, facts: Mapping[str, str]) -> None:
        """Forget an entry that turned out to be of no use."""
        with contextlib.suppress(OSError):
            self._path(source, facts).unlink(missing_ok=True)

    def _path(self, source: Path, facts: Mapping[str, str]) -> Path:
        return self.folder / (
            hashlib.sha256(json.dumps([*_identity(source), sorted(facts.items())]).encode()).hexdigest()[:40] + _SUFFIX
        )

    def _tidy(self, *, keep: Path) -> None:
        """Remove entries that nobody used for long, what broke off, and the least recently used beyond ``_ROOM``."""
        room, now = _ROOM, time.time()
        for path, size, used in sorted(self._files(), key=lambda file: (file[0] != keep, -file[2])):
            room -= size
            if path != keep and (room < 0 or now - used > _UNUSED_DAYS * 86400):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        for path in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.suffix == _SUFFIX or (path.suffix == ".partial" and time.time() - status.st_mtime > 3600):
                    yield path, status.st_size, status.st_mtime if path.suffix == _SUFFIX else 0.0


def _padded(header: bytes) -> int:
    return -(-len(header) // _PAGE) * _PAGE


def _identity(source: Path) -> list[object]:
    """Return what changes when a model changes: path, size and time of its file.

    Those of files that hold its weights (``model.onnx.data``) count too.
    """
    parts = sorted(
        path for path in source.parent.iterdir() if path == source or path.name.startswith(source.stem + ".")
    )
    return [str(source.resolve()), *([path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in parts)]
