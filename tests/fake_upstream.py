"""An Immich ML server on loopback that computes nothing and misbehaves as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.parser import BytesParser
from typing import Any


@dataclass(frozen=True)
class Received:
    """One ``POST /predict`` as it came."""

    headers: dict[str, str]
    parts: dict[str, bytes]
    connection: int
    """Number of the connection it came on."""

    @property
    def entries(self) -> Any:
        return json.loads(self.parts["entries"])


Behaviour = Callable[[Received], str]


def expected_vector(parts: dict[str, bytes]) -> str:
    """Return what a fake answers to ``clip``: tells one picture or text from another."""
    content = parts.get("image", b"") + parts.get("text", b"")
    return json.dumps([zlib.crc32(content) / 2**32, 0.5], separators=(",", ":"))


def answers(received: Received) -> dict[str, Any]:
    vector = expected_vector(received.parts)
    face = {"boundingBox": {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}, "embedding": vector, "score": 0.75}
    all_of_them = {
        "clip": vector,
        "facial-recognition": [face],
        "ocr": {
            "text": ["发票"],
            "box": [0.1, 0.1, 0.5, 0.1, 0.5, 0.3, 0.1, 0.3],
            "boxScore": [0.9],
            "textScore": [0.95],
        },
    }
    asked = {task: all_of_them[task] for task in received.entries if task in all_of_them}
    return asked | ({"imageHeight": 1, "imageWidth": 1} if "image" in received.parts else {})


class FakeUpstream:
    """A context manager, synchronous and asynchronous alike: the server has a thread and an event loop of its own.

    ``behaviour`` says how each request is answered: ``good``; ``close`` (and then closes the connection without having
    said so); ``slow`` (after 0.2 s); ``hang``; ``reset`` (a TCP reset once all was read), ``reset early`` (before the
    body was read); ``half`` (of the body), ``half head``; ``garbage`` (not JSON), ``not http``, ``long`` (for ever),
    ``empty`` (``{}``); or a status.
    """

    def __init__(
        self,
        behaviour: Behaviour = lambda received: "good",
        *,
        idle: float = 60,
        pongs: bool = True,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """``idle``: seconds after which an idle connection is closed. ``host``, ``port``: an address of loopback, and 0
        for any free port.
        """
        self.behaviour = behaviour
        self.host = host
        self.port = port
        self.idle = idle
        self.pongs = pongs
        self.forgets = False
        """Keep no picture that is received."""
        self.received: list[Received] = []
        self.behaved: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = self.pings = self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    def __enter__(self) -> FakeUpstream:
        self._thread.start()
        self.begin()
        return self

    def __exit__(self, *error: object) -> None:
        self.die()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def begin(self) -> None:
        """Listen: on the port it had before, if it had one."""
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result()

    def die(self) -> None:
        """End as when a process is killed: nothing listens any more, and every connection is reset."""
        asyncio.run_coroutine_threadsafe(self._die(), self._loop).result()

    def finish(self) -> None:
        """End as a server does at SIGTERM: nothing listens any more, what runs is answered, connections are closed."""
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()

    async def _finish(self) -> None:
        assert self._server is not None
        self._server.close()
        while self.in_flight:
            await asyncio.sleep(0.005)
        for writer in list(self._open):
            writer.close()
        while self._open:
            await asyncio.sleep(0.005)

    async def _begin(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=2**24)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _die(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            _reset(writer)
        await asyncio.sleep(0.02)
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                while await self._exchange(reader, writer, number):
                    pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """Answer one request. False: the connection is over."""
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), self.idle)
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if first.startswith("GET /ping"):
            self.pings += 1
            await _send(writer, 200 if self.pongs else 503, b"pong")
            return True
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.behaviour(Received(headers, {}, number)) == "reset early":
                return await self._misbehave("reset early", writer)
            body = await reader.readexactly(int(headers["content-length"]))
            received = Received(headers, dict(_parts(headers, body)), number)
            how = self.behaviour(received)
            if self.forgets:
                small = {name: part for name, part in received.parts.items() if name != "image"}
                received = Received(headers, small, number)
                del body
            self.received.append(received)
            self.behaved[how] += 1
            if how in ("good", "close", "slow"):
                await asyncio.sleep(0.2 if how == "slow" else 0)
                await _send(writer, 200, json.dumps(answers(received)).encode())
                return how != "close"
            return await self._misbehave(how, writer)
        finally:
            self.in_flight -= 1

    async def _misbehave(self, how: str, writer: asyncio.StreamWriter) -> bool:
        if how.startswith("reset"):
            _reset(writer)
        elif how == "hang":
            await asyncio.sleep(3600)
        elif how == "half":
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"clip":"[0.1')
        elif how == "half head":
            writer.write(b"HTTP/1.1 200 O")
        elif how == "not http":
            writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
        elif how == "long":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                await writer.drain()
        else:
            bodies = {"garbage": b"\xff<html>", "empty": b"{}"}
            status = int(how) if how.isdigit() else 200
            await _send(writer, status, bodies.get(how, json.dumps({"detail": f"It says {how}."}).encode()))
            return True
        return False


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + (b"Location: /elsewhere\r\n\r\n" if status // 100 == 3 else b"\r\n") + body)
    await writer.drain()


def _parts(headers: dict[str, str], body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the parts of a multipart body by name, as the standard library's parser sees them."""
    boundary = headers["content-type"].partition("boundary=")[2].encode()
    for piece in body.split(b"--" + boundary)[1:-1]:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = BytesParser().parsebytes(head + b"\r\n\r\n").get_param("name", header="content-disposition")
        assert isinstance(name, str)
        yield name, content.removesuffix(b"\r\n")
