"""Requests that wait for a model, over uvicorn: held, told late that it works, and cut off where it does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from errors import ErrorCode, ServiceError
from runners.cancellation import unless_gone
from serving.deadline import deadline_paused
from serving.exchange import Fields, answered
from serving.late_response import EARLY_HEAD, EarlyHead

ANSWER = {"clip": "[0.1,0.2]"}
SOON = EarlyHead(after=0.3, blank_every=0.2)
PATIENCE = 20.0


@dataclass
class Service:
    """Answers once ``come`` is set; until then each request waits for a model."""

    error: Exception | None = None
    early_head: EarlyHead = SOON
    timeout: float = 60.0
    paused: bool = True
    come: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0

    async def _model(self) -> Response:
        self.waiting += 1
        try:
            if self.paused:
                with deadline_paused():
                    await self.come.wait()
            else:
                await self.come.wait()
        finally:
            self.waiting -= 1
        if self.error:
            raise self.error
        return JSONResponse(ANSWER)

    async def _work(self, request: Request, fields: Fields) -> Response:
        await request.body()
        return await unless_gone(request.receive, self._model())

    async def endpoint(self, request: Request) -> Response:
        def body(error: ServiceError) -> dict[str, Any]:
            return {"code": error.code.value}

        return await answered(
            request, self._work, line="test", timeout=self.timeout, error_body=body, early_head=self.early_head
        )


Connect = Callable[[], Awaitable["tuple[asyncio.StreamReader, asyncio.StreamWriter]"]]


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Connect]:
    app = Router([Route("/", service.endpoint, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None, http="httptools"))
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    address = server.servers[0].sockets[0].getsockname()
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*address)
        writers.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        for writer in writers:
            writer.transport.abort()
        server.should_exit = server.force_exit = True
        await task


async def ask(connect: Connect, version: str = "1.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await connect()
    writer.write(f"POST / HTTP/{version}\r\nHost: x\r\nContent-Length: 7\r\n\r\npicture".encode())
    return reader, writer


async def head(reader: asyncio.StreamReader) -> bytes:
    return (await reader.readuntil(b"\r\n\r\n")).lower()


async def chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readline(), 16)
    data = await reader.readexactly(size)
    assert await reader.readexactly(2) == b"\r\n"
    return data


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), PATIENCE)

    asyncio.run(bounded())


def test_immich_gives_up_after_300_s_and_hears_of_its_answer_long_before() -> None:
    assert 0 < EARLY_HEAD.after <= 150
    assert 0 < EARLY_HEAD.blank_every <= 150


def test_the_head_comes_then_blanks_then_the_answer() -> None:
    async def scenario() -> None:
        service = Service()
        async with serving(service) as connect:
            reader, _ = await ask(connect)
            told = await head(reader)
            assert told.startswith(b"http/1.1 200 ")
            assert b"content-type: application/json\r\n" in told
            assert b"transfer-encoding: chunked\r\n" in told
            assert b"x-request-id: " in told
            body = await chunk(reader) + await chunk(reader)
            assert body == b"  "
            service.come.set()
            while piece := await chunk(reader):
                body += piece
            assert json.loads(body) == ANSWER

    run(scenario)


def test_the_connection_serves_another_request_after_a_late_answer() -> None:
    async def scenario() -> None:
        service = Service()
        async with serving(service) as connect:
            reader, writer = await ask(connect)
            await head(reader)
            service.come.set()
            while await chunk(reader):
                pass
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert b"content-length: " in await head(reader)

    run(scenario)


@pytest.mark.parametrize(
    "error", [ServiceError(ErrorCode.MODEL_UNAVAILABLE, "full"), RuntimeError("a fault")], ids=repr
)
def test_a_failure_after_the_head_breaks_the_connection(error: Exception) -> None:
    async def scenario() -> None:
        service = Service(error)
        async with serving(service) as connect:
            reader, _ = await ask(connect)
            await head(reader)
            service.come.set()
            rest = await reader.read()  # to the end of the connection
            assert not rest.endswith(b"0\r\n\r\n"), "an ended body would pass for an answer"
            assert not rest.replace(b"1\r\n \r\n", b""), "nothing but blanks was sent"

    run(scenario)


@pytest.mark.parametrize(
    ("error", "status"), [(None, 200), (ServiceError(ErrorCode.MODEL_UNAVAILABLE, "full"), 503)], ids=repr
)
def test_what_is_known_before_that_is_an_ordinary_answer(error: Exception | None, status: int) -> None:
    async def scenario() -> None:
        service = Service(error, early_head=EARLY_HEAD)
        async with serving(service) as connect:
            reader, _ = await ask(connect)
            while not service.waiting:
                await asyncio.sleep(0.01)
            service.come.set()
            told = await head(reader)
            assert told.startswith(f"http/1.1 {status} ".encode())
            assert b"content-length: " in told
            assert (b"retry-after: " in told) == (status == 503)

    run(scenario)


def test_what_is_slow_without_waiting_for_a_model_is_told_by_its_status() -> None:
    async def scenario() -> None:
        service = Service(paused=False, timeout=0.8)
        async with serving(service) as connect:
            reader, _ = await ask(connect)
            assert (await head(reader)).startswith(b"http/1.1 504 ")

    run(scenario)


def test_waiting_for_a_model_does_not_count_for_the_time_limit() -> None:
    async def scenario() -> None:
        service = Service(timeout=0.2, early_head=EARLY_HEAD)
        async with serving(service) as connect:
            reader, _ = await ask(connect)
            await asyncio.sleep(0.6)
            service.come.set()
            assert (await head(reader)).startswith(b"http/1.1 200 ")

    run(scenario)


def test_http_1_0_knows_no_answer_in_pieces_and_gets_it_whole() -> None:
    async def scenario() -> None:
        service = Service()
        async with serving(service) as connect:
            reader, _ = await ask(connect, "1.0")
            await asyncio.sleep(0.6)
            service.come.set()
            assert b"content-length: " in await head(reader)

    run(scenario)


@pytest.mark.parametrize("after_head", [False, True])
def test_who_goes_away_while_waiting_waits_no_more(after_head: bool) -> None:
    async def scenario() -> None:
        service = Service(early_head=SOON if after_head else EARLY_HEAD)
        async with serving(service) as connect:
            reader, writer = await ask(connect)
            while not service.waiting:
                await asyncio.sleep(0.01)
            if after_head:
                await head(reader)
            writer.transport.abort()
            while service.waiting:
                await asyncio.sleep(0.01)

    run(scenario)
