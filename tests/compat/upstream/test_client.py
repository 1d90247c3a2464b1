"""Requests to one upstream: what reaches it, on which connection, and what its errors become."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
from collections import Counter
from typing import Any

import pytest

from compat.upstream.pool import UpstreamAnswer, UpstreamPool
from errors import ErrorCode, ServiceError, forget_frames
from tests.compat.upstream.pools import ENTRIES, ask, code_of, pool_of, until
from tests.fake_upstream import FakeUpstream, expected_vector


def test_what_was_asked_reaches_the_upstream_as_it_came() -> None:
    image = bytes(range(256)) * 3000  # with line breaks, dashes and zeros, and longer than one slice

    async def scenario() -> None:
        async with pool_of(upstream.url, header=("X-Secret", "a:b")) as pool:
            answer = await pool.ask({"entries": ENTRIES, "image": image}, ["clip"], {"x-request-id": "abc"})
            assert answer == UpstreamAnswer(upstream.name, {"clip": expected_vector({"image": image})})

    with FakeUpstream() as upstream:
        asyncio.run(scenario())
        (received,) = upstream.received
    assert received.parts == {"entries": ENTRIES, "image": image}
    assert received.headers["x-secret"] == "a:b"
    assert received.headers["x-request-id"] == "abc"
    assert received.headers["x-immich-bento-hop"] == "1"
    assert received.headers["accept-encoding"] == "identity"
    assert "transfer-encoding" not in received.headers


def test_connections_are_kept_for_the_next_request() -> None:
    async def scenario() -> None:
        async with pool_of(upstream.url) as pool:
            for _ in range(20):
                await ask(pool)

    with FakeUpstream() as upstream:
        asyncio.run(scenario())
        assert {received.connection for received in upstream.received} == {2}  # 1: the first look


def test_a_connection_closed_unannounced_after_each_answer_loses_no_request() -> None:
    async def scenario() -> None:
        async with pool_of(upstream.url) as pool:
            for _ in range(5):
                assert await asyncio.gather(*(code_of(pool) for _ in range(20))) == ["answered"] * 20

    with FakeUpstream(lambda received: "close") as upstream:
        asyncio.run(scenario())
        assert len(upstream.received) == 100


def test_a_connection_closed_in_the_moment_it_is_used_again_loses_no_request() -> None:
    """The second request on every connection meets a reset, as from a server that has just given the connection up."""
    used: Counter[int] = Counter()

    def reset_reused(received: Any) -> str:
        if received.parts:
            return "good"
        used[received.connection] += 1
        return "reset early" if used[received.connection] > 1 else "good"

    async def scenario() -> None:
        async with pool_of(upstream.url) as pool:
            for _ in range(50):
                assert await code_of(pool) == "answered"

    with FakeUpstream(reset_reused) as upstream:
        asyncio.run(scenario())
        assert max(used.values()) > 1
        assert len(upstream.received) == 50


def test_idle_connections_are_dropped_before_a_server_drops_them() -> None:
    async def scenario() -> None:
        async with pool_of(upstream.url) as pool:
            await ask(pool)
            await asyncio.sleep(1.7)  # Immich's own server closes after 2
            await ask(pool)

    with FakeUpstream(idle=2) as upstream:
        asyncio.run(scenario())
        first, second = upstream.received
    assert first.connection != second.connection


@pytest.mark.parametrize(
    ("behaviour", "code", "told"),
    [
        ("500", ErrorCode.UPSTREAM_UNAVAILABLE, "It says 500."),
        ("503", ErrorCode.UPSTREAM_UNAVAILABLE, "It says 503."),
        ("404", ErrorCode.UPSTREAM_UNAVAILABLE, "IMMICH_API"),
        ("301", ErrorCode.UPSTREAM_UNAVAILABLE, "IMMICH_API"),
        ("401", ErrorCode.UPSTREAM_UNAVAILABLE, "UPSTREAM_HEADER"),
        ("garbage", ErrorCode.UPSTREAM_UNAVAILABLE, "not JSON"),
        ("empty", ErrorCode.UPSTREAM_UNAVAILABLE, "no valid answer to clip"),
        ("not http", ErrorCode.UPSTREAM_UNAVAILABLE, "HTTP"),
        ("long", ErrorCode.UPSTREAM_UNAVAILABLE, "longer than 32 MiB"),
        ("half", ErrorCode.UPSTREAM_UNAVAILABLE, "broke"),
        ("half head", ErrorCode.UPSTREAM_UNAVAILABLE, "broke"),
        ("reset", ErrorCode.UPSTREAM_UNAVAILABLE, "broke"),
        ("reset early", ErrorCode.UPSTREAM_UNAVAILABLE, "broke"),
        ("hang", ErrorCode.UPSTREAM_TIMEOUT, "0.3 s (UPSTREAM_TIMEOUT)"),
    ],
)
def test_what_goes_wrong_there_is_an_error_that_names_the_upstream_but_not_the_secret(
    behaviour: str, code: ErrorCode, told: str
) -> None:
    async def scenario() -> ServiceError:
        async with pool_of(
            upstream.url, timeout=0.3 if behaviour == "hang" else 5.0, header=("X-Secret", "hush")
        ) as pool:
            with pytest.raises(ServiceError) as caught:
                await ask(pool)
            assert pool.any_up  # one failure is not yet a dead server
            return caught.value

    with FakeUpstream(lambda received: behaviour) as upstream:
        error = asyncio.run(scenario())
    assert error.code is code
    assert told in error.message
    assert upstream.name in error.message
    assert "hush" not in repr(error) + repr(error.__cause__)


@pytest.mark.parametrize(
    ("status", "code"), [(400, "missing_input"), (413, "body_too_large"), (415, "unreadable_picture")]
)
def test_what_an_upstream_says_of_the_request_itself_is_passed_on(status: int, code: str) -> None:
    async def scenario() -> None:
        async with pool_of(*(upstream.url for upstream in upstreams)) as pool:
            with pytest.raises(ServiceError) as caught:
                await ask(pool)
            assert (caught.value.code.status, caught.value.code.value) == (status, code)
            assert caught.value.message == f"It says {status}."

    with FakeUpstream(lambda received: str(status)) as one, FakeUpstream(lambda received: str(status)) as other:
        upstreams = (one, other)
        asyncio.run(scenario())
        assert len(one.received) + len(other.received) == 1  # another would say the same


@pytest.mark.parametrize(
    "behaviour", ["good", "415", "503", "hang", "reset", "reset early", "half", "not http", "gone"]
)
def test_nothing_of_a_picture_stays_once_upstreams_were_asked(behaviour: str) -> None:
    async def scenario(upstream: FakeUpstream) -> None:
        async with pool_of(upstream.url, timeout=0.3, retry_after=60) as pool:
            with contextlib.suppress(ServiceError):
                await ask(pool)
            # Connections that broke are closed by the loop, and the fake has a thread of its own.
            await until(lambda: tracemalloc.get_traced_memory()[0] < 2**20)

    async def ask(pool: UpstreamPool) -> None:
        try:
            await pool.ask({"entries": b"{}", "image": bytes(8 * 2**20)}, ["clip"], {})
        except ServiceError as error:
            forget_frames(error)
            raise

    with FakeUpstream(lambda received: behaviour) as upstream:
        if behaviour == "gone":
            upstream.die()
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            upstream.forgets = True
            asyncio.run(scenario(upstream))
        finally:
            tracemalloc.stop()
            gc.enable()
            if behaviour == "gone":
                upstream.begin()
