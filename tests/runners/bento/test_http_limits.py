"""Heads of requests have bounds in size and time, and bodies wait with their senders until they are asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runners.bento import http_limits
from runners.bento.http_limits import HTTP_PROTOCOL, MAX_HEAD, BoundedHeadProtocol, bound_heads_of

App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def read_and_answer(scope: Scope, receive: Receive, send: Send) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield a connection to uvicorn's own server with bounded heads."""
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, http="httptools", timeout_keep_alive=60)
    config.load()
    bound_heads_of(config)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        server.should_exit = True
        await task


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return status and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 20)

    asyncio.run(bounded())


GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


def test_uvicorn_is_as_this_module_expects_it() -> None:
    assert HTTP_PROTOCOL.misfit() is None
    config = uvicorn.Config(answer_at_once, log_config=None)  # as BentoML makes it: http="auto"
    config.load()
    assert config.http_protocol_class is HttpToolsProtocol
    bound_heads_of(config)
    assert config.http_protocol_class is BoundedHeadProtocol


@pytest.mark.parametrize(
    "sent",
    [
        GET + b"X-Long: " + b"x" * (50 * 2**20),
        GET + b"X-N: 1\r\n" * 10_000,
        b"GET /" + b"x" * (5 * 2**20),
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Trailer: "
        + b"x" * (5 * 2**20),
    ],
    ids=["one header", "many headers", "path", "trailer"],
)
@pytest.mark.parametrize("app", [answer_at_once, read_and_answer], ids=["at once", "reads"])
def test_a_head_that_is_too_long_is_refused_without_being_read(sent: bytes, app: App) -> None:
    async def scenario() -> None:
        async with serving(app) as (reader, writer):
            longest = asyncio.create_task(_longest_pause())
            writer.write(sent)
            try:
                status, _ = await answer(reader)
                assert status in (431, 200)  # 200: answered before the trailer came
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # closed before all was sent: the answer may be lost with it
            try:
                rest = await reader.read()
            except ConnectionError:
                rest = b""
            assert rest == b"" or b" 431 " in rest
            await asyncio.sleep(0.05)
            longest.cancel()
            assert _pauses
            assert max(_pauses) < 0.5

    run(scenario)


_pauses: list[float] = []


async def _longest_pause() -> None:
    _pauses.clear()
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        _pauses.append(time.perf_counter() - began)


def test_a_head_of_the_largest_size_is_read_in_any_pieces() -> None:
    async def scenario() -> None:
        async with serving(answer_at_once) as (reader, writer):
            head = GET + b"X-Long: " + b"x" * (MAX_HEAD - len(GET) - 12) + b"\r\n\r\n"
            assert len(head) == MAX_HEAD
            for piece in (MAX_HEAD, 5_000, 1_000):
                for start in range(0, len(head), piece):
                    writer.write(head[start : start + piece])
                    await asyncio.sleep(0)
                assert (await answer(reader))[0] == 200

    run(scenario)


def test_one_byte_more_is_refused_and_says_why() -> None:
    async def scenario() -> None:
        async with serving(answer_at_once) as (reader, writer):
            writer.write((GET + b"X-Long: " + b"x" * MAX_HEAD)[: MAX_HEAD + 1])
            status, body = await answer(reader)
            assert status == 431
            assert b"32,768 bytes" in body
            assert await reader.read() == b""

    run(scenario)


@pytest.mark.parametrize("length", [True, False], ids=["length", "chunked"])
def test_bodies_of_any_size_pass_whole_and_the_connection_serves_on(length: bool) -> None:
    async def scenario() -> None:
        async with serving(read_and_answer) as (reader, writer):
            for size in (1, 300_000, 5_000_000, 0):
                body = bytes(size)
                if length:
                    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + body)
                else:
                    chunk = b"%x\r\n%s\r\n" % (size, body) if size else b""
                    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
                    writer.write(b"0\r\n\r\n")
                assert await answer(reader) == (200, str(size).encode())

    run(scenario)


def test_requests_sent_one_behind_the_other_are_all_answered() -> None:
    async def scenario() -> None:
        async with serving(read_and_answer) as (reader, writer):
            post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)
            writer.write((GET + b"\r\n" + post) * 20)
            for _ in range(20):
                assert await answer(reader) == (200, b"0")
                assert await answer(reader) == (200, b"100000")

    run(scenario)


def test_a_client_that_waits_to_be_told_to_continue_is_told() -> None:
    async def scenario() -> None:
        async with serving(read_and_answer) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"12345")
            assert await answer(reader) == (200, b"5")

    run(scenario)


def test_a_body_is_not_read_before_it_is_asked_for() -> None:
    go = asyncio.Event()

    async def hesitate(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()
        await read_and_answer(scope, receive, send)

    async def scenario() -> None:
        nonlocal go
        go = asyncio.Event()
        async with serving(hesitate) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n")
            await asyncio.sleep(0.1)
            writer.write(bytes(50_000_000))
            await asyncio.sleep(0.3)
            assert writer.transport.get_write_buffer_size() > 30_000_000  # it is with the sender yet
            go.set()
            assert await answer(reader) == (200, b"50000000")

    run(scenario)


@pytest.mark.parametrize(
    ("pieces", "status"),
    [([], None), ([b"GET / HT"], 408), ([b"GET /"] + [b"x"] * 100, 408), ([b"\r\n"] * 100, None)],
    ids=["nothing", "half a line", "a byte now and then", "empty lines"],
)
def test_a_connection_without_a_whole_head_is_closed(
    pieces: list[bytes], status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "HEAD_TIMEOUT", 0.2)

    async def drip(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.05)

    async def scenario() -> None:
        async with serving(answer_at_once) as (reader, writer):
            dripping = asyncio.create_task(drip(writer))
            try:
                received = await asyncio.wait_for(reader.read(), 5)
            except ConnectionError:
                received = b"HTTP/1.1 408 " if status else b""  # lost, since more was sent after it
            assert received.startswith(b"HTTP/1.1 408 ") if status else received == b""
            dripping.cancel()

    run(scenario)


def test_a_body_that_nobody_reads_ends_with_the_head_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "HEAD_TIMEOUT", 0.2)

    async def scenario() -> None:
        async with serving(answer_at_once) as (reader, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            assert (await answer(reader))[0] == 200
            for _ in range(4):
                writer.write(b"x")
                await asyncio.sleep(0.01)
            assert await asyncio.wait_for(reader.read(), 5) == b""

    run(scenario)


def test_an_idle_connection_that_is_kept_alive_outlives_the_head_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "HEAD_TIMEOUT", 0.1)

    async def scenario() -> None:
        async with serving(answer_at_once) as (reader, writer):
            for _ in range(3):
                writer.write(GET + b"\r\n")
                assert (await answer(reader))[0] == 200
                await asyncio.sleep(0.3)

    run(scenario)


def test_a_request_that_takes_longer_than_a_head_may_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "HEAD_TIMEOUT", 0.1)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.4)
        await read_and_answer(scope, receive, send)

    async def scenario() -> None:
        async with serving(slow) as (reader, writer):
            writer.write(GET + b"\r\n" + GET[:10])  # and half of the next
            assert (await answer(reader))[0] == 200

    run(scenario)
