"""Cache of models: loaded on first use, kept while in use, unloaded when idle, their memory given back."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, TypeVar

from errors import ErrorCode, ModelUnavailable, ServiceError

log = logging.getLogger(__name__)

M = TypeVar("M")


class ModelCache(Generic[M]):
    """Loaded models by name. Thread-safe.

    A model is in memory at most once: it is neither loaded twice nor loaded while its predecessor is being closed.
    Loading or closing one never blocks another. The state of a name is never forgotten, so names should come from a
    catalog, not from clients.
    """

    def __init__(
        self,
        load: Callable[[str], M],
        close: Callable[[M], None],
        *,
        ttl: float,
        retry_after: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load models with ``load`` and close them with ``close``.

        ``ttl``: seconds without use after which ``unload_idle`` unloads a model; 0 never does.
        ``retry_after``: seconds for which a failed load is remembered instead of tried again. ``close`` must free what
        ``load`` made; the last reference to the model goes right after it.
        """
        self._load = load
        self._close = close
        self._ttl = ttl
        self._retry_after = retry_after
        self._clock = clock
        self._slots: dict[str, _Slot[M]] = {}
        self._guard = threading.Lock()
        # Lock order: a slot's own lock, then the guard. The guard is held for bookkeeping only, never while loading or
        # closing.

    @contextmanager
    def lease(self, name: str) -> Iterator[M]:
        """Lend the model ``name``, loaded if need be; it stays in memory at least until the ``with`` block ends.

        Raises whatever loading raises. A ``ServiceError`` of a load is remembered: for ``retry_after`` seconds it is
        raised again, as a new exception with the same code, without trying; and all who waited for the load that failed
        get it.
        """
        slot = self._enter(name)
        try:
            yield self._model(name, slot)
        finally:
            self._leave(name, slot)

    def pin(self, name: str) -> None:
        """Load ``name`` now, and never unload it for being idle. Raises as ``lease`` does, but pins it in any case."""
        with self._guard:
            self._slots.setdefault(name, _Slot()).pinned = True
        with self.lease(name):
            pass

    def unload_idle(self) -> list[str]:
        """Unload the models that were not used for ``ttl`` seconds and are not pinned. Return their names."""
        if not self._ttl:
            return []

        def is_idle(slot: _Slot[M]) -> bool:
            return not slot.pinned and self._clock() - slot.last_used >= self._ttl

        return self._unload(is_idle)

    def unload_all(self) -> list[str]:
        """Unload all models that are not in use, pinned or not. Return their names.

        A model in use, or being loaded, is closed as soon as its last lease ends. Leases until then share it.
        """
        with self._guard:
            for slot in self._slots.values():
                slot.retired = slot.users > 0
        return self._unload(lambda slot: True)

    def loaded(self) -> tuple[str, ...]:
        """Return the names of the models in memory."""
        with self._guard:
            return tuple(name for name, slot in self._slots.items() if slot.held is not None)

    def holds(self, name: str) -> bool:
        """Return whether the model ``name`` is in memory."""
        with self._guard:
            slot = self._slots.get(name)
            return slot is not None and slot.held is not None

    def _enter(self, name: str) -> _Slot[M]:
        with self._guard:
            slot = self._slots.setdefault(name, _Slot())
            slot.users += 1
            return slot

    def _leave(self, name: str, slot: _Slot[M]) -> None:
        with self._guard:
            slot.users -= 1
            slot.last_used = self._clock()
            closing = slot.retired and slot.users == 0
        if closing and self._unload_one(name, slot, lambda slot: False):
            give_memory_back()

    def _model(self, name: str, slot: _Slot[M]) -> M:
        """Return the model in ``slot``, loaded if need be. The caller already counts as its user."""
        with self._guard:
            if slot.held is not None:
                return slot.held.model
            failures_before = slot.failures
        with slot.lock:
            with self._guard:
                if slot.held is not None:
                    return slot.held.model
                failed_meanwhile = slot.failures != failures_before
                if slot.failure is not None and (
                    failed_meanwhile or self._clock() - slot.failure.at < self._retry_after
                ):
                    raise slot.failure.again(self._clock(), self._retry_after)
            try:
                held = _Held(self._load(name))
            except ServiceError as error:
                with self._guard:
                    slot.failure = FailedLoad(error.code, error.message, at=self._clock())
                    slot.failures += 1
                raise
            with self._guard:
                slot.held, slot.failure = held, None
            return held.model

    def _unload(self, wanted: Callable[[_Slot[M]], bool]) -> list[str]:
        with self._guard:
            slots = list(self._slots.items())
        unloaded = [name for name, slot in slots if self._unload_one(name, slot, wanted)]
        if unloaded:
            give_memory_back()
        return unloaded

    def _unload_one(self, name: str, slot: _Slot[M], wanted: Callable[[_Slot[M]], bool]) -> bool:
        """Close the model in ``slot`` if it is loaded, not in use, and retired or ``wanted``. Return whether it was."""
        with self._guard:
            if slot.users:
                return False  # without waiting for the lock while the model is being loaded
        with slot.lock:
            with self._guard:
                if slot.users:
                    return False
                held = slot.held if slot.retired or wanted(slot) else None
                slot.retired = False
                if held is None:
                    return False
                slot.held = None
            try:
                self._close(held.model)
            except Exception:  # the model counts as unloaded either way; others, and the lease just ended, go on
                log.exception("Closing the model %s failed", name)
        return True


def give_memory_back(*, cycles: bool = True) -> None:
    """Return freed memory to the operating system.

    ``cycles``: collect Python's reference cycles first. Then glibc's ``malloc_trim`` gives back whole free pages
    between blocks in use (malloc_trim(3)); other C libraries (musl, macOS, Windows) have no such call.
    """
    if cycles:
        gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    function.argtypes, function.restype = [ctypes.c_size_t], ctypes.c_int
    trim: Callable[[int], int] = function
    return trim


@dataclass(slots=True)
class _Held(Generic[M]):
    """A loaded model, which may be any value, None too."""

    model: M


@dataclass(frozen=True, slots=True)
class FailedLoad:
    """Reason of a failed load. The exception is not kept, as its traceback would keep a half-loaded model in memory."""

    code: ErrorCode
    message: str
    at: float

    def again(self, now: float, retry_after: float) -> ServiceError:
        """Return a new exception with the same code and message, and the times."""
        elapsed = now - self.at
        remaining = max(0, math.ceil(retry_after - elapsed))
        message = f"{self.message} (Tried {elapsed:.0f} s ago; tried again in {remaining} s.)"
        return (
            ModelUnavailable(message) if self.code is ErrorCode.MODEL_UNAVAILABLE else ServiceError(self.code, message)
        )


@dataclass(slots=True)
class _Slot(Generic[M]):
    """The state of one name. All fields but ``lock`` are guarded by the cache's guard."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the model is loaded or closed, never while it is used."""
    held: _Held[M] | None = None
    users: int = 0
    """Leases, from before the model is loaded."""
    last_used: float = 0.0
    pinned: bool = False
    retired: bool = False
    """To be closed when the last user leaves."""
    failure: FailedLoad | None = None
    failures: int = 0
    """Failed loads so far; tells those who waited that the load they waited for failed."""
