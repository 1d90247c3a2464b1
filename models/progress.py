"""The progress of a model that is being fetched or converted: told in the log, and in a file that other processes read.

The file is ``<cache folder>/.progress/<task>--<name>.json``. It counts while somebody holds the lock of the folder that
the model is fetched into, which the kernel releases however a process ends.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from models.download import is_locked
from models.durable import write_json
from models.entry import ModelEntry, ModelKind
from settings import Settings

log = logging.getLogger(__name__)

State = Literal["downloading", "converting", "checking"]

LOG_EVERY = 10.0
"""Seconds between lines in the log."""
_WRITE_EVERY = 1.0
"""Seconds between writes of the file."""
_RATE_OVER = 10
"""Writes over which the rate is the mean."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of fetching or converting one model."""

    task: ModelKind
    name: str
    """The catalog's."""
    state: State
    step: str
    """A file's name, or what of the conversion is done; empty while hubs are asked what they have."""
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

    @property
    def percent(self) -> int | None:
        """Return how much of the present state's work is done, 0 to 100; None where nobody knows."""
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
        percent = f" ({self.percent} %)" if self.percent is not None else ""
        if self.state != "downloading":
            state = "" if self.step.startswith(self.state) else f"{self.state}, "
            return f"{self.name} ({self.task.value}): {state}{self.step}{percent}"
        if not self.step:
            return f"{self.name} ({self.task.value}): asking where it can be had"
        size = f"{self.bytes / 1e6:.0f} of {self.total / 1e6:.0f}" if self.total else f"{self.bytes / 1e6:.0f}"
        seconds = self.seconds_left
        left = f", {_duration(seconds)} left" if seconds is not None else ""
        rate = f"{self.rate / 1e6:.1f} MB/s{left}"
        return f"{self.name} ({self.task.value}): downloading {self.step}, {size} MB{percent}, {rate}"


def on_its_way(task: ModelKind, name: str, settings: Settings) -> Progress | None:
    """Return how far the model is if any process is fetching or converting it now, else None. ``name``: the catalog's.

    Costs the reading of one small file. Never raises.
    """
    try:
        document = json.loads(_file(task, name, settings).read_text(encoding="utf-8"))
        if not is_locked(Path(document.pop("folder"))):
            return None
        return Progress(**{**document, "task": ModelKind(document["task"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


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
        self._file = _file(entry.task, entry.name, settings)
        self._folder, self._listener = folder, listener
        self._now = Progress(entry.task, entry.name, "downloading", "", started=time.time())
        self._have: dict[Path, int] = {}
        self._resumed = 0
        self._rates: deque[tuple[float, int]] = deque(maxlen=_RATE_OVER)
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-progress", daemon=True)

    def __enter__(self) -> Reporter:
        self._tell()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            self._file.unlink()

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

    def converts(self, step: str, share: float) -> None:
        """Note what the conversion does next, and which share of it, 0 to 1, is done."""
        state: State = "checking" if step.startswith("Checking") else "converting"
        with self._guard:
            self._now = replace(self._now, state=state, step=step[:1].lower() + step[1:], share=share)

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
            write_json(self._file, {**asdict(progress), "task": progress.task.value, "folder": str(self._folder)})
        except OSError as error:
            log.debug("%s cannot be written: %s", self._file, error)
        return progress


def _file(task: ModelKind, name: str, settings: Settings) -> Path:
    return settings.cache_folder / ".progress" / f"{task.value}--{name}.json"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
