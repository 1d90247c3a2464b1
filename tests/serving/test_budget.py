"""Room for bodies: bounded, in turns, shared among clients, and never stuck."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import ErrorCode, ServiceError
from serving.budget import SMALL, ByteBudget, Room

KB = 1024
MB = 2**20


def a_budget(total: int = 16 * MB, *, largest: int = 4 * MB, max_waiting: int = 100) -> ByteBudget:
    """Return a budget of which large bodies have ``total`` bytes."""
    return ByteBudget(total * 16 // 15 + 1, max_waiting, largest=largest)


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Sender:
    """A request whose body arrives as far as a test says."""

    def __init__(self, budget: ByteBudget, size: int, client: str = "a") -> None:
        self.size = size
        self.room: Room | None = None
        self._budget = budget
        self._client = client
        self._done = asyncio.Event()
        self._begun = asyncio.Event()
        self.reached = 0
        self._orders: asyncio.Queue[int] = asyncio.Queue()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._budget.room(self._client, self.size) as self.room:
            while (size := await self._orders.get()) >= 0:
                await self.room.reach(size)
                self.reached = size
                if size == self.size:
                    self.room.complete(size)

    async def send(self, size: int | None = None) -> bool:
        """Ask for room for ``size`` bytes (all of them); return whether there is."""
        wanted = self.size if size is None else size
        self._orders.put_nowait(wanted)
        await _settle()
        return self.reached >= wanted

    async def end(self) -> None:
        """Have the request answered."""
        self._orders.put_nowait(-1)
        await self.task
        await _settle()


def scenario(run: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(run(), 20)

    asyncio.run(bounded())


def test_requests_wait_in_line_while_memory_is_full_first_come_first_served() -> None:
    async def run() -> None:
        budget = a_budget(16 * MB, largest=16 * MB)
        a, b, c = (Sender(budget, size * MB) for size in (12, 12, 5))
        assert await a.send()
        assert not await b.send()
        assert not await c.send()  # c would fit no better, and does not overtake b
        await a.end()
        assert b.reached == 12 * MB
        assert c.reached == 0
        await b.end()
        assert c.reached == 5 * MB
        await c.end()
        assert budget.held == 0

    scenario(run)


def test_what_is_announced_and_does_not_come_takes_no_room_from_others() -> None:
    async def run() -> None:
        budget = a_budget(16 * MB)
        slow = [Sender(budget, 4 * MB, f"slow {number}") for number in range(50)]
        for one in slow:
            assert await one.send(KB)
        for number in range(20):
            good = Sender(budget, 3 * MB, "good")
            assert await good.send(), number
            await good.end()
        for one in slow:
            await one.end()

    scenario(run)


def test_small_requests_do_not_wait_behind_pictures_and_are_bounded_too() -> None:
    async def run() -> None:
        budget = a_budget(16 * MB)
        pictures = [Sender(budget, 4 * MB, client) for client in "abcd"]
        for one in pictures:
            assert await one.send()
        texts = [Sender(budget, SMALL, str(number)) for number in range(40)]
        came = [await one.send() for one in texts]
        assert 10 < sum(came) < 40
        assert budget.held <= 16 * MB * 16 // 15 + 1
        for one in pictures + texts:
            await one.end()

    scenario(run)


def test_one_client_has_no_more_than_its_share_while_others_wait() -> None:
    async def run() -> None:
        budget = a_budget(16 * MB)
        greedy = [Sender(budget, 4 * MB, "greedy") for _ in range(10)]
        assert [await one.send() for one in greedy] == [True] * 4 + [False] * 6  # nobody else is there
        good = [Sender(budget, 4 * MB, "good") for _ in range(3)]
        assert [await one.send() for one in good] == [False] * 3
        for one in greedy[:2]:
            await one.end()
        assert [one.reached > 0 for one in good] == [True, True, False]
        assert [one.reached > 0 for one in greedy[4:]] == [False] * 6
        for one in (*good, *greedy[2:]):
            await one.end()
        assert budget.held == 0

    scenario(run)


def test_bodies_of_one_client_that_are_not_whole_never_take_more_than_its_share() -> None:
    async def run() -> None:
        budget = a_budget(16 * MB)
        halves = [Sender(budget, 4 * MB, "greedy") for _ in range(30)]
        for one in halves:
            await one.send(3 * MB)
        assert budget.held <= 8 * MB
        good = Sender(budget, 4 * MB, "good")
        assert await good.send()
        for one in (good, *halves):
            await one.end()

    scenario(run)


def test_a_full_line_refuses_one_client_has_half_of_it_and_those_who_leave_make_room() -> None:
    async def run() -> None:
        budget = a_budget(4 * MB, max_waiting=4)
        first = Sender(budget, 4 * MB)
        assert await first.send()
        greedy = [Sender(budget, 4 * MB, "greedy") for _ in range(3)]
        for one in greedy:
            await one.send()
        assert isinstance(greedy[2].task.exception(), ServiceError)
        good = [Sender(budget, 4 * MB, "good") for _ in range(3)]
        for one in good:
            await one.send()
        error = good[2].task.exception()
        assert isinstance(error, ServiceError)
        assert error.code is ErrorCode.QUEUE_FULL
        assert budget.waiting == 4
        greedy[0].task.cancel()
        await _settle()
        assert budget.waiting == 3
        await first.end()
        assert good[0].reached or greedy[1].reached
        for one in (greedy[1], *good[:2]):
            one.task.cancel()
        await _settle()
        assert (budget.held, budget.waiting) == (0, 0)

    scenario(run)


def test_clients_take_turns() -> None:
    async def run() -> None:
        budget = a_budget(4 * MB)
        first = Sender(budget, 4 * MB, "first")
        await first.send()
        waiting = [Sender(budget, 4 * MB, client) for client in "aaaaab"]
        for one in waiting:
            await one.send()
        await first.end()
        order: list[Sender] = []
        while len(order) < len(waiting):
            one = next(one for one in waiting if one.reached and one not in order)
            order.append(one)
            await one.end()
        assert waiting[5] in order[:2]

    scenario(run)


requests = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(1, 6 * MB),  # announced
        st.sampled_from([64 * KB, 320 * KB, MB]),  # the size of its pieces
        st.sampled_from(["whole", "whole", "whole", "leaves", "cancelled"]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(requests, st.integers(7 * MB, 20 * MB), st.integers(0, 2**32))
def test_bodies_in_any_order_are_all_read_and_never_hold_more_than_there_is(
    senders: list[tuple[str, int, int, str]], total: int, seed: int
) -> None:
    """No deadlock: every sender whose body comes is served, whoever else leaves, is cancelled, or is slow."""

    chance = random.Random(seed)

    async def run() -> None:
        budget = ByteBudget(total, 1000, largest=6 * MB)
        held: Counter[int] = Counter()

        async def one(number: int, client: str, size: int, piece: int, end: str) -> None:
            async with budget.room(client, size) as room:
                came, stop = 0, size if end == "whole" else chance.randint(0, size)
                try:
                    while came < stop:
                        await room.reach(came + piece)
                        came = min(size, came + piece)
                        held[number] = came
                        assert sum(held.values()) <= budget.held <= total
                        for _ in range(chance.randint(0, 3)):
                            await asyncio.sleep(0)
                    if came >= size:
                        room.complete(size)
                        for _ in range(chance.randint(0, 5)):
                            await asyncio.sleep(0)
                finally:
                    held[number] = 0

        tasks = [asyncio.create_task(one(number, *sender)) for number, sender in enumerate(senders)]
        for task, sender in zip(tasks, senders, strict=True):
            if sender[3] == "cancelled":
                asyncio.get_running_loop().call_later(chance.random() / 1000, task.cancel)
        outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert [one for one in outcomes if one is not None and not isinstance(one, asyncio.CancelledError)] == []
        assert (budget.held, budget.waiting) == (0, 0)

    asyncio.run(run())


@pytest.mark.parametrize("clients", [1, 500])
def test_a_long_line_costs_little(clients: int) -> None:
    async def run() -> None:
        budget = a_budget(8 * MB, max_waiting=10_000)
        loop = asyncio.get_running_loop()

        async def one(number: int) -> None:
            async with budget.room(str(number % clients), 2 * MB) as room:
                for size in range(256 * KB, 2 * MB + 1, 256 * KB):
                    await room.reach(size)
                    await asyncio.sleep(0)
                room.complete(2 * MB)
                await asyncio.sleep(0)

        began = loop.time()
        await asyncio.gather(*(one(number) for number in range(1000)))
        assert loop.time() - began < 5  # 9,000 decisions

    scenario(run)
