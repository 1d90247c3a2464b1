"""Places of pictures: folders of this machine, and whatever ``fsspec`` knows by an address. Listed lazily, read on
demand.

A file's *uri* is what the index knows it by: a plain absolute path, or ``scheme://…``. A local name that is not UTF-8,
which PostgreSQL could not store, is written ``file:///…`` with its bytes in percent signs.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import quote_from_bytes, unquote_to_bytes

import fsspec

from search.indexing.formats import Kind, kind_of
from settings.addresses import shown_url

SKIPPED_FOLDERS = frozenset(
    {"@eadir", "#recycle", "#snapshot", "$recycle.bin", "lost+found", "system volume information"}
)
"""What NAS systems and Windows keep beside people's files: thumbnails, bins, snapshots. Compared in lower case."""


class PlaceError(Exception):
    """An address that cannot be listed at all: unknown scheme, missing package, no such place."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a kind that is known here, as its folder lists it."""

    uri: str
    kind: Kind
    size: int
    """Bytes."""
    modified: datetime | None
    """None where the place does not say."""


class Place(Protocol):
    """One folder, file or prefix that is indexed."""

    @property
    def uri(self) -> str:
        """Return the address of the root; every file's own starts with it."""
        ...

    def walk(self, failed: Callable[[str, str], None]) -> Iterator[Entry]:
        """Yield every file below the root, lazily. ``failed(folder, why)`` is called for each folder that could not be
        listed.
        """
        ...


def place(address: str) -> Place:
    """Return the place that ``address`` (a path, or ``scheme://…``) names. Raises ``PlaceError``."""
    if "://" not in address or address.startswith("file://"):
        path = local_path(address) if address.startswith("file://") else Path(address).expanduser()
        return LocalPlace(Path(os.path.abspath(path)))
    shown = shown_url(address)
    scheme, _, rest = address.partition("://")
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        raise PlaceError(
            f"The address {shown} holds a password, which would be kept in the index. Leave it out, and set "
            f"FSSPEC_{scheme.upper()}_PASSWORD, or what the place's own library reads, such as AWS_SECRET_ACCESS_KEY."
        )
    try:
        system, path_there = fsspec.core.url_to_fs(address, **_options(address))
        by_host = "host" in type(system)._get_kwargs_from_urls(address)
    except Exception as error:  # each of fsspec's systems raises errors of its own
        raise PlaceError(f"{shown} cannot be opened: {error or type(error).__name__}.") from error
    host = f"{scheme}://{rest.partition('/')[0]}" if by_host else ""
    return RemotePlace(system, path_there.rstrip("/"), host)


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """A folder or a file of this machine."""

    root: Path

    @property
    def uri(self) -> str:
        return local_uri(str(self.root))

    def walk(self, failed: Callable[[str, str], None]) -> Iterator[Entry]:
        """Yield every file below the root, with one open folder per level of depth. Links to files are followed; links
        to folders may lead round in circles and are not.
        """
        if self.root.is_file():
            entry = _local_entry(str(self.root), os.stat(self.root))
            if entry is not None:
                yield entry
        else:
            yield from _walk_folder(str(self.root), failed)


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """A prefix of an object store, or anything else of ``fsspec``. A folder of it is listed at once, not file by
    file.
    """

    system: Any
    """One of fsspec's file systems."""
    root: str
    host: str = ""
    """``scheme://[user@]host[:port]`` of a system whose own paths do not say it (sftp, ftp, smb)."""

    @property
    def uri(self) -> str:
        return self._uri_of(self.root)

    def _uri_of(self, path: str) -> str:
        return self.host + path if self.host else str(self.system.unstrip_protocol(path))

    def walk(self, failed: Callable[[str, str], None]) -> Iterator[Entry]:
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            try:
                self.system.invalidate_cache(folder)
                listed = self.system.ls(folder, detail=True)
            except Exception as error:  # noqa: BLE001 - each of fsspec's systems raises errors of its own
                failed(self._uri_of(folder), str(error) or type(error).__name__)
                continue
            for info in listed:
                name = info["name"].rstrip("/")
                base = name.rpartition("/")[2]
                if info.get("type") == "directory":
                    if name != folder and not _skipped(base):
                        waiting.append(name)
                elif (kind := kind_of(base)) is not None and not base.startswith("."):
                    yield Entry(self._uri_of(name), kind, int(info.get("size") or 0), _modified(info))


def open_file(uri: str) -> IO[bytes]:
    """Open the file for reading. Raises ``OSError``, and whatever else the place's own library raises."""
    if "://" not in uri or uri.startswith("file://"):
        # Never waits for a writer: a name that was a file when it was listed may be a pipe by now.
        descriptor = os.open(local_path(uri), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{uri} is not a file")
        return os.fdopen(descriptor, "rb")
    file: IO[bytes] = fsspec.open(uri, "rb", **_options(uri)).open()
    return file


def exists(uri: str) -> bool:
    """Return whether the file is there. Raises ``OSError``, and whatever else the place's own library raises."""
    if "://" not in uri or uri.startswith("file://"):
        return os.path.lexists(local_path(uri))
    system, path = fsspec.core.url_to_fs(uri, **_options(uri))
    return bool(system.exists(path))


def local_uri(path: str) -> str:
    """Return the uri by which the index knows a local path."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "file://" + quote_from_bytes(os.fsencode(path))
    return path


def local_path(uri: str) -> Path:
    """Return the path that a local uri names."""
    return Path(os.fsdecode(unquote_to_bytes(uri[len("file://") :]))) if uri.startswith("file://") else Path(uri)


def _walk_folder(folder: str, failed: Callable[[str, str], None]) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as listed:
            for item in listed:
                if item.is_dir(follow_symlinks=False):
                    if not _skipped(item.name):
                        yield from _walk_folder(item.path, failed)
                elif not item.name.startswith(".") and kind_of(item.name) is not None:
                    yield from _stat(item)
    except OSError as error:
        failed(local_uri(folder), error.strerror or str(error))


def _stat(item: os.DirEntry[str]) -> Iterator[Entry]:
    try:
        entry = _local_entry(item.path, item.stat())
    except OSError:  # gone since it was listed, or a link to nowhere
        return
    if entry is not None:
        yield entry


def _local_entry(path: str, found: os.stat_result) -> Entry | None:
    kind = kind_of(path)
    if kind is None or not stat.S_ISREG(found.st_mode):
        return None
    modified: datetime | None = None
    with contextlib.suppress(ValueError, OverflowError, OSError):  # a date that no calendar has
        modified = datetime.fromtimestamp(found.st_mtime_ns // 1000 / 1_000_000, timezone.utc)
    return Entry(local_uri(path), kind, found.st_size, modified)


def _skipped(folder: str) -> bool:
    return folder.startswith(".") or folder.lower() in SKIPPED_FOLDERS


def _modified(info: dict[str, Any]) -> datetime | None:
    """Return when the file was changed, by the names that fsspec's systems have for it."""
    for name in ("LastModified", "last_modified", "mtime", "modified", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, timezone.utc)
    return None


def _options(address: str) -> dict[str, Any]:
    # A list that is remembered would hide what has changed since, and a million names would stay in memory.
    return {"use_listings_cache": False} if address.startswith(("s3://", "s3a://")) else {}


def shown_uri(uri: str) -> str:
    """Return ``uri`` as messages may show it: an address without credentials, which older indexes may hold."""
    return shown_url(uri) if "://" in uri else uri
