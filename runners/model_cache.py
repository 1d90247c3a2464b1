"""Models loaded on first use, kept while they are used, unloaded when idle, and their memory given back."""

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
    Loading or closing one never blocks another. What is known of a name is kept for good, so names should be a
    catalog's, not a client's.
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
        """``ttl``: seconds without use after which ``unload_idle`` unloads a model; 0 never does.

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
        """Lease the model ``name``, loaded if it is not; it stays in memory at least until the ``with`` block ends.

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
        """Load ``name`` now, and never unload it for being idle. Raises as ``lease`` does; it is pinned all the same
        then.
        """
        with self._guard:
            self._slots.setdefault(name, _Slot()).pinned = True
        with self.lease(name):
            pass

    def unload_idle(self) -> list[str]:
        """Unload what nobody has used for ``ttl`` seconds and is not pinned. Returns the names."""
        if not self._ttl:
            return []

        def is_idle(slot: _Slot[M]) -> bool:
            return not slot.pinned and self._clock() - slot.last_used >= self._ttl

        return self._unload(is_idle)

    def unload_all(self) -> list[str]:
        """Unload everything that is not in use, pinned or not. Returns the names.

        A model in use, or being loaded for somebody, is closed as soon as nobody uses it any more. Those who ask for it
        until then share it.
        """
        with self._guard:
            for slot in self._slots.values():
                slot.retired = slot.users > 0
        return self._unload(lambda slot: True)

    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory now."""
        with self._guard:
            return tuple(name for name, slot in self._slots.items() if slot.held is not None)

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
        """Return the model in ``slot``, loaded if need be. The caller counts as its user already."""
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
                    slot.failure = _Failed(error.code, error.message, at=self._clock())
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
        """Close the model in ``slot`` if it is loaded, nobody uses it and it is retired or ``wanted``. Whether it
        was.
        """
        with self._guard:
            if slot.users:
                return False  # which spares waiting for the lock where the model is being loaded
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
            except Exception:  # the model is let go of either way; others, and the lease just ended, go on
                log.exception("Closing the model %s failed", name)
        return True


def give_memory_back(*, cycles: bool = True) -> None:
    """Return freed memory to the operating system: Python's cycles first (unless not ``cycles``), then glibc's free
    lists.

    glibc keeps what is freed between blocks still in use; ``malloc_trim`` hands whole free pages back (malloc_trim(3)).
    Does only the first where the C library has no such call (musl, macOS, Windows).
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
    """A loaded model, whatever it is (None too)."""

    model: M


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a load failed, without the exception: its traceback would keep what was half loaded in memory."""

    code: ErrorCode
    message: str
    at: float

    def again(self, now: float, retry_after: float) -> ServiceError:
        """Return a new exception that says the same, and when."""
        elapsed = now - self.at
        remaining = max(0, math.ceil(retry_after - elapsed))
        message = f"{self.message} (Tried {elapsed:.0f} s ago; tried again in {remaining} s.)"
        return (
            ModelUnavailable(message) if self.code is ErrorCode.MODEL_UNAVAILABLE else ServiceError(self.code, message)
        )


@dataclass(slots=True)
class _Slot(Generic[M]):
    """What is known of one name. All fields but ``lock`` are guarded by the cache's guard."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the model is loaded or closed, never while it is used."""
    held: _Held[M] | None = None
    users: int = 0
    """Leases, from before the model is loaded."""
    last_used: float = 0.0
    pinned: bool = False
    retired: bool = False
    """To be closed when the last user leaves."""
    failure: _Failed | None = None
    failures: int = 0
    """Failed loads so far; tells those who waited that the load they waited for failed."""
