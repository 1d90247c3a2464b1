"""Upstreams that come and go with the addresses of a DNS name: fakes on loopback, and a DNS server there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from compat.upstream import members
from compat.upstream.health import UpstreamDown
from compat.upstream.members import Numbers
from compat.upstream.pool import UpstreamPool
from settings.addresses import DnsName
from tests.compat.upstream.pools import ask, code_of, until
from tests.fake_dns import FakeDns
from tests.fake_upstream import FakeUpstream
from tools.harness.server import free_port

NAME = "immich-bento-clip"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_LEAST_PAUSE", 0.05)
    monkeypatch.setattr(members, "_LONGEST_PAUSE", 0.05)


@pytest.fixture
def names() -> Iterator[FakeDns]:
    with FakeDns() as running:
        yield running


@pytest.fixture
def pods() -> Iterator[list[FakeUpstream]]:
    """Yield three servers on one port of three addresses."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FakeUpstream(host=f"127.0.0.{last}", port=port)) for last in (2, 3, 4)]


@contextlib.asynccontextmanager
async def pool_of(names: FakeDns, port: int, **options: Any) -> AsyncIterator[UpstreamPool]:
    name = DnsName(NAME, port, "", ("127.0.0.1", names.port))
    settings = {"task": "clip", "timeout": 5.0, "concurrency": 4, "retry_after": 0.1, **options}
    pool = UpstreamPool((name,), **settings)
    try:
        yield pool
    finally:
        await pool.close()


def urls(pool: UpstreamPool) -> list[str]:
    """Return the URLs of those that are asked."""
    return [upstream["url"] for upstream in pool.state(with_urls=True)["upstreams"] if upstream["up"]]


async def looked(names: FakeDns) -> None:
    """Return once the name was looked up twice more."""
    before = names.asked[f"{NAME} A udp"]
    await until(lambda: names.asked[f"{NAME} A udp"] >= before + 2)


def test_every_address_is_an_upstream_and_the_first_request_waits_for_the_first_look(
    names: FakeDns, pods: list[FakeUpstream]
) -> None:
    names.addresses[NAME] = [pod.host for pod in pods]

    async def scenario() -> None:
        async with pool_of(names, pods[0].port) as pool:
            await asyncio.gather(*(ask(pool) for _ in range(12)))
            assert [len(pod.received) for pod in pods] == [4, 4, 4]

    asyncio.run(scenario())


def test_addresses_that_come_are_asked_and_those_that_go_are_asked_nothing_new(
    names: FakeDns, pods: list[FakeUpstream]
) -> None:
    first, second, third = pods
    names.addresses[NAME] = [first.host, second.host]

    async def scenario() -> None:
        async with pool_of(names, first.port) as pool:
            await ask(pool)
            assert urls(pool) == [first.url, second.url]
            names.addresses[NAME] = [second.host, third.host]
            await until(lambda: urls(pool) == [second.url, third.url])
            before = len(first.received)
            for _ in range(10):
                assert await code_of(pool) == "answered"
            assert len(first.received) == before
            assert len(third.received) >= 4

    asyncio.run(scenario())


def test_one_that_goes_finishes_what_it_works_on(names: FakeDns, pods: list[FakeUpstream]) -> None:
    first, second, _ = pods
    first.behaviour = lambda received: "slow"
    names.addresses[NAME] = [first.host]

    async def scenario() -> None:
        async with pool_of(names, first.port) as pool:
            running = asyncio.create_task(code_of(pool, "running"))
            await until(lambda: first.in_flight == 1)
            names.addresses[NAME] = [second.host]
            await until(lambda: urls(pool) == [second.url])
            leaving, _ = pool.state(with_urls=True)["upstreams"]
            assert (leaving["url"], leaving["in_flight"]) == (first.url, 1)
            assert leaving["reason"] == "it is no longer an address of its name"
            assert await running == "answered"
            assert [one["url"] for one in pool.state(with_urls=True)["upstreams"]] == [second.url]

    asyncio.run(scenario())


def test_one_that_comes_back_while_it_finishes_is_the_same_one(names: FakeDns, pods: list[FakeUpstream]) -> None:
    first, second, _ = pods
    first.behaviour = lambda received: "hang" if received.parts.get("text") == b"hang" else "good"
    names.addresses[NAME] = [first.host]

    async def scenario() -> None:
        async with pool_of(names, first.port, concurrency=1) as pool:
            running = asyncio.create_task(code_of(pool, "hang"))
            await until(lambda: first.in_flight == 1)
            names.addresses[NAME] = [second.host]
            await until(lambda: urls(pool) == [second.url])
            names.addresses[NAME] = [first.host, second.host]
            await until(lambda: len(urls(pool)) == 2)
            assert await code_of(pool) == "answered"
            assert len(second.received) == 1, "the one place of the first is taken"
            running.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["silent", "error", "unknown", "empty"])
def test_a_name_that_cannot_be_resolved_keeps_its_addresses(
    fault: str, names: FakeDns, pods: list[FakeUpstream], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("compat.upstream.resolution._WITHIN", 0.1)
    first, second, _ = pods
    names.addresses[NAME] = [first.host]

    async def scenario() -> None:
        async with pool_of(names, first.port) as pool:
            await ask(pool)
            if fault == "unknown":
                del names.addresses[NAME]
            elif fault == "empty":
                names.addresses[NAME] = []
            else:
                names.fault = fault  # type: ignore[assignment]
            await until(lambda: "stay as they were" in caplog.text)
            assert [await code_of(pool) for _ in range(5)] == ["answered"] * 5
            names.fault, names.addresses[NAME] = "", [second.host]
            await until(lambda: urls(pool) == [second.url])
            assert await code_of(pool) == "answered"

    asyncio.run(scenario())
    assert caplog.text.count("stay as they were") == 1, "told once, not at every look"


def test_a_name_without_addresses_at_the_start_is_told_and_found_when_it_has_some(
    names: FakeDns, pods: list[FakeUpstream]
) -> None:
    async def scenario() -> None:
        async with pool_of(names, pods[0].port) as pool:
            with pytest.raises(UpstreamDown, match=rf"dns://{NAME}:\d+ \(its name is not known\)"):
                await ask(pool)
            assert not pool.any_up
            names.addresses[NAME] = [pods[0].host]
            await until(lambda: pool.any_up)
            assert await code_of(pool) == "answered"

    asyncio.run(scenario())


def test_requests_that_wait_go_to_the_one_that_comes(names: FakeDns, pods: list[FakeUpstream]) -> None:
    first, second, _ = pods
    first.behaviour = lambda received: "hang"
    names.addresses[NAME] = [first.host]

    async def scenario() -> None:
        async with pool_of(names, first.port, concurrency=1) as pool:
            stuck = asyncio.create_task(code_of(pool))
            await until(lambda: first.in_flight == 1)
            waiting = asyncio.create_task(code_of(pool))
            await looked(names)
            assert REGISTRY.get_sample_value("immich_bento_upstream_waiting", {"task": "clip"}) == 1
            names.addresses[NAME] = [first.host, second.host]
            assert await waiting == "answered"
            stuck.cancel()

    asyncio.run(scenario())


def test_those_that_refuse_connections_do_not_count_as_tries(names: FakeDns, pods: list[FakeUpstream]) -> None:
    """Several may be gone before the DNS server knows: none of them has seen the request."""
    first, second, third = pods
    third.behaviour = lambda received: "slow"
    names.addresses[NAME] = [pod.host for pod in pods]

    async def scenario() -> None:
        async with pool_of(names, first.port, retry_after=60) as pool:
            await ask(pool)
            await asyncio.to_thread(first.die)
            await asyncio.to_thread(second.die)
            assert await asyncio.gather(*(code_of(pool) for _ in range(12))) == ["answered"] * 12

    asyncio.run(scenario())


def test_numbers_stay_few_however_many_come_and_go(names: FakeDns) -> None:
    async def scenario() -> set[int]:
        seen: set[int] = set()
        async with pool_of(names, free_port(), retry_after=60) as pool:
            for last in range(2, 22):
                names.addresses[NAME] = [f"127.0.1.{last}", f"127.0.1.{last + 1}"]
                await until(lambda last=last: f"127.0.1.{last + 1}" in str(pool.state(with_urls=True)))  # type: ignore[misc]
                seen |= {upstream["upstream"] for upstream in pool.state(with_urls=True)["upstreams"]}
        return seen

    assert asyncio.run(scenario()) <= {1, 2, 3}


def test_a_number_that_is_given_back_is_the_next() -> None:
    numbers = Numbers()
    assert [numbers.take() for _ in range(3)] == [1, 2, 3]
    numbers.give_back(2)
    assert [numbers.take(), numbers.take()] == [2, 4]
