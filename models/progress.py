"""The progress of a model that is being fetched or converted: told in the log, and in a file that other processes read.

The file is ``<cache folder>/.progress/<task>--<name>.json``. It counts while somebody holds the lock of the folder that
the model is fetched into, which the kernel releases however a process ends; where no hub gave the model, until they are
asked again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

import psutil

from errors import ModelUnavailable
from models.download import is_locked
from models.durable import clear_path, read_json, write_json
from models.entry import ModelEntry, ModelKind
from settings import Settings

log = logging.getLogger(__name__)

State = Literal["asking", "downloading", "converting", "checking", "waiting"]
"""``asking``: hubs are asked what they have; ``waiting``: none gave the model, and they are asked again later."""

LOG_EVERY = 10.0
"""Seconds between lines in the log."""
_WRITE_EVERY = 1.0
"""Seconds between writes of the file."""
_RATE_OVER = 10
"""Writes over which the rate is the mean."""
_LATE = 5.0
"""Seconds that hubs may be asked again later than was said."""
_told: dict[Path, float] = {}
"""By file: `Progress.since` of what this process has told the log."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of fetching or converting one model."""

    task: ModelKind
    name: str
    """The catalog's."""
    state: State
    step: str
    """A file's name, what of the conversion is done, or the hubs that are asked."""
    bytes: int = 0
    """Of all files, those that are here."""
    total: int | None = None
    """Bytes in all; None where nobody knows."""
    rate: float = 0.0
    """Bytes a second over the last ten seconds."""
    share: float | None = None
    """Of the conversion, 0 to 1; None while downloading."""
    started: float = 0.0
    """Unix time, seconds."""
    since: float = 0.0
    """Unix time at which hubs were first asked in vain; 0 where they were not, or one has given bytes since."""
    again: float = 0.0
    """Unix time at which hubs are asked again; 0 while they are asked, and where nobody will."""
    teller: int = 0
    """Id of the process that was the first to ask in vain, and tells the log why."""

    @property
    def percent(self) -> int | None:
        """Return how much of the present state's work is done, 0 to 100; None where nobody knows."""
        if self.state in ("asking", "waiting"):
            return None
        if self.share is not None:
            return int(100 * self.share)
        return int(100 * self.bytes / self.total) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """Return how long the download will take at the present rate; None where nobody knows."""
        if self.state != "downloading" or self.total is None or self.rate <= 0:
            return None
        return max(0.0, (self.total - self.bytes) / self.rate)

    def __str__(self) -> str:
        if self.state in ("asking", "waiting"):
            return f"{self.name} ({self.task.value}): {self._asking()}"
        if self.state != "downloading":  # without a percentage: after the download's it would fall back
            comma = "," if self.state == "converting" else ""
            state = "" if self.step.startswith(self.state) else f"{self.state}{comma} "
            return f"{self.name} ({self.task.value}): {state}{self.step}"
        percent = f" ({self.percent} %)" if self.percent is not None else ""
        size = f"{self.bytes / 1e6:.0f} of {self.total / 1e6:.0f}" if self.total else f"{self.bytes / 1e6:.0f}"
        seconds = self.seconds_left
        left = f", {_duration(seconds)} left" if seconds is not None else ""
        rate = f"{self.rate / 1e6:.1f} MB/s{left}"
        return f"{self.name} ({self.task.value}): downloading {self.step}, {size} MB{percent}, {rate}"

    def _asking(self) -> str:
        if not self.since:
            return f"asking {self.step} where it can be had"
        then = f"asked again at {_clock(self.again)}" if self.again else "being asked again"
        return f"waiting for a hub that gives it since {_clock(self.since)} ({self.step}), {then}"


def on_its_way(task: ModelKind, name: str, settings: Settings) -> Progress | None:
    """Return how far the model is if any process is fetching or converting it now, else None. ``name``: the catalog's.

    Costs the reading of one small file. Never raises.
    """
    try:
        progress, folder = _read(_file(task, name, settings))
        if progress.state == "waiting":
            # With OFFLINE nobody asks again, whatever an earlier process has noted.
            return progress if progress.again > time.time() - _LATE and not settings.offline else None
        return progress if is_locked(folder) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def note_retry(task: ModelKind, name: str, settings: Settings, at: float) -> float | None:
    """Note that hubs are asked again for the model at ``at``, Unix time. Never raises.

    Returns the Unix time at which a process of this service told the log why; None where the caller is to tell.
    """
    if settings.offline:
        return None
    path = _file(task, name, settings)
    try:
        progress, folder = _read(path)
        if progress.since < psutil.Process().create_time():  # an earlier start, which had another log
            return None
        if progress.state == "waiting":  # else another process asks already
            _write(path, replace(progress, again=at), folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not progress.since or (progress.teller == os.getpid() and _told.get(path) != progress.since):
        _told[path] = progress.since
        return None
    return progress.since


class Reporter:
    """Tells of one model, from the ``with`` statement's begin to its end. Thread-safe.

    ``folder``: the one whose lock the caller holds. ``listener`` is told every second, in place of the log.
    """

    def __init__(
        self,
        entry: ModelEntry,
        settings: Settings,
        folder: Path,
        listener: Callable[[Progress], None] | None = None,
    ) -> None:
        self._file, self._hubs = _file(entry.task, entry.name, settings), _asked(entry)
        self._folder, self._listener = folder, listener
        self._now = Progress(entry.task, entry.name, "asking", self._hubs, started=time.time())
        self._have: dict[Path, int] = {}
        self._resumed = 0
        self._rates: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER)
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-progress", daemon=True)

    def __enter__(self) -> Reporter:
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            before, _ = _read(self._file)
            if before.since >= psutil.Process().create_time():  # what another start noted was told in another log
                self._now = replace(self._now, since=before.since, teller=before.teller)
        self._tell()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            if isinstance(error, ModelUnavailable):
                _write(self._file, self._in_vain(), self._folder)
            else:
                self._file.unlink()

    def _in_vain(self) -> Progress:
        """Return that no hub gave the model, since now if none did not before."""
        since, teller = (self._now.since, self._now.teller) if self._now.since else (time.time(), os.getpid())
        return replace(Progress(self._now.task, self._now.name, "waiting", self._hubs), since=since, teller=teller)

    def expect(self, total: int | None) -> None:
        """Note how many bytes all files have together, those that are here already included."""
        with self._guard:
            self._now = replace(self._now, total=total)

    def received(self, file: Path, have: int, size: int | None) -> None:
        """Note that ``have`` bytes of ``file`` are here, of ``size``."""
        with self._guard:
            if file not in self._have:
                self._resumed += have
            self._have[file] = have
            total = size if self._now.total is None and len(self._have) == 1 else self._now.total
            state: State = "checking" if size is not None and have >= size else "downloading"
            self._now = replace(
                self._now, state=state, step=file.name, bytes=sum(self._have.values()), total=total, share=None
            )
            if have:
                self._now = replace(self._now, since=0.0)

    def converts(self, step: str, share: float) -> None:
        """Note what the conversion does next, and which share of it, 0 to 1, is done."""
        state: State = "checking" if step.startswith("Checking") else "converting"
        with self._guard:
            self._now = replace(self._now, state=state, step=step[:1].lower() + step[1:], share=share, since=0.0)

    def _run(self) -> None:
        logged = time.monotonic()
        while not self._ended.wait(_WRITE_EVERY):
            progress = self._tell()
            if self._listener is not None:
                self._listener(progress)
            elif time.monotonic() - logged >= LOG_EVERY:
                logged = time.monotonic()
                log.info("%s", progress)

    def _tell(self) -> Progress:
        """Work the rate out and write the file."""
        with self._guard:
            self._rates.append((time.monotonic(), self._now.bytes - self._resumed))
            (began, at_first), (now, at_last) = self._rates[0], self._rates[-1]
            rate = (at_last - at_first) / (now - began) if now > began else 0.0
            self._now = progress = replace(self._now, rate=max(0.0, rate))
        try:
            _write(self._file, progress, self._folder)
        except OSError as error:
            log.debug("%s cannot be written: %s", self._file, error)
        return progress


def _file(task: ModelKind, name: str, settings: Settings) -> Path:
    return settings.cache_folder / ".progress" / f"{task.value}--{name}.json"


def _read(path: Path) -> tuple[Progress, Path]:
    """Return what the file at ``path`` says, and the folder whose lock counts. Raises what a damaged file can."""
    document = read_json(path)
    folder = Path(document.pop("folder"))
    return Progress(**{**document, "task": ModelKind(document["task"])}), folder


def _write(path: Path, progress: Progress, folder: Path) -> None:
    if not path.parent.is_dir():
        clear_path(path.parent)
    write_json(path, {**asdict(progress), "task": progress.task.value, "folder": str(folder)})


def _asked(entry: ModelEntry) -> str:
    """Return what is asked for the model, without an address: anybody may read it."""
    return ", ".join(entry.hubs) or "the addresses in the catalog"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
