"""One HTTP exchange with Immich in the name of somebody who asked this service: with their credentials, as they came.

By aiohttp: a request that is only passed on costs a third of what httpx takes for it (docs/dependencies.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import aiohttp
from yarl import URL

from errors import ErrorCode, ServiceError, forget_frames
from settings.addresses import shown_url

Headers: TypeAlias = "tuple[tuple[str, str], ...]"
"""Names, in lower case, and values; a name may come more than once."""
Body: TypeAlias = "bytes | AsyncIterator[bytes] | None"

HOP_HEADER = "x-immich-bento-hop"
"""Marks what is sent here, so that an IMMICH_URL which leads back to this service does not make a request go round."""

_IDLE = 3.0
"""Seconds that an idle connection is kept: less than Immich keeps its own (Node's 5)."""
_CONNECT_TIMEOUT = 5.0
_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"}
    | {"te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers about one connection (RFC 9110, 7.6.1), which are not passed on."""


class AnswerTooLarge(ServiceError):
    """IMMICH_UNAVAILABLE: Immich sent more bytes than were asked for."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, as it came."""

    status: int
    headers: Headers
    """Without those about the connection."""
    body: bytes


@dataclass(frozen=True, slots=True)
class OpenReply:
    """An answer whose head has come. Read ``body`` within the block that it was given to."""

    status: int
    headers: Headers
    body: AsyncIterator[bytes]


def passed_on(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers of a request or an answer that are not about its connection, in order.

    ``raw``: as ASGI and aiohttp have them. Names become lower case; values are kept to the byte where they are UTF-8.
    """
    named = [(name.decode("latin-1").lower(), _text(value)) for name, value in raw]
    also = {one.strip().lower() for name, value in named if name == "connection" for one in value.split(",")}
    return tuple((name, value) for name, value in named if name not in _CONNECTION and name not in also)


def _text(value: bytes) -> str:
    """Return the text that aiohttp, which sends UTF-8, makes the same bytes of."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


class ImmichHttp:
    """Connections to the Immich at one address. Belongs to the event loop that it is first used in."""

    def __init__(self, url: str, *, connections: int = 100) -> None:
        """Do not connect yet. ``url``: IMMICH_URL, without a slash at its end; ``connections``: at once, at most."""
        self._url = url
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(
        self,
        method: str,
        target: str,
        headers: Headers,
        *,
        body: Body = None,
        most: int,
        seconds: float | None = None,
    ) -> Reply:
        """Send a request and return its whole answer, whatever its status.

        ``target``: path and query, as they are sent. ``most``: bytes of an answer. ``seconds``: until its end. A
        connection that Immich closed as it was used again is replaced once: whatever is sent twice must be harmless.
        Raises ``ServiceError`` IMMICH_UNAVAILABLE where there is no whole answer, ``AnswerTooLarge`` among them.
        """
        async with self.stream(method, target, headers, body=body, seconds=seconds) as reply:
            read = bytearray()
            async for piece in reply.body:
                read += piece
                if len(read) > most:
                    raise self._unavailable(f"it sent more than {most:,} bytes", AnswerTooLarge)
            return Reply(reply.status, reply.headers, bytes(read))

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: Headers, *, body: Body = None, seconds: float | None = None
    ) -> AsyncIterator[OpenReply]:
        """Send a request and give its answer once its head has come. Raises as ``ask`` does, while the body comes too.

        ``body``: bytes; or pieces, with a ``content-length`` among ``headers`` where it is known.
        """
        try:
            try:
                response = await self._send(method, target, headers, body, seconds)
            except ValueError:  # of yarl and aiohttp; its text may hold a piece of a password
                raise self._unavailable("this is no address of a web server") from None
            async with response:
                pieces = response.content.iter_any()
                yield OpenReply(response.status, passed_on(response.raw_headers), pieces)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            forget_frames(error)
            raise self._unavailable(_reason(error)) from None

    async def _send(
        self, method: str, target: str, headers: Headers, body: Body, seconds: float | None
    ) -> aiohttp.ClientResponse:
        options: dict[str, Any] = {
            "headers": with_headers(headers, {HOP_HEADER: "1"}),
            "data": body,
            "allow_redirects": False,
            "timeout": aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_TIMEOUT),
        }
        url = URL(self._url + target, encoded=True)
        try:
            return await self._open().request(method, url, **options)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError):
            if not isinstance(body, bytes | None):
                raise
        return await self._open().request(method, url, **options)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_IDLE),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # answers are passed on as they are
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        return self._session

    def _unavailable(self, what: str, kind: type[ServiceError] = ServiceError) -> ServiceError:
        return kind(
            ErrorCode.IMMICH_UNAVAILABLE,
            f"Immich at {shown_url(self._url)} cannot be asked: {what}. Is IMMICH_URL right, and is it running?",
        )


def without(headers: Headers, names: Iterable[str]) -> Headers:
    """Return ``headers`` without those of ``names``, which are in lower case."""
    left_out = frozenset(names)
    return tuple((name, value) for name, value in headers if name not in left_out)


def with_headers(headers: Headers, more: Mapping[str, str]) -> Headers:
    """Return ``headers`` with ``more``, whose names are in lower case, in place of those of the same names."""
    return (*without(headers, more), *more.items())


def _reason(error: Exception) -> str:
    """Return a few words on what went wrong, without addresses and headers."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is not known"
    if isinstance(error, aiohttp.ClientConnectorError):
        return (error.os_error.strerror or "no connection").lower()
    if isinstance(error, asyncio.TimeoutError):
        return "it did not answer in time"
    if isinstance(error, aiohttp.ClientResponseError):
        return "it does not speak HTTP"
    return "the connection broke before its answer was whole"
