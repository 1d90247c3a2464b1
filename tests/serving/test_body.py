"""Bodies as they come in: in any pieces, too large, too slow; and what is held of them when they are done with."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from errors import ErrorCode, ServiceError
from serving.body import BodyLimits, Intake, announced_size, small_body
from serving.budget import ByteBudget
from serving.client_address import client_address
from serving.exchange import Fields, answered
from serving.turns import ClientTurns
from tests.serving.requests import request
from tools.harness.immich_client import HEADERS, multipart

MB = 2**20


def intake(*, largest: int = MB, window: float = 5.0, least_rate: float = 0, total: int = 64 * MB) -> Intake:
    return Intake(ByteBudget(total, 100, largest=largest), BodyLimits(largest, window, least_rate), ClientTurns({}))


def read(pieces: Sequence[bytes], taken_in: Intake, *, largest: int = MB, **kwargs: Any) -> bytes:
    async def scenario() -> bytes:
        async with taken_in.body(request(pieces, **kwargs), largest=largest) as body:
            return body

    return asyncio.run(scenario())


def test_a_form_is_read_in_its_pieces() -> None:
    async def scenario() -> None:
        body = multipart({"a": 1}, image=b"x" * 5000)
        taken_in = intake()
        async with taken_in.form(request([body[:3000], b"", body[3000:]]), {"entries": 10, "image": None}) as form:
            assert form.parts == {"entries": b'{"a":1}', "image": b"x" * 5000}
            assert taken_in.budget.held == len(body)
        assert form.parts == {}
        assert taken_in.budget.held == 0

    asyncio.run(scenario())


def test_bytes_are_counted_while_reading_whatever_was_announced() -> None:
    assert read([b"12345", b"", b"67890"], intake(largest=10)) == b"1234567890"
    with pytest.raises(ServiceError) as error:
        read([b"12345", b"678901"], intake(largest=10))
    assert error.value.code is ErrorCode.BODY_TOO_LARGE


def test_a_sender_who_falls_silent_is_given_up() -> None:
    with pytest.raises(ServiceError) as error:
        read([b"123"], intake(window=0.05), silent=True)
    assert error.value.code is ErrorCode.BODY_TIMEOUT


def test_a_sender_who_trickles_is_given_up_and_a_slow_one_is_not() -> None:
    drops = [b"x"] * 40
    with pytest.raises(ServiceError) as error:
        read(drops, intake(window=0.1, least_rate=1000), every=0.02)
    assert error.value.code is ErrorCode.BODY_TIMEOUT
    assert "BODY_MIN_RATE" in error.value.message
    assert read([b"x" * 1000] * 20, intake(window=0.2, least_rate=1000), every=0.02) == b"x" * 20_000


def test_a_small_body_comes_whole_or_is_refused() -> None:
    def read_small(pieces: Sequence[bytes], **kwargs: Any) -> bytes:
        return asyncio.run(small_body(request(pieces, **kwargs), largest=10, seconds=0.2))

    assert read_small([b"12345", b"", b"67890"]) == b"1234567890"
    with pytest.raises(ServiceError, match="larger than 10 bytes") as error:
        read_small([b"12345", b"678901"])
    assert error.value.code is ErrorCode.BODY_TOO_LARGE
    with pytest.raises(ServiceError, match="BODY_TIMEOUT") as error:
        read_small([b"123"], silent=True)
    assert error.value.code is ErrorCode.BODY_TIMEOUT


def test_waiting_for_room_does_not_count_as_slowness() -> None:
    async def scenario() -> None:
        taken_in = intake(total=16 * MB, largest=15 * MB, window=0.1, least_rate=10)
        async with taken_in.budget.room("other", 15 * MB) as room:
            await room.reach(15 * MB)
            room.complete(15 * MB)
            reading = asyncio.create_task(_body(taken_in, request([b"x" * MB] * 2)))
            await asyncio.sleep(0.3)
            assert not reading.done()
        assert len(await reading) == 2 * MB

    asyncio.run(scenario())


async def _body(taken_in: Intake, one: Request) -> bytes:
    async with taken_in.body(one, largest=15 * MB) as body:
        return body


@pytest.mark.parametrize(("header", "expected"), [("10", 10), (None, 100), ("100", 100)])
def test_the_announced_size_is_taken_where_there_is_one(header: str | None, expected: int) -> None:
    assert announced_size(request([], {"content-length": header} if header else {"a": "b"}), 100) == expected


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("101", ErrorCode.BODY_TOO_LARGE),
        ("9" * 10_000, ErrorCode.BODY_TOO_LARGE),
        ("-1", ErrorCode.INVALID_REQUEST),
        ("1e3", ErrorCode.INVALID_REQUEST),
    ],
)
def test_a_body_announced_too_large_is_refused_unread(header: str, code: ErrorCode) -> None:
    with pytest.raises(ServiceError) as error:
        announced_size(request([], {"content-length": header}), 100)
    assert error.value.code is code


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_a_client_is_an_address_or_the_network_of_one(host: str, expected: str) -> None:
    assert client_address(request([], client=host)) == expected


# --- what is held of a request that is over


@contextmanager
def _nothing_stays(at_most: int) -> Iterator[None]:
    """Fail if more than ``at_most`` bytes that are allocated in the block are there after it, without a collection."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[0] < at_most
    finally:
        tracemalloc.stop()
        gc.enable()


async def _refuse(form: dict[str, bytes]) -> Response:
    raise ServiceError(ErrorCode.UNREADABLE_PICTURE, f"{len(form['image'])} bytes that are no picture.")


async def _fail(form: dict[str, bytes]) -> Response:
    raise ValueError(len(form["image"]))


async def _hang(form: dict[str, bytes]) -> Response:
    await asyncio.sleep(60)
    return Response(str(len(form["image"])))


async def _leave(form: dict[str, bytes]) -> Response:
    raise ClientDisconnect


async def _finish(form: dict[str, bytes]) -> Response:
    return Response(str(len(form["image"])))


@pytest.mark.parametrize(("end", "status"), [(_refuse, 415), (_fail, 500), (_hang, 504), (_leave, 499), (_finish, 200)])
def test_nothing_of_a_picture_stays_once_its_request_is_over(end: Any, status: int) -> None:
    body = multipart({"a": 1}, image=bytes(8 * MB))
    pieces = [body[start : start + MB] for start in range(0, len(body), MB)]
    taken_in = intake(largest=16 * MB)

    async def work(one: Request, fields: Fields) -> Response:
        async with taken_in.form(one, {"image": None}) as form:
            response: Response = await end(form.parts)
            return response

    async def scenario() -> None:
        one = request(pieces)
        response = await answered(
            one, work, line="test", timeout=0.3, error_body=lambda error: {"detail": error.message}
        )
        assert response.status_code == status

    async def cancelled() -> None:
        task = asyncio.ensure_future(
            answered(request(pieces), work, line="test", timeout=60, error_body=lambda error: {})
        )
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for run in (scenario, *([cancelled] if end is _hang else [])):
        asyncio.run(run())  # imports, caches
        with _nothing_stays(MB // 2):
            asyncio.run(run())


@pytest.mark.parametrize("headers", [HEADERS, {"content-type": "text/plain"}])
def test_nothing_of_a_body_stays_that_is_refused_while_it_is_read(headers: dict[str, str]) -> None:
    taken_in = intake(largest=4 * MB)
    pieces = [multipart({"a": 1}, image=bytes(4 * MB))[:MB]] + [bytes(MB)] * 5

    async def work(one: Request, fields: Fields) -> Response:
        async with taken_in.form(one, {"image": None}):
            return Response()

    async def scenario() -> None:
        one = request(pieces, headers)
        response = await answered(one, work, line="test", timeout=5, error_body=lambda error: {})
        assert response.status_code in (413, 422)

    asyncio.run(scenario())
    with _nothing_stays(MB // 2):
        asyncio.run(scenario())
