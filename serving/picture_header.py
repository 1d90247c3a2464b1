"""Reads headers of pictures beside the event loop: one that is made to take long then holds up no other request."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from errors import ServiceError, forget_frames
from runners.pictures.header import Header, read_header
from serving.turns import HEADERS, ClientTurns

_THREAD = ThreadPoolExecutor(1, thread_name_prefix="picture-header")
"""One: each takes the interpreter's lock from the event loop for up to 5 ms at a time."""


async def header_of(data: bytes, turns: ClientTurns, client: str, *, max_pixels: int) -> Header:
    """Return what ``read_header`` does, once it is the turn of ``client``. Raises ``ServiceError`` as it does."""
    async with turns.turn(client, {HEADERS: 1.0}):
        header = await asyncio.get_running_loop().run_in_executor(_THREAD, _read, data, max_pixels)
    if isinstance(header, ServiceError):
        raise header
    return header


def _read(data: bytes, max_pixels: int) -> Header | ServiceError:
    try:
        return read_header(data, max_pixels=max_pixels)
    except ServiceError as error:  # returned, since a future that keeps an error keeps the picture too
        forget_frames(error)
        return error
