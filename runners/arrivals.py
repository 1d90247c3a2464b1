"""The arrival of models' files on this machine: fetched where they are not here, without loading them into memory."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from errors import ErrorCode, ServiceError
from runners.contract import Failure, ModelState
from runners.model_cache import FailedLoad, give_memory_back

if TYPE_CHECKING:
    from models.progress import Progress

log = logging.getLogger(__name__)

_MOMENT = 2.0
"""Seconds that a job waits for files that are looked at before it is told that they are on their way: finding and
checking what is on this machine takes less."""
_TRUST = 10.0
"""Seconds for which files that were here are taken to be here still."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 900.0
"""Seconds between tries to fetch a model that a setting names."""


@dataclass(frozen=True, slots=True)
class Source:
    """The source of the files of a task's models."""

    fetch: Callable[[str], object]
    """Has the files of a model on this machine; blocks. Raises ``ServiceError``."""
    progress: Callable[[str], Progress | None]
    """Progress of a model that some process of this machine is fetching, or will ask hubs for again."""
    waits: Callable[[str, float], float | None] = lambda name, at: None
    """Notes the Unix time at which a model is tried again; returns when the log was told why, None if it was not."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The outcome of the last look for a model's files."""

    at: float
    failure: FailedLoad | None


class Arrivals:
    """The files of one task's models. Belongs to one event loop.

    Each model is fetched in a thread of its own, which does not keep the process from ending: the next one goes on.
    """

    def __init__(self, task: str, source: Source, *, retry_after: float) -> None:
        """``task``: the runner's name. ``retry_after``: seconds for which a failure is remembered."""
        self._task, self._source, self._retry_after = task, source, retry_after
        self._looking: dict[str, asyncio.Future[Failure | None]] = {}
        self._outcomes: dict[str, _Outcome] = {}
        self._named: dict[str, None] = {}
        self._details: dict[str, str] = {}
        """By model: why the last try failed, at length."""

    async def lack(self, name: str) -> Failure | None:
        """Return None if the files of ``name`` are here, else why not. Fetches them where nobody has begun to.

        MODEL_ON_ITS_WAY if that takes more than a moment; MODEL_UNAVAILABLE, for ``retry_after`` seconds, if it failed.
        """
        looking = self._looking.get(name)
        if looking is None:
            known, now = self._outcomes.get(name), time.monotonic()
            if known is not None and known.failure is None and now - known.at < _TRUST:
                return None
            if known is not None and known.failure is not None and now - known.at < self._retry_after:
                error = known.failure.again(now, self._retry_after)
                return Failure(error.code, error.message)
            looking = self._look(name)
        await asyncio.wait((looking,), timeout=_MOMENT)
        if looking.done():
            return looking.result()
        return Failure(ErrorCode.MODEL_ON_ITS_WAY, f"{self._task}: {self._progress(name)[0]}. Try again later.")

    async def bring(self, name: str) -> None:
        """Fetch the files of ``name``, which a setting names, and try again, ever less often, while they cannot be
        had.
        """
        self._named[name] = None
        pause, last = max(_SHORTEST_PAUSE, self._retry_after), ""
        while (failure := await asyncio.shield(self._looking.get(name) or self._look(name))) is not None:
            told = self._source.waits(name, time.time() + pause)
            if told is not None:
                why = f"Why was told at {time.strftime('%H:%M:%S', time.localtime(told))}."
            else:
                reason = self._details.get(name, failure.message)
                why = reason if reason != last else "For the same reason as before."
                last = reason
            log.error("%s: %s is not here; tried again in %.0f s. %s", self._task, name, pause, why)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def states(self) -> list[ModelState]:
        """Return what is known of each model that was named or asked for."""
        return [self._state(name) for name in {**self._named, **self._outcomes, **self._looking}]

    def _state(self, name: str) -> ModelState:
        known, named = self._outcomes.get(name), name in self._named
        if known is not None and known.failure is None:  # also while it is looked at again
            return ModelState(self._task, name, "here", named)
        if name in self._looking or known is None or known.failure is None:
            detail, percent = self._progress(name)
            return ModelState(self._task, name, "on its way", named, detail, percent)
        progress = self._source.progress(name)
        waiting = str(progress) if progress is not None else ""
        return ModelState(self._task, name, "unavailable", named, known.failure.message, waiting=waiting)

    def _progress(self, name: str) -> tuple[str, int | None]:
        progress = self._source.progress(name)
        if progress is None:
            return f"{name}: its files are looked for", None
        return str(progress), progress.percent

    def _look(self, name: str) -> asyncio.Future[Failure | None]:
        loop = asyncio.get_running_loop()
        looking = self._looking[name] = loop.create_future()

        def end(failure: FailedLoad | None) -> None:
            del self._looking[name]
            self._outcomes[name] = _Outcome(time.monotonic(), failure)
            if not looking.done():
                looking.set_result(Failure(failure.code, failure.message) if failure is not None else None)

        def run() -> None:
            failure = self._fetch(name)
            give_memory_back(cycles=False)  # what listing and digesting files took
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(end, failure)

        threading.Thread(target=run, name=f"fetch-{self._task}-{name}", daemon=True).start()
        return looking

    def _fetch(self, name: str) -> FailedLoad | None:
        try:
            self._source.fetch(name)
        except ServiceError as error:
            before, self._details[name] = self._details.get(name), str(error)
            if name not in self._named and str(error) not in (before, error.message):  # else `bring` tells why
                log.warning("%s: %s", self._task, error)
            return FailedLoad(error.code, error.message, at=time.monotonic())
        except Exception:
            log.exception("%s: %s could not be fetched", self._task, name)
            message = f"{name} could not be fetched. This is a fault of the service; its log has the details."
            self._details.pop(name, None)
            return FailedLoad(ErrorCode.INTERNAL, message, at=time.monotonic())
        self._details.pop(name, None)
        return None
