"""A deadline counts the time of its block, but for what is spent in pauses."""

from __future__ import annotations

import asyncio

import pytest

from serving.deadline import Deadline, deadline_paused


async def _pause(seconds: float) -> None:
    with deadline_paused():
        await asyncio.sleep(seconds)


def test_what_takes_too_long_is_cut() -> None:
    async def scenario() -> None:
        async with Deadline(0.05):
            await asyncio.sleep(60)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(scenario())


def test_pauses_do_not_count_whichever_task_makes_them_and_however_they_overlap() -> None:
    async def scenario() -> None:
        async with Deadline(0.2) as deadline:
            await asyncio.gather(_pause(0.3), _pause(0.5), asyncio.sleep(0.4))
            assert not deadline.is_paused
            await _pause(0.3)

    asyncio.run(scenario())


def test_after_a_pause_only_what_was_left_is_left() -> None:
    async def scenario() -> None:
        async with Deadline(0.3):
            await asyncio.sleep(0.1)
            await _pause(0.5)
            await asyncio.sleep(60)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_task_may_end_its_pause_after_the_block() -> None:
    async def scenario() -> None:
        async with Deadline(5):
            pausing = asyncio.ensure_future(_pause(0.05))
            await asyncio.sleep(0)
        await pausing

    asyncio.run(scenario())


def test_without_a_deadline_there_is_nothing_to_pause() -> None:
    asyncio.run(_pause(0))
