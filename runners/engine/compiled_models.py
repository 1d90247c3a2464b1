"""Cache of compiled models on disk, so that the next start need not compile again.

One file per entry, ``<key>.blob``: a line of JSON (``Entry``), padding, then the engine's own bytes, which are mapped
and not read. An entry gets its name only when it is complete. The cache may be deleted at any time: whatever is
missing, damaged or of another version is compiled again.
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
"""Bytes: a multiple of every system's page size. The engine's part begins at a multiple of it, which keeps its weights
aligned.
"""
_UNUSED_DAYS = 30.0
_ROOM = 8 * 2**30
"""Bytes of all entries together, at most; those used least recently are removed first."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The origin of an entry."""

    source: str
    """The model file."""
    facts: Mapping[str, str]
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Metadata of the graph, which the engine's bytes do not keep."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """An entry mapped into memory: pages are read from the file when they are used, and may be dropped."""

    entry: Entry
    mapping: mmap.mmap
    start: int

    def drop_pages(self) -> None:
        """Release the pages in memory. They are read from the file again when they are used."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.mapping.madvise(mmap.MADV_DONTNEED)


class CompiledModels:
    """The cache in one folder. Any number of processes may use it at once; none waits or fails because of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, source: Path, facts: Mapping[str, str]) -> Mapped | None:
        """Open the entry compiled from ``source`` as it is now under the same ``facts``; None where there is none."""
        path = self._path(source, facts)
        try:
            with path.open("rb") as file:
                header = file.readline()
                entry = Entry(**json.loads(header))
                # A private mapping: numpy and OpenVINO want a writable one, and nothing written reaches the file.
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
        """Add an entry with what ``write`` writes.

        Returns False, after a line in the log, where the folder cannot be written to.
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
        """Remove an entry that could not be used."""
        with contextlib.suppress(OSError):
            self._path(source, facts).unlink(missing_ok=True)

    def _path(self, source: Path, facts: Mapping[str, str]) -> Path:
        return self.folder / (
            hashlib.sha256(json.dumps([*_identity(source), sorted(facts.items())]).encode()).hexdigest()[:40] + _SUFFIX
        )

    def _tidy(self, *, keep: Path) -> None:
        """Remove entries not used for ``_UNUSED_DAYS``, partial files, and the least recently used beyond ``_ROOM``."""
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
    """Return what changes when a model changes: path, size and time of its file and of its files of weights.

    Weights may lie beside it, as ``model.onnx.data``.
    """
    parts = sorted(
        path for path in source.parent.iterdir() if path == source or path.name.startswith(source.stem + ".")
    )
    return [str(source.resolve()), *([path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in parts)]
