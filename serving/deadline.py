"""``timeout``: a limit in seconds on a block of code, on every supported Python; ``Deadline``: one that can be paused.

``asyncio.wait_for`` is not used where requests pass: in Python 3.11 its frame stays in a cycle with the exception that
it raises, and with it whatever the frames of that exception hold, such as a picture, until the garbage collector's next
full run.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["Deadline", "deadline_paused", "timeout"]

_NEVER = 1e9
"""Seconds."""
_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


class Deadline:
    """A limit on a block of code, which its tasks may pause. An async context manager, to be entered once; raises
    ``asyncio.TimeoutError`` as ``timeout`` does.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._left = seconds
        self._ends = 0.0
        self._pauses = 0
        self._limit: Any = None
        self._token: Token[Deadline | None] | None = None

    @property
    def is_paused(self) -> bool:
        """Return whether time does not count now."""
        return self._pauses > 0

    async def __aenter__(self) -> Deadline:
        self._ends = asyncio.get_running_loop().time() + self._seconds
        self._limit = timeout(self._seconds)
        await self._limit.__aenter__()
        self._token = _current.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> bool | None:
        if self._token is not None:
            _current.reset(self._token)
        limit, self._limit = self._limit, None
        result: bool | None = await limit.__aexit__(kind, error, at)
        return result

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time that the block takes. Blocks of several tasks may overlap."""
        now = asyncio.get_running_loop().time
        if not self._pauses:
            self._left = self._ends - now()
            self._move(now() + _NEVER)
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses:
                self._move(now() + self._left)

    def _move(self, ends: float) -> None:
        self._ends = ends
        with suppress(RuntimeError):  # it has passed
            if self._limit is None:  # the block has ended, and this task of it ends after it
                return
            if sys.version_info >= (3, 11):
                self._limit.reschedule(ends)
            else:
                self._limit.update(ends)


def deadline_paused() -> AbstractContextManager[None]:
    """Return a context manager for a block whose time does not count for the ``Deadline`` that it runs under, if
    any.
    """
    deadline = _current.get()
    return deadline.paused() if deadline is not None else nullcontext()
