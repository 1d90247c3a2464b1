"""Work that ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

R = TypeVar("R")


async def unless_gone(receive: Receive, work: Awaitable[R]) -> R:
    """Return the result of ``work``; cancel it and raise ``ClientDisconnect`` once the client has gone.

    ``receive``: of an ASGI app that has read the whole body.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for one in (working, watching):
            one.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await working  # so that what it holds is free before the caller goes on; its outcome is of no use here
        del one, working, watching  # an exception's traceback holds this frame, which would hold the exception


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def gather_first_error(work: Sequence[Awaitable[Any]]) -> list[Any]:
    """Return all results in order; raise the first error, with the rest cancelled rather than left to run."""
    if len(work) == 1:  # most requests ask for one thing, which then needs no asyncio task of its own
        return [await work[0]]
    tasks = [asyncio.ensure_future(one) for one in work]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()  # raises, before one that is not done would
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        del task, tasks  # as above


async def gather_in_turns(calls: Sequence[Callable[[], Awaitable[R]]], *, at_once: int) -> list[R]:
    """Make all ``calls``, at most so many ``at_once``, and return their results as ``gather_first_error`` does."""
    turns = asyncio.Semaphore(at_once)

    async def in_turn(call: Callable[[], Awaitable[R]]) -> R:
        async with turns:
            return await call()

    return await gather_first_error([in_turn(call) for call in calls])
