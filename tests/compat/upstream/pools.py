"""A pool of upstreams, and requests to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from compat.upstream.pool import UpstreamAnswer, UpstreamPool
from errors import ServiceError
from tests.fake_upstream import expected_vector

ENTRIES = b'{"clip":{"textual":{"modelName":"x"}}}'


def parts(text: str = "dog") -> dict[str, bytes]:
    return {"entries": ENTRIES, "text": text.encode()}


@contextlib.asynccontextmanager
async def pool_of(*urls: str, **options: Any) -> AsyncIterator[UpstreamPool]:
    pool = UpstreamPool(urls, **{"task": "clip", "timeout": 5.0, "concurrency": 4, "retry_after": 0.1, **options})
    await asyncio.sleep(0.05)  # the first look
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool: UpstreamPool, text: str = "dog") -> UpstreamAnswer:
    return await asyncio.wait_for(pool.ask(parts(text), ["clip"], {}), 20)


async def code_of(pool: UpstreamPool, text: str = "dog") -> str:
    """Return the code of the error, or ``answered``."""
    try:
        answer = await ask(pool, text)
    except ServiceError as error:
        return str(error.code.value)
    assert answer.tasks == {"clip": expected_vector(parts(text))}
    return "answered"


async def until(condition: Callable[[], bool]) -> None:
    async def look() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), 20)
