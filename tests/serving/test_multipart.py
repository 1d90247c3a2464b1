"""Bodies as they come in: in any pieces, too large, too slow, broken; and the line in front of a full memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from errors import ErrorCode, ServiceError
from serving.multipart import ByteBudget, Form, announced_size, read_body, read_form
from tools.immich_client import BOUNDARY, HEADERS, multipart


def request(chunks: Sequence[bytes], headers: dict[str, str] | None = None, *, silent: bool = False) -> Request:
    """A request whose body arrives in ``chunks``; ``silent``: and then nothing more, not even its end."""

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for index, chunk in enumerate(chunks):
            yield {"type": "http.request", "body": chunk, "more_body": silent or index + 1 < len(chunks)}
        await asyncio.sleep(60)

    source = messages()
    raw = [(name.encode(), value.encode()) for name, value in (headers or HEADERS).items()]
    return Request({"type": "http", "method": "POST", "path": "/predict", "headers": raw}, lambda: source.__anext__())


def read(chunks: Sequence[bytes], *, limit: int = 10**6, silence: float = 5.0, **kwargs: Any) -> Form:
    return asyncio.run(read_form(request(chunks, **kwargs), limit=limit, silence=silence))


@given(image=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2500), max_size=20))
def test_a_body_is_the_same_however_it_is_cut(image: bytes, cuts: list[int]) -> None:
    body = multipart({"a": "é"}, image=image)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[a:b] for a, b in pairwise(edges)]
    assert read(chunks).parts == {"entries": b'{"a":"\\u00e9"}', "image": image}


@given(st.binary(max_size=600))
def test_rubbish_is_a_422_and_nothing_else(rubbish: bytes) -> None:
    body = b"--" + BOUNDARY.encode() + rubbish
    try:
        read([body])
    except ServiceError as error:
        assert error.code is ErrorCode.INVALID_REQUEST  # noqa: PT017 - what does parse is fine too


def test_a_body_cut_short_is_refused() -> None:
    body = multipart({"a": 1}, image=b"x" * 100)
    for length in range(len(body) - 2):  # the last line break may be missing
        with pytest.raises(ServiceError) as error:
            read([body[:length]])
        assert error.value.code is ErrorCode.INVALID_REQUEST


def test_another_content_type_is_refused() -> None:
    for content_type in ("application/json", "multipart/form-data", "text/plain; boundary=x", ""):
        with pytest.raises(ServiceError, match="multipart/form-data"):
            read([b"{}"], headers={"content-type": content_type})


def test_bytes_are_counted_while_reading_whatever_was_announced() -> None:
    body = multipart({"a": 1}, image=b"x" * 5000)
    with pytest.raises(ServiceError) as error:
        read([body[:3000], body[3000:]], limit=4000)
    assert error.value.code is ErrorCode.BODY_TOO_LARGE
    assert read([body], limit=len(body)).parts["image"] == b"x" * 5000


def test_too_many_parts_or_too_long_part_headers_are_refused() -> None:
    part = b"--" + BOUNDARY.encode() + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n'
    with pytest.raises(ServiceError, match="parts"):
        read([part * 100 + b"--" + BOUNDARY.encode() + b"--"])
    with pytest.raises(ServiceError, match="header"):
        read([b"--" + BOUNDARY.encode() + b"\r\nX: " + b"y" * 20_000])


def test_a_sender_who_falls_silent_is_given_up() -> None:
    with pytest.raises(ServiceError) as error:
        read([multipart({"a": 1})[:10]], silent=True, silence=0.05)
    assert error.value.code is ErrorCode.BODY_TIMEOUT


@pytest.mark.parametrize(("header", "expected"), [("10", 10), (None, 100), ("100", 100)])
def test_the_announced_size_is_taken_where_there_is_one(header: str | None, expected: int) -> None:
    assert announced_size(request([], {"content-length": header} if header else {"a": "b"}), 100) == expected


@pytest.mark.parametrize(
    ("header", "code"),
    [("101", ErrorCode.BODY_TOO_LARGE), ("-1", ErrorCode.INVALID_REQUEST), ("1e3", ErrorCode.INVALID_REQUEST)],
)
def test_a_body_announced_too_large_is_refused_unread(header: str, code: ErrorCode) -> None:
    with pytest.raises(ServiceError) as error:
        announced_size(request([], {"content-length": header}), 100)
    assert error.value.code is code


KB = 1024


def test_requests_wait_in_line_while_memory_is_full() -> None:
    async def scenario() -> None:
        budget = ByteBudget(total=200 * KB, max_waiting=10)
        order: list[str] = []
        release = {name: asyncio.Event() for name in "abc"}

        async def hold(name: str, size: int) -> None:
            async with budget.hold(size):
                order.append(name)
                await release[name].wait()

        tasks = [
            asyncio.create_task(hold("a", 150 * KB)),
            asyncio.create_task(hold("b", 150 * KB)),
            asyncio.create_task(hold("c", 70 * KB)),
        ]
        await asyncio.sleep(0.01)
        assert order == ["a"]  # c would fit no better, and does not overtake b
        release["a"].set()
        await asyncio.sleep(0.01)
        assert order == ["a", "b"]
        release["b"].set()
        release["c"].set()
        await asyncio.gather(*tasks)
        assert order == ["a", "b", "c"]

    asyncio.run(scenario())


def test_a_small_request_never_waits_and_one_larger_than_all_memory_waits_for_all_of_it() -> None:
    async def scenario() -> None:
        budget = ByteBudget(total=200 * KB, max_waiting=10)
        async with budget.hold(200 * KB):
            async with budget.hold(KB):
                pass
            giant = asyncio.create_task(_hold_once(budget, 10_000 * KB))
            await asyncio.sleep(0.01)
            assert not giant.done()
        await asyncio.wait_for(giant, 5)

    asyncio.run(scenario())


def test_a_full_line_refuses_and_those_who_give_up_make_room() -> None:
    async def scenario() -> None:
        budget = ByteBudget(total=100 * KB, max_waiting=1)
        async with budget.hold(100 * KB):
            waiting = asyncio.create_task(_hold_once(budget, 100 * KB))
            await asyncio.sleep(0)
            with pytest.raises(ServiceError) as error:
                await _hold_once(budget, 100 * KB)
            assert error.value.code is ErrorCode.QUEUE_FULL
            waiting.cancel()
            await asyncio.sleep(0)
            next_one = asyncio.create_task(_hold_once(budget, 100 * KB))
            await asyncio.sleep(0)
        await asyncio.wait_for(next_one, 5)

    asyncio.run(scenario())


@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=40))
def test_no_more_is_held_than_there_is_and_all_is_given_back(requests: list[tuple[int, bool]]) -> None:
    async def scenario() -> None:
        budget = ByteBudget(total=250 * KB, max_waiting=1000)
        held = most = 0

        async def one(size: int) -> None:
            nonlocal held, most
            async with budget.hold(size * KB):
                counted = min(size, 250) if size > 64 else 0
                held += counted
                most = max(most, held)
                try:
                    await asyncio.sleep(0)
                finally:
                    held -= counted

        tasks = [asyncio.create_task(one(size)) for size, _ in requests]
        await asyncio.sleep(0)
        for task, (_, cancel) in zip(tasks, requests, strict=True):
            if cancel:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= 250
        await asyncio.wait_for(_hold_once(budget, 250 * KB), 5)

    asyncio.run(scenario())


async def _hold_once(budget: ByteBudget, size: int) -> None:
    async with budget.hold(size):
        pass


def test_a_whole_body_is_read_with_the_same_bounds() -> None:
    async def read_whole(chunks: Sequence[bytes], **kwargs: Any) -> bytes:
        return await read_body(request(chunks, **kwargs), limit=10, silence=0.05)

    assert asyncio.run(read_whole([b"12345", b"", b"67890"])) == b"1234567890"
    for chunks, silent, code in (
        ([b"12345", b"678901"], False, ErrorCode.BODY_TOO_LARGE),
        ([b"123"], True, ErrorCode.BODY_TIMEOUT),
    ):
        with pytest.raises(ServiceError) as error:
            asyncio.run(read_whole(chunks, silent=silent))
        assert error.value.code is code
