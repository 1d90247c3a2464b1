"""Turns at the runners: fair by cost, never stuck, and a lone client uses all there is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.turns import ClientTurns

Run = Callable[[], Awaitable[None]]


def scenario(run: Run) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(run(), 20)

    asyncio.run(bounded())


class Job:
    """A job that is answered when a test says so."""

    def __init__(self, turns: ClientTurns, client: str, cost: float = 1, runner: str = "ocr") -> None:
        self.sent = False
        self._turns, self._client, self._costs = turns, client, {runner: cost}
        self._answered = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._turns.turn(self._client, self._costs):
            self.sent = True
            await self._answered.wait()

    async def answer(self) -> None:
        self._answered.set()
        await self.task
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_lone_client_has_all_places_and_the_rest_waits() -> None:
    async def run() -> None:
        turns = ClientTurns({"ocr": 4})
        jobs = [Job(turns, "a") for _ in range(6)]
        await settle()
        assert [job.sent for job in jobs] == [True] * 4 + [False] * 2
        assert turns.waiting == 2
        await jobs[0].answer()
        assert jobs[4].sent
        for job in jobs[1:]:
            await job.answer()
        assert turns.waiting == 0

    scenario(run)


def test_who_comes_new_is_next() -> None:
    async def run() -> None:
        turns = ClientTurns({"ocr": 4})
        greedy = [Job(turns, "greedy") for _ in range(50)]
        await settle()
        good = Job(turns, "good")
        await settle()
        assert not good.sent
        await greedy[0].answer()
        assert good.sent
        assert sum(job.sent for job in greedy) == 4
        for job in (good, *greedy[1:]):
            await job.answer()

    scenario(run)


def test_costly_jobs_come_one_at_a_time_and_leave_half_of_the_places_to_others() -> None:
    async def run() -> None:
        turns = ClientTurns({"ocr": 4})
        costly = [Job(turns, "greedy", cost=20) for _ in range(10)]
        await settle()
        assert [job.sent for job in costly] == [True] + [False] * 9
        for _ in range(5):
            good = [Job(turns, "good") for _ in range(2)]
            await settle()
            assert all(job.sent for job in good)
            for job in good:
                await job.answer()
        for job in costly:
            await job.answer()

    scenario(run)


def test_costly_jobs_of_many_clients_leave_the_other_half_free_too() -> None:
    async def run() -> None:
        turns = ClientTurns({"ocr": 4})
        costly = [Job(turns, str(number), cost=20) for number in range(10)]
        await settle()
        assert sum(job.sent for job in costly) == 1
        good = Job(turns, "good")
        await settle()
        assert good.sent
        for job in costly:
            job.task.cancel()
        await good.answer()

    scenario(run)


def test_turns_are_fair_by_cost() -> None:
    async def run() -> None:
        turns = ClientTurns({"ocr": 1})
        sent: Counter[str] = Counter()
        done = asyncio.Event()

        async def client(name: str, cost: float) -> None:
            while not done.is_set():
                async with turns.turn(name, {"ocr": cost}):
                    sent[name] += 1
                    await asyncio.sleep(0)

        callers = [("a", 1.0)] * 3 + [("b", 4.0)] * 9
        tasks = [asyncio.create_task(client(*caller)) for caller in callers]
        while sum(sent.values()) < 1000:
            await asyncio.sleep(0)
        done.set()
        await asyncio.gather(*tasks)
        assert 3.5 < sent["a"] / sent["b"] < 4.5

    scenario(run)


def test_runners_do_not_hold_each_other_up() -> None:
    async def run() -> None:
        turns = ClientTurns({"ocr": 1, "clip_image": 1})
        jobs = [Job(turns, "a") for _ in range(5)]
        other = Job(turns, "a", runner="clip_image")
        await settle()
        assert other.sent
        for job in (*jobs, other):
            job.task.cancel()
        await settle()
        assert turns.waiting == 0

    scenario(run)


def test_a_runner_that_is_not_known_is_an_error_and_leaves_nothing_behind() -> None:
    async def run() -> None:
        turns = ClientTurns({"ocr": 1})
        with pytest.raises(KeyError):
            async with turns.turn("a", {"video": 1}):
                pass
        job = Job(turns, "a")
        await settle()
        assert job.sent
        await job.answer()

    scenario(run)


jobs = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.dictionaries(st.sampled_from(["ocr", "faces"]), st.sampled_from([0.1, 1, 3, 50]), min_size=1),
        st.sampled_from(["answered", "answered", "cancelled"]),
        st.integers(0, 4),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(jobs)
def test_every_job_has_its_turn_and_no_runner_is_sent_too_much(
    arrivals: list[tuple[str, dict[str, float], str, int]],
) -> None:
    async def run() -> None:
        turns = ClientTurns({"ocr": 4, "faces": 2})
        taken: Counter[str] = Counter()
        costly: Counter[str] = Counter()

        async def one(client: str, costs: dict[str, float], steps: int) -> None:
            async with turns.turn(client, costs):
                for name, cost in costs.items():
                    taken[name] += 1
                    costly[name] += cost > {"ocr": 2, "faces": 1}[name]
                assert costly["ocr"] <= 1
                assert costly["faces"] <= 1
                for _ in range(steps):
                    await asyncio.sleep(0)
                for name, cost in costs.items():
                    taken[name] -= 1
                    costly[name] -= cost > {"ocr": 2, "faces": 1}[name]

        async def start(client: str, costs: dict[str, float], end: str, steps: int) -> None:
            task = asyncio.create_task(one(client, costs, steps if end == "answered" else 0))
            if end == "cancelled":
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.gather(task, return_exceptions=end == "cancelled")

        await asyncio.gather(*(start(*arrival) for arrival in arrivals))
        assert turns.waiting == 0

    scenario(run)
