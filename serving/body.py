"""Reads request bodies piece by piece: bounded in size and pace, and not before there is room for the next piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from errors import ErrorCode, ServiceError
from serving.budget import ByteBudget, Room
from serving.client_address import client_address
from serving.deadline import timeout
from serving.multipart import Form, FormParser, boundary_of
from serving.turns import ClientTurns, open_turns
from settings import Settings

PIECE = 320 * 1024
"""Bytes: the most that uvicorn hands over at once (its buffer of 64 KiB, overrun by one read of 256 KiB)."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The most bytes of a body, and the least rate at which it may come."""

    largest: int
    """Bytes."""
    window: float
    """Seconds over which the rate is measured. Time in which there was no room for more does not count."""
    least_rate: float
    """Bytes a second."""


@dataclass(frozen=True, slots=True)
class Intake:
    """The resources that all clients share: room for bodies, under one set of limits, and turns at the runners."""

    budget: ByteBudget
    limits: BodyLimits
    turns: ClientTurns

    @asynccontextmanager
    async def form(self, request: Request, parts: Mapping[str, int | None]) -> AsyncIterator[Form]:
        """Read the ``multipart/form-data`` body of ``request``; its room is held, and its parts are there, for the
        length of the block.

        ``parts``: the names of the parts that are kept, and the most bytes that each may have (None: as many as the
        body). Raises ``ServiceError``: INVALID_REQUEST, BODY_TOO_LARGE, BODY_TIMEOUT, QUEUE_FULL; ``ClientDisconnect``.
        """
        parser = FormParser(boundary_of(request.headers.get("content-type", "")), parts)
        async with self._room(request, self.limits) as room:
            room.complete(await read_pieces(request, room, self.limits, parser.feed))
            form = Form(parser.finish())
            del parser
            try:
                yield form
            finally:
                form.parts.clear()  # whoever holds the form yet (a traceback does) does not hold the picture

    @asynccontextmanager
    async def body(self, request: Request, *, largest: int) -> AsyncIterator[bytes]:
        """Read the whole body of ``request``, of at most ``largest`` bytes; its room is held for the length of the
        block.

        Raises as ``form`` does.
        """
        limits = BodyLimits(min(largest, self.limits.largest), self.limits.window, self.limits.least_rate)
        async with self._room(request, limits) as room:
            body = bytearray()
            room.complete(await read_pieces(request, room, limits, body.extend))
            yield bytes(body)

    @asynccontextmanager
    async def _room(self, request: Request, limits: BodyLimits) -> AsyncIterator[Room]:
        claim = announced_size(request, limits.largest)
        async with self.budget.room(client_address(request), claim) as room:
            yield room


def open_intake(settings: Settings) -> Intake:
    """Return the intake that ``settings`` describe."""
    largest = settings.max_body_bytes
    return Intake(
        ByteBudget(settings.queue_bytes, settings.queue_requests, largest=largest),
        BodyLimits(largest, settings.body_timeout, settings.body_min_rate),
        open_turns(settings),
    )


async def small_body(request: Request, *, largest: int, seconds: float) -> bytes:
    """Read the whole body of ``request``, of at most ``largest`` bytes, for which no room is claimed.

    ``seconds``: that it may take to come. Raises ``ServiceError``: BODY_TOO_LARGE, BODY_TIMEOUT.
    """
    body, is_whole = await read_start(request.stream(), largest=largest, seconds=seconds)
    if not is_whole:
        raise ServiceError(ErrorCode.BODY_TOO_LARGE, f"The body is larger than {largest:,} bytes.")
    return body


async def read_start(pieces: AsyncIterator[bytes], *, largest: int, seconds: float) -> tuple[bytes, bool]:
    """Read the ``pieces`` of a body until there are more than ``largest`` bytes; return them, and whether they are all.

    ``seconds``: that they may take to come. Raises ``ServiceError`` BODY_TIMEOUT.
    """
    start = bytearray()
    try:
        async with timeout(seconds):
            async for piece in pieces:
                start += piece
                if len(start) > largest:
                    return bytes(start), False
    except asyncio.TimeoutError as error:
        raise ServiceError(ErrorCode.BODY_TIMEOUT, f"The body did not come in {seconds:g} s (BODY_TIMEOUT).") from error
    return bytes(start), True


def announced_size(request: Request, limit: int) -> int:
    """Return how many bytes the body of ``request`` has by its header; ``limit`` where it does not say.

    Raises ``ServiceError``: INVALID_REQUEST, BODY_TOO_LARGE.
    """
    header = request.headers.get("content-length")
    if header is None:
        return limit
    if not header.isascii() or not header.isdigit():
        raise ServiceError(ErrorCode.INVALID_REQUEST, "The Content-Length header is not a number.")
    if len(header) > 18 or int(header) > limit:
        raise _too_large(limit)
    return int(header)


async def read_pieces(request: Request, room: Room, limits: BodyLimits, take: Callable[[bytes], object]) -> int:
    """Hand each piece of the body of ``request`` to ``take`` as it comes; return how many bytes there were.

    A piece is asked for only once ``room`` has place for it. Raises ``ServiceError``: BODY_TOO_LARGE, BODY_TIMEOUT,
    QUEUE_FULL; ``ClientDisconnect`` where the sender went away; and what ``take`` raises.
    """
    sender = _Sender(request, limits.window, limits.least_rate)
    received, has_more = 0, True
    while has_more:
        if await room.reach(received + PIECE):
            sender.begin_window()
        piece, has_more = await sender.next_piece()
        received += len(piece)
        if received > limits.largest:
            raise _too_large(limits.largest)
        take(piece)
    return received


@dataclass(slots=True)
class PassedBody:
    """The body of a request that is passed on piece by piece while it comes, of any size."""

    head: bytes
    """The part that was read of it already."""
    request: Request
    window: float
    """Seconds over which the rate is measured. Time in which nobody asks for the next piece does not count."""
    least_rate: float
    """Bytes a second."""
    error: ServiceError | ClientDisconnect | None = None
    """Why the pieces ended early: an HTTP client that sends them on may raise an error of its own in its place."""

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield ``head`` and then each piece as it comes.

        Raises ``ServiceError`` BODY_TIMEOUT, and ``ClientDisconnect`` where the sender went away; ``error`` is it then.
        """
        yield self.head
        sender, has_more = _Sender(self.request, self.window, self.least_rate), True
        while has_more:
            try:
                piece, has_more = await sender.next_piece()
            except (ServiceError, ClientDisconnect) as error:
                self.error = error
                raise
            yield piece


class _Sender:
    """Whoever sends the body of a request, held to a least rate."""

    def __init__(self, request: Request, window: float, least_rate: float) -> None:
        """``window``, ``least_rate``: as of ``PassedBody``."""
        self._request = request
        self._window = window
        self._least_rate = least_rate
        self.begin_window()

    def begin_window(self) -> None:
        """Measure the rate from now on."""
        self._came, self._left = 0, self._window

    async def next_piece(self) -> tuple[bytes, bool]:
        """Return the next piece as it comes, and whether there are more.

        Raises ``ServiceError`` BODY_TIMEOUT, ``ClientDisconnect``.
        """
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            try:
                async with timeout(self._left):
                    message = await self._request.receive()
            except asyncio.TimeoutError:
                if self._came < max(1, self._least_rate * self._window):
                    raise _too_slow(self._window, self._least_rate) from None
                self.begin_window()
                continue
            self._left -= loop.time() - asked
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece = message.get("body", b"")
            self._came += len(piece)
            return piece, message.get("more_body", False)


def _too_large(limit: int) -> ServiceError:
    return ServiceError(
        ErrorCode.BODY_TOO_LARGE,
        f"The request's body has more than the {limit:,} bytes that are read here. Raise MAX_BODY_BYTES if such "
        "pictures are to be read.",
    )


def _too_slow(window: float, least_rate: float) -> ServiceError:
    return ServiceError(
        ErrorCode.BODY_TIMEOUT,
        f"The request's body came at less than {least_rate:,g} bytes a second for {window:g} s "
        "(BODY_MIN_RATE, BODY_TIMEOUT). Send it again in one go.",
    )
