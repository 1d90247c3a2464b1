"""The load generator against a server without models."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.bench.fake_server import FakeServer, serving
from tools.bench.client import Client, RequestFailed
from tools.bench.generator import Extent, Supply, closed_loop, due_times, open_loop

BODIES = [b"one", b"two", b"three"]


@pytest.mark.parametrize(
    "fake", [FakeServer(), FakeServer(chunked=True), FakeServer(close=True)], ids=["length", "chunked", "closing"]
)
def test_each_body_is_sent_in_turn_and_each_answer_is_timed(fake: FakeServer) -> None:
    with serving(fake):
        load = asyncio.run(closed_loop(fake.url, BODIES, callers=1, extent=Extent(requests=7)))
    assert fake.bodies == [*BODIES, *BODIES, b"one"]
    assert not load.failures
    assert len(load.all_latencies) == 7
    assert all(0 < latency <= load.seconds for latency in load.all_latencies)
    assert fake.connections == (7 if fake.close else 1)


def test_callers_share_the_supply_and_keep_a_connection_each() -> None:
    with serving(FakeServer(delay=lambda number: 0.02)) as fake:
        load = asyncio.run(closed_loop(fake.url, BODIES, callers=4, extent=Extent(requests=12)))
    assert sorted(fake.bodies) == sorted(BODIES * 4)
    assert fake.connections == 4
    assert [len(latencies) > 0 for latencies in load.latencies] == [True] * 4


def test_a_load_by_time_ends_with_a_whole_round_through_the_bodies() -> None:
    with serving(FakeServer(delay=lambda number: 0.01)) as fake:
        load = asyncio.run(closed_loop(fake.url, BODIES, callers=2, extent=Extent(seconds=0.1)))
    assert len(fake.bodies) % len(BODIES) == 0
    assert load.seconds >= 0.1


def test_answers_that_are_errors_are_failures_that_say_so_and_do_not_count_as_answers() -> None:
    with serving(FakeServer(status=lambda number: 503 if number % 3 == 1 else 200)) as fake:
        load = asyncio.run(closed_loop(fake.url, BODIES, callers=1, extent=Extent(requests=9)))
    assert len(load.all_latencies) == 6
    assert len(load.failures) == 3
    assert "503" in load.failures[0]
    assert "told to" in load.failures[0]


def test_a_server_that_is_not_there_is_a_failure_and_not_an_exception() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        load = asyncio.run(closed_loop(url, BODIES, callers=1, extent=Extent(requests=2)))
    assert len(load.failures) == 2
    assert not load.all_latencies


def test_an_open_loop_counts_latency_from_when_a_request_was_due_so_that_a_stall_shows_in_all_behind_it() -> None:
    """Whatever comes during the first request's stall is answered at its end."""
    stall, rate = 0.4, 50.0

    def until_the_stall_ends(number: int) -> float:
        return max(0.0, stall - number / rate)

    with serving(FakeServer(delay=until_the_stall_ends)) as fake:
        load = asyncio.run(open_loop(fake.url, BODIES, rate=rate, extent=Extent(requests=15), poisson=False))
    latencies = sorted(load.all_latencies, reverse=True)
    assert latencies[0] >= stall
    assert sum(latency > stall / 2 for latency in latencies) >= 5  # a closed loop would have sent one request meanwhile
    assert len(fake.bodies) == 15


def test_an_open_loop_lasts_as_long_as_its_schedule() -> None:
    with serving(FakeServer()) as fake:
        load = asyncio.run(open_loop(fake.url, BODIES, rate=100, extent=Extent(seconds=0.2), poisson=False))
    assert len(fake.bodies) in (20, 21)  # 20 / 100 may come out on either side of 0.2
    assert load.seconds >= 0.19


@settings(max_examples=20)
@given(st.floats(0.5, 500), st.integers(0, 2**31))
def test_due_times_begin_at_0_rise_and_come_at_the_rate_asked_for(rate: float, seed: int) -> None:
    for poisson in (False, True):
        due = list(itertools.islice(due_times(rate, poisson=poisson, seed=seed), 2001))
        assert due[0] == 0
        assert all(one <= other for one, other in itertools.pairwise(due))
        assert due[-1] * rate == pytest.approx(2000, rel=0.15 if poisson else 1e-6)


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(0, 40))
def test_a_supply_by_count_hands_out_that_many_in_turn(kinds: int, count: int) -> None:
    bodies = [bytes([number]) for number in range(kinds)]
    assert list(Supply(bodies, Extent(requests=count))) == [bodies[number % kinds] for number in range(count)]


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "127.0.0.1:3003", "http://"])
def test_an_address_that_cannot_be_measured_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        Client(url)


def test_an_answer_that_is_no_http_is_a_failed_request() -> None:
    async def ask() -> None:
        async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"nonsense\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
        try:
            async with Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
                with pytest.raises(RequestFailed, match="GET /ping"):
                    await client.ask("GET", "/ping")
        finally:
            server.close()
            await server.wait_closed()

    asyncio.run(ask())
