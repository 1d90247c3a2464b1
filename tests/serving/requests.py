"""Requests whose bodies arrive as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request

from tools.harness.immich_client import HEADERS


def request(
    pieces: Sequence[bytes],
    headers: dict[str, str] | None = None,
    *,
    silent: bool = False,
    every: float = 0,
    client: str = "10.0.0.1",
) -> Request:
    """Return a request whose body arrives in ``pieces``, one every ``every`` seconds; with ``silent`` nothing follows,
    not even the body's end.
    """

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for index, piece in enumerate(pieces):
            if every:
                await asyncio.sleep(every)
            yield {"type": "http.request", "body": piece, "more_body": silent or index + 1 < len(pieces)}
        await asyncio.sleep(60)

    source = messages()
    waiting: list[asyncio.Task[dict[str, Any]]] = []

    async def receive() -> dict[str, Any]:
        """Return the next message, as uvicorn does: giving up does not lose what comes next."""
        if not waiting:
            waiting.append(asyncio.ensure_future(anext_of(source)))
        message = await asyncio.shield(waiting[0])
        waiting.clear()
        return message

    raw = [(name.encode(), value.encode()) for name, value in (HEADERS if headers is None else headers).items()]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": raw, "client": (client, 1)}
    return Request(scope, receive)


async def anext_of(source: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    return await source.__anext__()
