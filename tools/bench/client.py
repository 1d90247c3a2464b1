"""A small HTTP/1.1 client on asyncio, so that thousands of timed requests cost the generator little CPU.

It knows no redirects, pools or TLS. Requests have the headers of Node's undici, which Immich sends with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from tools.harness.immich_client import HEADERS

TIMEOUT = 300.0
"""Seconds for one answer: what Immich waits."""
_LARGEST_HEAD = 2**16
_UNDICI = "connection: keep-alive\r\naccept: */*\r\naccept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\n"


class RequestFailed(Exception):
    """The request was answered by an error, or not at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


class Client:
    """One connection, opened by the first request and kept. An async context manager; one request at a time."""

    def __init__(self, url: str) -> None:
        """Take the server's ``url``, ``http://host:port``; what follows is left out, as Immich does."""
        address = urlsplit(url)
        if address.scheme != "http" or not address.hostname:
            raise ValueError(f"{url} is no address that can be benchmarked: give http://host:port.")
        self._host, self._port = address.hostname, address.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; another request opens a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request and return its answer, read to the last byte. Raise ``RequestFailed`` if there is none."""
        try:
            return await asyncio.wait_for(self._ask(method, path, body, headers or {}), TIMEOUT)
        except asyncio.TimeoutError as error:  # not yet an OSError in Python 3.10
            self.close()
            raise RequestFailed(f"{method} {path}: no answer within {TIMEOUT:.0f} s") from error
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            self.close()
            raise RequestFailed(f"{method} {path}: {error!r}") from error

    async def predict(self, body: bytes) -> bytes:
        """Send ``POST /predict`` and return the body of its answer. Raise ``RequestFailed`` unless it is a 200."""
        answer = await self.ask("POST", "/predict", body, HEADERS)
        if answer.status != 200:
            raise RequestFailed(f"POST /predict was answered {answer.status}: {answer.body[:300]!r}")
        return answer.body

    async def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=_LARGEST_HEAD)
        reader, writer = self._streams
        own = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        length = f"content-length: {len(body)}\r\n" if body is not None else ""
        writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n{_UNDICI}{own}{length}\r\n".encode()
        )
        if body is not None:
            writer.write(body)
        await writer.drain()
        status, fields = _head(await reader.readuntil(b"\r\n\r\n"))
        answer = await _body(reader, fields)
        if fields.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, answer)


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status and headers, names in lower case. Raise ``ValueError`` if it is no HTTP."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    protocol, _, rest = first.partition(" ")
    if not protocol.startswith("HTTP/1."):
        raise ValueError(f"this is no HTTP/1 server: {first[:100]!r}")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(rest[:3]), fields


async def _body(reader: asyncio.StreamReader, fields: Mapping[str, str]) -> bytes:
    if fields.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(fields.get("content-length", "0")))
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")  # no server that is measured here sends trailers
    return b"".join(chunks)
