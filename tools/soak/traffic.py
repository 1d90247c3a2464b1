"""The good callers of a soak: eight of them, as Immich's jobs and a person who searches send their requests."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

from tools.bench.pictures import group_photo
from tools.harness.immich_client import HEADERS, clip_textual, clip_visual, faces, multipart, ocr
from tools.harness.rendered import mixed_pages
from tools.soak.record import Request

CALLERS = 8
_IDLE = 4.0
"""Seconds that an idle connection is kept, as Immich keeps it."""
_GIVEN_UP_AFTER = 300.0
"""Seconds, as Immich waits."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of good request."""

    kind: str
    method: str
    path: str
    body: bytes | None = None


def asks() -> tuple[Ask, ...]:
    """Return what the callers ask in turn: pictures as Immich asks them, and searches of a person."""
    page, photo = mixed_pages()[0].data, group_photo()
    return (
        Ask("clip", "POST", "/predict", multipart(clip_visual(), image=photo)),
        Ask("ocr", "POST", "/predict", multipart(ocr(), image=page)),
        Ask("text", "POST", "/predict", multipart(clip_textual(), text="a dog in the snow")),
        Ask("faces", "POST", "/predict", multipart(faces(), image=photo)),
        Ask("search", "GET", "/search?q=发票"),
    )


async def warmed_up(url: str, key: str) -> None:
    """Have ``CALLERS`` callers ask each kind at the same time, so that every model and every copy of one is in memory.

    Raises ``AssertionError`` where one is not answered.
    """
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=_GIVEN_UP_AFTER)) as client:
        errors = await asyncio.gather(*(_error(client, ask, key) for ask in asks() for _ in range(CALLERS)))
    assert not any(errors), f"Not all is answered before anything is done: {errors}"


async def callers(
    url: str, key: str, record: Callable[[Request], object], now: Callable[[], float], until: asyncio.Event
) -> None:
    """Have ``CALLERS`` callers ask the service at ``url`` one request after another until ``until`` is set.

    ``record`` is called with each, ``now`` returns seconds from the beginning.
    """
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE)
    timeout = aiohttp.ClientTimeout(total=_GIVEN_UP_AFTER)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as client:
        kinds = asks()
        await asyncio.gather(*(_caller(client, number, kinds, key, record, now, until) for number in range(CALLERS)))


async def _caller(
    client: aiohttp.ClientSession,
    number: int,
    kinds: Sequence[Ask],
    key: str,
    record: Callable[[Request], object],
    now: Callable[[], float],
    until: asyncio.Event,
) -> None:
    chance = random.Random(number)
    for ask in itertools.islice(itertools.cycle(kinds), number % len(kinds), None):
        if until.is_set():
            return
        began = now()
        error = await _error(client, ask, key)
        record(Request(ask.kind, began, now() - began, error))
        await asyncio.sleep(chance.uniform(0, 0.1))


async def _error(client: aiohttp.ClientSession, ask: Ask, key: str) -> str:
    """Send one request; return why it is lost, or an empty text where it is answered 200."""
    headers = HEADERS if ask.body is not None else {"api-key": key}
    try:
        async with client.request(ask.method, ask.path, data=ask.body, headers=headers) as answer:
            text = await answer.text()
            return "" if answer.status == 200 else f"{answer.status} {text[:200]}"
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
        return repr(error)[:200]
