"""A job whose model is on its way waits outside of its turn, and is asked for again."""

from __future__ import annotations

import asyncio

import pytest

from errors import ErrorCode, ModelOnItsWay, ServiceError
from serving.attempts import ask_in_turn
from serving.turns import ClientTurns
from tests.compat.fake_runners import FakeRunners


class Runners(FakeRunners):
    """Lacks a model until ``come`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.come = asyncio.Event()

    async def arrival(self, task: str, model: str) -> None:
        await super().arrival(task, model)
        await self.come.wait()

    async def ask(self) -> str:
        if not self.come.is_set():
            raise ModelOnItsWay("ocr", "m", "34 %")
        return "answer"


def test_who_waits_for_a_model_holds_no_place_and_is_answered_when_it_has_come() -> None:
    async def scenario() -> None:
        runners, turns = Runners(), ClientTurns({"ocr": 1.0})
        waiting = [asyncio.ensure_future(ask_in_turn(turns, "a", {"ocr": 1.0}, runners, runners.ask)) for _ in range(3)]
        while len(runners.waits) < 3:
            await asyncio.sleep(0)

        async def other() -> str:
            return "other model"

        assert await ask_in_turn(turns, "a", {"ocr": 1.0}, runners, other) == "other model"
        assert not any(one.done() for one in waiting)
        runners.come.set()
        assert await asyncio.gather(*waiting) == ["answer"] * 3
        assert runners.waits == [("ocr", "m")] * 3

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_another_error_is_raised_at_once() -> None:
    async def fail() -> str:
        raise ServiceError(ErrorCode.MODEL_UNAVAILABLE, "full")

    async def scenario() -> None:
        runners = Runners()
        with pytest.raises(ServiceError, match="full"):
            await ask_in_turn(ClientTurns({"ocr": 1.0}), "a", {"ocr": 1.0}, runners, fail)
        assert not runners.waits

    asyncio.run(scenario())
