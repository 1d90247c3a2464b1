"""One HTTP exchange with another Immich ML server: bounded, streamed, and on connections that are kept alive with
care. By aiohttp: httpx takes five times the CPU for a picture (docs/dependencies.md).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractStreamWriter

from errors import forget_frames

HOP_HEADER = "x-immich-bento-hop"
"""Marks requests that a gateway passes on, so that two gateways which name each other do not pass them round for
ever.
"""

_IDLE = 1.5
"""Seconds that an idle connection is kept: less than servers keep theirs (Immich's own ML server 2, uvicorn 5)."""
_CONNECT_TIMEOUT = 5.0
_PING_TIMEOUT = 5.0
_LIVENESS = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A machine that is gone without a word is noticed after 25 s in which nothing comes from it, however long an answer
may take: the kernel asks after 10, then every 5, three times.
"""
_MAX_ANSWER = 32 * 2**20
"""Bytes. A face takes about 6 kB, a line of text less."""
_SMALL = 16 * 1024


class ConnectionLost(Exception):
    """There is no whole answer: no connection could be made, or it broke before the answer's last byte."""

    def __init__(self, reason: str, *, connected: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.connected = connected
        """False: nothing accepts connections there."""


class NoAnswerInTime(Exception):
    """The connection holds, but the answer is late."""


class NotHttp(Exception):
    """An answer that is no HTTP, or longer than an answer can be."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, unjudged."""

    status: int
    body: bytes


@dataclass(slots=True)
class _Attempt:
    """The progress of one attempt."""

    on_reused_connection: bool = False
    answered: bool = False
    """At least the head of an answer was there."""


class MultipartPayload(aiohttp.Payload):
    """``multipart/form-data`` as Immich writes it. Large parts are sent from where they are: a picture is never
    copied.
    """

    def __init__(self, parts: Mapping[str, bytes]) -> None:
        boundary = f"----immich-bento-{secrets.token_hex(16)}"
        super().__init__(parts, content_type=f"multipart/form-data; boundary={boundary}")
        self._pieces = tuple(_joined(_pieces(parts, boundary.encode())))
        self._size = sum(map(len, self._pieces))

    async def write(self, writer: AbstractStreamWriter) -> None:
        for piece in self._pieces:
            await writer.write(piece)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._pieces).decode(encoding, errors)


def _pieces(parts: Mapping[str, bytes], boundary: bytes) -> Iterator[bytes]:
    for name, value in parts.items():
        file = b'; filename="blob"\r\nContent-Type: application/octet-stream' if name == "image" else b""
        yield (
            b"--" + boundary + b'\r\nContent-Disposition: form-data; name="' + name.encode() + b'"' + file + b"\r\n\r\n"
        )
        yield value
        yield b"\r\n"
    yield b"--" + boundary + b"--\r\n"


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes, with small pieces joined to one: each piece costs the receiver a wake-up."""
    small = bytearray()
    for piece in pieces:
        if len(piece) < _SMALL:
            small += piece
            continue
        if small:
            yield bytes(small)
            small.clear()
        yield piece
    yield bytes(small)


class UpstreamClient:
    """Asks other servers. Belongs to the event loop it is made in; does not bound how many requests are in flight."""

    def __init__(self, *, timeout: float, header: tuple[str, str] | None = None) -> None:
        """``timeout``: seconds for one exchange, connecting included. ``header``: a name and value to send along."""
        headers = {"user-agent": "immich-bento", "accept-encoding": "identity", **dict([header] if header else [])}
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)

        def session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=connector,
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # none was asked for, and a bomb may come
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(_CONNECT_TIMEOUT, timeout)),
                trace_configs=[trace],
            )

        self._kept_alive = session(aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE, socket_factory=_socket))
        self._fresh = session(aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_socket))

    async def close(self) -> None:
        await self._kept_alive.close()
        await self._fresh.close()

    async def predict(self, url: str, parts: Mapping[str, bytes], headers: Mapping[str, str]) -> Reply:
        """Send ``POST url/predict`` with ``parts``.

        A server may close an idle connection in the very moment in which it is used again (RFC 9112, 9.3.1): then, and
        only then, the request is sent once more, on a new connection. Raises ``ConnectionLost``, ``NoAnswerInTime``,
        ``NotHttp``.
        """
        attempt = _Attempt()
        try:
            return await _post(self._kept_alive, url, parts, headers, attempt)
        except ConnectionLost:
            if attempt.answered or not attempt.on_reused_connection:
                raise
        return await _post(self._fresh, url, parts, headers, _Attempt())

    async def pongs(self, url: str) -> bool:
        """Return whether ``GET url/ping`` is answered as Immich expects: any 2xx."""
        timeout = aiohttp.ClientTimeout(total=_PING_TIMEOUT)
        try:
            async with self._fresh.get(f"{url}/ping", allow_redirects=False, timeout=timeout) as response:
                return 200 <= response.status < 300
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return False


def _socket(address: AddrInfoType) -> socket.socket:
    """Return a socket for one connection to ``address``, whose other end is asked for signs of life."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _LIVENESS.items():
        if hasattr(socket, option):  # macOS lacks the first before Python 3.13
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


async def _note_reuse(
    session: aiohttp.ClientSession, context: Any, parameters: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.on_reused_connection = True


async def _post(
    session: aiohttp.ClientSession, url: str, parts: Mapping[str, bytes], headers: Mapping[str, str], attempt: _Attempt
) -> Reply:
    try:
        async with session.post(
            f"{url}/predict",
            data=MultipartPayload(parts),
            headers={HOP_HEADER: "1", **headers},
            allow_redirects=False,
            trace_request_ctx=attempt,
        ) as response:
            attempt.answered = True
            return Reply(response.status, await _read(response))
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
        # aiohttp keeps its errors, and they would keep the picture.
        forget_frames(error)
        raise _failure(error) from None


def _failure(error: Exception) -> ConnectionLost | NoAnswerInTime | NotHttp:
    """Return what an error of aiohttp means here."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return ConnectionLost(_reason(error), connected=False)
    if isinstance(error, asyncio.TimeoutError):
        return NoAnswerInTime()
    if isinstance(error, aiohttp.ClientResponseError):  # aiohttp's word for an unreadable status line or header
        return NotHttp("it does not speak HTTP")
    return ConnectionLost(_reason(error), connected=True)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_ANSWER:
            raise NotHttp(f"its answer is longer than {_MAX_ANSWER // 2**20} MiB")
    return bytes(body)


def _reason(error: Exception) -> str:
    """Return a few words without addresses, which the reader has from the upstream's name, and without headers."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    if isinstance(error, aiohttp.ClientSSLError):
        return "its certificate or TLS is not accepted"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is not known"
    if isinstance(error, aiohttp.ClientConnectorError):
        # Not its strerror: asyncio puts the address into it.
        return os.strerror(error.os_error.errno).lower() if error.os_error.errno else "no connection"
    return "the connection broke before its answer was whole"
