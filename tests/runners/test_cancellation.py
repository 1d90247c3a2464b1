"""Work that ends when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from functools import partial
from weakref import ref

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from runners.cancellation import gather_first_error, gather_in_turns, unless_gone


class Client:
    """An ASGI client that goes away when it is told to."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}


def test_work_is_returned_while_the_client_waits() -> None:
    async def run() -> None:
        async def work() -> int:
            return 5

        assert await unless_gone(Client().receive, work()) == 5

    asyncio.run(run())


def test_an_error_of_the_work_is_raised() -> None:
    async def run() -> None:
        async def work() -> None:
            raise KeyError("ours")

        with pytest.raises(KeyError, match="ours"):
            await unless_gone(Client().receive, work())

    asyncio.run(run())


def test_work_is_cancelled_and_over_once_the_client_has_gone() -> None:
    async def run() -> None:
        client, ends = Client(), []

        async def work() -> None:
            client.gone.set()
            try:
                await asyncio.sleep(60)
            finally:
                ends.append("cancelled")

        with pytest.raises(ClientDisconnect):
            await unless_gone(client.receive, work())
        assert ends == ["cancelled"]

    asyncio.run(run())


def test_who_waits_may_be_cancelled_too() -> None:
    async def run() -> None:
        ends = []

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ends.append("cancelled")

        waiting = asyncio.create_task(unless_gone(Client().receive, work()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ends == ["cancelled"]

    asyncio.run(run())


class Picture:
    """Something large."""


@pytest.mark.parametrize("several", [False, True])
def test_an_error_holds_nothing_until_the_next_full_collection(several: bool) -> None:
    async def run() -> None:
        async def work(picture: Picture) -> None:
            held.append(ref(picture))
            raise KeyError("ours")

        held: list[ref[Picture]] = []
        work_of = [work(Picture())]
        with contextlib.suppress(KeyError):
            await (gather_first_error(work_of) if several else unless_gone(Client().receive, work_of[0]))
        work_of.clear()
        assert held[0]() is None

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()


def test_the_first_error_cancels_the_rest() -> None:
    async def run() -> None:
        ends = []

        async def wait() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ends.append("cancelled")

        async def fail() -> None:
            await asyncio.sleep(0)
            raise KeyError("ours")

        with pytest.raises(KeyError):
            await gather_first_error([wait(), fail()])
        await asyncio.sleep(0)
        assert ends == ["cancelled"]
        assert await gather_first_error([]) == []

    asyncio.run(run())


def test_calls_in_turns_are_made_no_more_than_so_many_at_once_and_answered_in_order() -> None:
    async def run() -> None:
        running, most = 0, 0

        async def call(number: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            for _ in range(10 - number):  # the later, the sooner done
                await asyncio.sleep(0)
            running -= 1
            return number

        assert await gather_in_turns([partial(call, number) for number in range(10)], at_once=3) == [*range(10)]
        assert most == 3

    asyncio.run(run())
