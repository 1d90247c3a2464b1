"""How requests come in: read with a cap on bytes and on silence, and held back, unread, while memory is full of
others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

import metrics
from errors import ErrorCode, ServiceError

_SMALL = 64 * 1024
"""Bytes: a request that says it is no larger (a text query) never waits for room."""
_MAX_PARTS = 32
_MAX_PART_HEADER = 8 * 1024


class ByteBudget:
    """Room for request bodies in memory. Requests that find none wait in line, unread, so that the sender's own buffers
    hold them.

    Immich gives a photo up for good after one failed request: an overloaded server must make it wait, not fail.
    """

    def __init__(self, total: int, max_waiting: int) -> None:
        """``total``: bytes. ``max_waiting``: requests that may wait; one more is refused."""
        self._total = total
        self._max_waiting = max_waiting
        self._held = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold ``size`` bytes for the length of the block, first come first served. Raises ``ServiceError``
        QUEUE_FULL.
        """
        size = min(size, self._total)
        await self._acquire(size)
        try:
            yield
        finally:
            self._release(size)

    async def _acquire(self, size: int) -> None:
        if size <= _SMALL or (not self._line and self._held + size <= self._total):
            self._take(size)
            return
        if len(self._line) >= self._max_waiting:
            raise ServiceError(
                ErrorCode.QUEUE_FULL,
                f"{len(self._line)} requests are waiting already. Lower Immich's job concurrency, or raise "
                "QUEUE_REQUESTS or QUEUE_BYTES.",
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, turn))
        metrics.QUEUE_WAITING.set(len(self._line))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._admit()  # whoever stood behind it may fit now
            else:  # its turn had come in the same moment
                self._release(size)
            raise

    def _take(self, size: int) -> None:
        self._held += size
        metrics.QUEUE_BYTES.set(self._held)

    def _release(self, size: int) -> None:
        self._held -= size
        metrics.QUEUE_BYTES.set(self._held)
        self._admit()

    def _admit(self) -> None:
        while self._line:
            size, turn = self._line[0]
            if not turn.cancelled():
                if self._held + size > self._total:
                    break
                self._take(size)
                turn.set_result(None)
            self._line.popleft()
        metrics.QUEUE_WAITING.set(len(self._line))


@dataclass(frozen=True, slots=True)
class Form:
    """The parts of a multipart body, by name; of several with one name the last."""

    parts: dict[str, bytes]


def announced_size(request: Request, limit: int) -> int:
    """Bytes that the request says its body has; ``limit`` where it does not say. Raises ``ServiceError``
    BODY_TOO_LARGE.
    """
    header = request.headers.get("content-length")
    if header is None:
        return limit
    if not header.isascii() or not header.isdigit():
        raise ServiceError(ErrorCode.INVALID_REQUEST, "The Content-Length header is not a number.")
    if int(header) > limit:
        raise _too_large(limit)
    return int(header)


async def read_form(request: Request, *, limit: int, silence: float) -> Form:
    """Read a ``multipart/form-data`` body into memory.

    ``limit``: bytes, counted while reading. ``silence``: seconds without a byte after which the sender is given up.
    Raises ``ServiceError``: INVALID_REQUEST, BODY_TOO_LARGE, BODY_TIMEOUT; ``ClientDisconnect``.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if content_type != b"multipart/form-data" or not boundary:
        raise ServiceError(ErrorCode.INVALID_REQUEST, "The body must be multipart/form-data.")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        async for chunk in _chunks(request, limit, silence):
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise ServiceError(ErrorCode.INVALID_REQUEST, f"The multipart body cannot be parsed: {error}.") from error
    if not parts.complete:
        raise ServiceError(ErrorCode.INVALID_REQUEST, "The multipart body ends before its closing boundary.")
    return Form(parts.finished)


async def read_body(request: Request, *, limit: int, silence: float) -> bytes:
    """Read a whole body into memory. ``limit``, ``silence`` and errors as of ``read_form``."""
    body = bytearray()
    async for chunk in _chunks(request, limit, silence):
        body += chunk
    return bytes(body)


async def _chunks(request: Request, limit: int, silence: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    received = 0
    while True:
        try:
            chunk = await asyncio.wait_for(stream.__anext__(), silence)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError as error:
            raise ServiceError(
                ErrorCode.BODY_TIMEOUT,
                f"The request's body stopped arriving for {silence:g} s. Send it again in one go.",
            ) from error
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        yield chunk


def _too_large(limit: int) -> ServiceError:
    return ServiceError(
        ErrorCode.BODY_TOO_LARGE,
        f"The request's body has more than the {limit:,} bytes that are read here. Raise MAX_BODY_BYTES if such "
        "pictures are to be read.",
    )


class _Parts:
    """Collects what ``MultipartParser`` calls back."""

    def __init__(self) -> None:
        self.finished: dict[str, bytes] = {}
        self.complete = False
        self._count = 0
        self._header_bytes = 0
        self._field = bytearray()
        self._value = bytearray()
        self._name: str | None = None
        self._data = bytearray()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda data, start, end: self._header(self._field, data, start, end),
            "on_header_value": lambda data, start, end: self._header(self._value, data, start, end),
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._count += 1
        if self._count > _MAX_PARTS:
            raise ServiceError(ErrorCode.INVALID_REQUEST, f"The multipart body has more than {_MAX_PARTS} parts.")
        self._name, self._data, self._header_bytes = None, bytearray(), 0

    def _header(self, into: bytearray, data: bytes, start: int, end: int) -> None:
        self._header_bytes += end - start
        if self._header_bytes > _MAX_PART_HEADER:
            raise ServiceError(ErrorCode.INVALID_REQUEST, "The header of a part of the multipart body is too long.")
        into += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            name = parse_options_header(bytes(self._value))[1].get(b"name")
            self._name = name.decode("utf-8", "replace") if name is not None else None
        self._field.clear()
        self._value.clear()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is not None:
            self._data += memoryview(data)[start:end]

    def _part_end(self) -> None:
        if self._name is not None:
            self.finished[self._name] = bytes(self._data)

    def _end(self) -> None:
        self.complete = True


__all__ = ["ByteBudget", "ClientDisconnect", "Form", "announced_size", "read_body", "read_form"]
