"""Several upstreams: who is asked, who waits, what happens when one is slow, broken or gone. The upstreams are fakes on
loopback.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from compat.upstream.health import UpstreamDown
from tests.compat.upstream.pools import ask, code_of, pool_of, until
from tests.fake_upstream import FakeUpstream
from tools.harness.server import free_port


def test_no_more_than_so_many_are_in_flight_and_the_others_wait_in_line() -> None:
    async def scenario() -> list[str]:
        finished: list[str] = []

        async def one(text: str) -> None:
            assert await code_of(pool, text) == "answered"
            finished.append(text)

        async with pool_of(upstream.url, concurrency=3) as pool:
            tasks = [asyncio.create_task(one(f"{number:02}")) for number in range(12)]
            await asyncio.sleep(0.1)
            assert pool.state(with_urls=False) == {
                "upstreams": [{"upstream": 1, "up": True, "in_flight": 3}],
                "waiting": 9,
            }
            tasks[5].cancel()  # whoever gives up while waiting holds up nobody
            await asyncio.gather(*tasks, return_exceptions=True)
            assert pool.state(with_urls=True)["waiting"] == pool.state(with_urls=True)["upstreams"][0]["in_flight"] == 0
        return finished

    with FakeUpstream(lambda received: "slow") as upstream:
        finished = asyncio.run(scenario())
        assert upstream.most_in_flight == 3
        sent = [received.parts["text"].decode() for received in upstream.received]
    assert sorted(finished) == sorted(sent) == [f"{number:02}" for number in range(12) if number != 5]
    assert [int(text) // 3 for text in sent] == sorted(int(text) // 3 for text in sent)  # first come, first served


def test_a_cancelled_request_frees_its_place() -> None:
    async def scenario() -> None:
        async with pool_of(upstream.url, concurrency=1) as pool:
            task = asyncio.create_task(ask(pool, "hang"))
            await until(lambda: upstream.in_flight == 1)
            waiting = asyncio.create_task(code_of(pool))
            await asyncio.sleep(0.05)
            task.cancel()
            assert await waiting == "answered"

    with FakeUpstream(lambda received: "hang" if received.parts.get("text") == b"hang" else "good") as upstream:
        asyncio.run(scenario())


def test_the_one_with_fewer_requests_in_flight_is_asked() -> None:
    async def scenario() -> None:
        async with pool_of(slow.url, fast.url, concurrency=8) as pool:

            async def caller() -> None:
                for _ in range(15):
                    assert await code_of(pool) == "answered"

            await asyncio.gather(*(caller() for _ in range(4)))

    with FakeUpstream(lambda received: "slow") as slow, FakeUpstream() as fast:
        asyncio.run(scenario())
        assert len(slow.received) >= 2
        assert len(fast.received) > 3 * len(slow.received)


def test_idle_upstreams_take_turns() -> None:
    async def scenario() -> None:
        async with pool_of(one.url, other.url) as pool:
            for _ in range(10):
                await ask(pool)

    with FakeUpstream() as one, FakeUpstream() as other:
        asyncio.run(scenario())
        assert len(one.received) == len(other.received) == 5


def test_one_killed_in_the_middle_of_it_all_loses_no_request_and_is_asked_again_when_it_is_back() -> None:
    async def scenario() -> Counter[str]:
        outcomes: Counter[str] = Counter()

        async def caller(number: int) -> None:
            for round_ in range(40):
                outcomes[await code_of(pool, f"{number} {round_}")] += 1
                await asyncio.sleep(0.01)

        async with pool_of(one.url, other.url) as pool:
            callers = [asyncio.create_task(caller(number)) for number in range(16)]
            await until(lambda: sum(outcomes.values()) > 150)
            await asyncio.to_thread(other.die)
            await until(lambda: sum(outcomes.values()) > 300)
            assert [upstream["up"] for upstream in pool.state(with_urls=True)["upstreams"]] == [True, False]
            before = len(other.received)
            await asyncio.to_thread(other.begin)
            await asyncio.gather(*callers)
            assert len(other.received) > before
        return outcomes

    with FakeUpstream() as one, FakeUpstream() as other:
        assert asyncio.run(scenario()) == {"answered": 640}
        assert len(one.received) > 200


@pytest.mark.parametrize("behaviour", ["503", "reset", "half"])
def test_a_request_that_one_breaks_off_is_answered_by_the_other(behaviour: str) -> None:
    async def scenario() -> None:
        async with pool_of(bad.url, good.url) as pool:
            assert [await code_of(pool) for _ in range(8)] == ["answered"] * 8

    with FakeUpstream(lambda received: behaviour) as bad, FakeUpstream() as good:
        asyncio.run(scenario())
        assert len(bad.received) >= 3


def test_a_request_is_tried_elsewhere_once_and_no_more() -> None:
    """One that kills whoever works on it must not go round."""

    async def scenario() -> None:
        async with pool_of(*(upstream.url for upstream in upstreams)) as pool:
            assert await code_of(pool) == "upstream_unavailable"

    with (
        FakeUpstream(lambda _: "reset") as a,
        FakeUpstream(lambda _: "reset") as b,
        FakeUpstream(lambda _: "reset") as c,
    ):
        upstreams = (a, b, c)
        asyncio.run(scenario())
        assert sum(len(upstream.received) for upstream in upstreams) == 2


def test_while_all_are_down_requests_fail_at_once_also_those_that_wait() -> None:
    async def scenario() -> None:
        async with pool_of(upstream.url, concurrency=1, retry_after=60) as pool:
            tasks = [asyncio.create_task(code_of(pool)) for _ in range(5)]
            await until(lambda: upstream.in_flight == 1)
            await asyncio.to_thread(upstream.die)
            assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == ["upstream_unavailable"] * 5
            with pytest.raises(UpstreamDown, match=f"No upstream can be asked: {upstream.name} .*60 s"):
                await ask(pool)
            assert not pool.any_up
            assert pool.state(with_urls=False)["upstreams"][0]["reason"] == "connection refused"

    with FakeUpstream(lambda received: "hang") as upstream:
        asyncio.run(scenario())


def test_one_that_is_not_there_at_the_start_is_known_before_the_first_request_and_found_when_it_comes() -> None:
    async def scenario() -> None:
        async with pool_of(late.url, f"http://127.0.0.1:{free_port()}") as pool:
            assert not pool.any_up
            assert await code_of(pool) == "upstream_unavailable"
            await asyncio.to_thread(late.__enter__)
            await until(lambda: pool.any_up)
            assert await code_of(pool) == "answered"

    late = FakeUpstream()
    late.port = free_port()
    asyncio.run(scenario())
    late.__exit__()


def test_three_broken_requests_in_a_row_take_one_out_that_still_accepts_connections() -> None:
    async def scenario() -> None:
        async with pool_of(upstream.url, timeout=0.1, retry_after=0.3) as pool:
            for _ in range(3):
                assert pool.any_up
                assert await code_of(pool, "hang") == "upstream_timeout"
            assert not pool.any_up
            assert await code_of(pool) == "upstream_unavailable"
            await until(lambda: pool.any_up)
            assert await code_of(pool) == "answered"

    with FakeUpstream(lambda received: "hang" if received.parts.get("text") == b"hang" else "good") as upstream:
        asyncio.run(scenario())


def test_errors_that_are_answers_take_nobody_out() -> None:
    """Immich's own server answers 500 to any picture that it cannot read."""

    async def scenario() -> None:
        async with pool_of(upstream.url) as pool:
            assert [await code_of(pool) for _ in range(10)] == ["upstream_unavailable"] * 10
            assert pool.any_up

    with FakeUpstream(lambda received: "500") as upstream:
        asyncio.run(scenario())


def test_health_is_asked_while_down_and_only_then() -> None:
    async def scenario() -> None:
        async with pool_of(upstream.url, retry_after=0.05) as pool:
            assert not pool.any_up
            await until(lambda: upstream.pings >= 4)
            upstream.pongs = True
            await until(lambda: pool.any_up)
            before = upstream.pings
            await asyncio.sleep(0.2)
            assert upstream.pings == before

    with FakeUpstream(pongs=False) as upstream:
        asyncio.run(scenario())


def test_the_figures_count_what_became_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    from prometheus_client import REGISTRY

    def figure(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(f"immich_bento_upstream_{name}", {"upstream": "1", **labels})

    outcomes = ("answered", "refused", "failed", "late", "lost")

    def counts() -> dict[str, float]:
        return {outcome: figure("requests_total", outcome=outcome) or 0 for outcome in outcomes}

    async def scenario() -> None:
        async with pool_of(upstream.url, timeout=0.3, retry_after=60) as pool:
            assert figure("up") == 1
            for behaviour in ("good", "415", "500", "hang", "reset"):
                await code_of(pool, behaviour)
            await asyncio.to_thread(upstream.die)
            await code_of(pool)
            assert figure("up") == 0
            assert figure("in_flight", task="clip") == 0

    with FakeUpstream(lambda received: received.parts.get("text", b"good").decode()) as upstream:
        before = counts()
        asyncio.run(scenario())
        came = {outcome: count - before[outcome] for outcome, count in counts().items()}
    assert came == {"answered": 1, "refused": 1, "failed": 1, "late": 1, "lost": 2}
