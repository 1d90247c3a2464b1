"""Downloads one file: resumed where it was cut, checked, and only then given its name."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from models.digest import Digest, digest_of
from models.durable import clear_path, give_name, make_folder, open_lock
from models.transfer import Interrupted, Limits, TransferFailed, WrongFile, answer_to, host_of, http_client, retrying

log = logging.getLogger(__name__)


Progress = Callable[[Path, int, "int | None"], None]
"""Told, as bytes come: the file that they become, bytes that are here, bytes in all (None where nobody knows)."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that can be fetched, and what it must be."""

    url: str
    digest: Digest
    bytes: int | None


def download(remote: RemoteFile, target: Path, *, title: str, limits: Limits, progress: Progress | None = None) -> None:
    """Fetch ``remote`` to ``target``, which afterwards holds exactly the bytes that ``remote.digest`` stands for.

    Bytes arrive in ``<target>.<digest>.partial`` beside it; what an earlier, broken download left there is kept and
    continued. The caller holds ``download_lock`` of the folder. ``title`` names the download in the log; ``progress``
    is told of bytes.

    Raises ``TransferFailed``; ``OSError`` where the disk refuses.
    """
    make_folder(target.parent)
    partial = partial_of(target, remote.digest)
    clear_path(partial, unless=stat.S_ISREG)
    resumed = _size(partial) > 0
    with http_client(limits) as client:
        fetch = _Fetch(
            client,
            remote,
            partial,
            title,
            limits,
            lambda have, size: progress(target, have, size) if progress else None,
        )
        retrying(fetch.attempt, limits, progress=lambda: _size(partial))
        actual = digest_of(partial, remote.digest.algorithm)
        if actual != remote.digest and (resumed or fetch.resumed):
            log.warning("%s: what was put together from several downloads is wrong; fetching it whole.", title)
            partial.unlink()
            retrying(fetch.attempt, limits, progress=lambda: _size(partial))
            actual = digest_of(partial, remote.digest.algorithm)
    if actual != remote.digest:
        size = _size(partial)
        partial.unlink()
        raise WrongFile(f"{host_of(remote.url)} sent {size:,} bytes whose digest is {actual}, not {remote.digest}")
    give_name(partial, target)
    _drop_other_versions(target)


@contextmanager
def download_lock(folder: Path) -> Iterator[None]:
    """Keep other threads and processes from downloading into ``folder``; waits while one does. Raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_lock(folder / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_locked(folder: Path) -> bool:
    """Return whether some thread or process holds ``download_lock`` of ``folder`` now. Raises ``OSError``."""
    if not (folder / ".lock").is_file():  # a pipe would be waited for
        return False
    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def partial_of(target: Path, digest: Digest) -> Path:
    """Return the file in which the bytes of ``target`` arrive, if they must have ``digest``."""
    return target.with_name(f"{target.name}.{digest.value[:12]}.partial")


class _Fetch:
    """Attempts at one file; ``partial`` grows from one to the next."""

    def __init__(
        self,
        client: httpx.Client,
        remote: RemoteFile,
        partial: Path,
        title: str,
        limits: Limits,
        tell: Callable[[int, int | None], None],
    ) -> None:
        self._client, self._remote, self._partial, self._title, self._limits = client, remote, partial, title, limits
        self._tell = tell
        self._logged = False
        self.resumed = False

    def attempt(self) -> None:
        """Add what is missing to the partial file. Raises ``Interrupted``, ``TransferFailed``, ``OSError``."""
        have, expected = _size(self._partial), self._remote.bytes
        if expected is not None and have == expected and self._partial.exists():
            return
        if expected is not None and have > expected:
            self._partial.unlink()
            have = 0
        headers = {"Range": f"bytes={have}-"} if have else None
        with answer_to(self._client, self._remote.url, self._limits, headers) as response:
            if response.status_code == 416:
                if not have:  # no range was asked for
                    raise TransferFailed(f"{host_of(self._remote.url)} answered 416 where the whole file was asked for")
                # Nothing after what is there: it is whole, its size being unknown, or it is of another file.
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return
                self._partial.unlink(missing_ok=True)
                raise Interrupted(f"{host_of(self._remote.url)} cannot go on at byte {have}", answered=True)
            start = have if _continues_at(response, have) else 0
            self._check_length(response, start)
            self._log(response, start)
            self.resumed = self.resumed or start > 0
            self._write(response, start)

    def _write(self, response: httpx.Response, start: int) -> None:
        written, expected = start, self._remote.bytes
        length = _content_length(response)
        size = expected if expected is not None or length is None else start + length
        self._tell(written, size)
        since, by_then = time.monotonic(), written
        with self._partial.open("ab" if start else "wb") as file:
            for chunk in response.iter_raw():
                written += len(chunk)
                if time.monotonic() - since >= self._limits.rate_over:
                    self._check_rate(written - by_then)
                    since, by_then = time.monotonic(), written
                if expected is not None and written > expected:
                    raise WrongFile(
                        f"{host_of(self._remote.url)} sends more than the {expected:,} bytes that the file has"
                    )
                file.write(chunk)
                self._tell(written, size)
            file.flush()
            os.fsync(file.fileno())
        if expected is not None and written < expected:
            raise Interrupted(f"{host_of(self._remote.url)} sent {written:,} of {expected:,} bytes", answered=True)

    def _check_rate(self, received: int) -> None:
        limits = self._limits
        if received < limits.least_rate * limits.rate_over:
            reason = f"{host_of(self._remote.url)} sent only {received:,} bytes in {limits.rate_over:g} s"
            raise Interrupted(reason, answered=True, too_slow=True)

    def _check_length(self, response: httpx.Response, start: int) -> None:
        length, expected = _content_length(response), self._remote.bytes
        if length is not None and expected is not None and start + length != expected:
            raise WrongFile(f"{host_of(self._remote.url)} has a file of {start + length:,} bytes, not of {expected:,}")

    def _log(self, response: httpx.Response, start: int) -> None:
        if self._logged:
            return
        self._logged = True
        length = _content_length(response)
        size = self._remote.bytes or (start + length if length is not None else None)
        log.info(
            "Downloading %s from %s, %s%s",
            self._title,
            host_of(self._remote.url),
            f"{size / 1e6:.1f} MB" if size is not None else "size unknown",
            f", going on at {start / 1e6:.1f} MB" if start else "",
        )


def _continues_at(response: httpx.Response, start: int) -> bool:
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _content_length(response: httpx.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isdecimal() else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _drop_other_versions(target: Path) -> None:
    """Delete partial downloads of other versions of ``target``."""
    for stale in target.parent.glob(f"{target.name}.*.partial"):
        with contextlib.suppress(OSError):
            clear_path(stale)
